import pytest
import torch

from stpn_tasks import engine
from stpn_tasks.detection.build import build_detector
from stpn_tasks.detection.checkpoint import SavedDetector
from stpn_tasks.detection.data import build_clips, build_collate
from stpn_tasks.detection.run import build_inference, centre_predictor, evaluate_saved
from stpn_tasks.engine import fast_precision, make_accelerator
from stpn_tasks.recipes import SupportOptions

CPU = torch.device("cpu")


def test_a_predictor_is_centred_on_the_clips_it_will_be_trained_on(tiny):
    videos = tiny.MovingSquares(((3, 64, 96), (3, 64, 96)))
    recipe = tiny.recipe(centre_clips=6)  # all there are
    detector = build_detector(recipe, 2)
    centre_predictor(detector, recipe, videos, CPU)
    encoder = detector.encoder
    clips, make_batch = build_clips(recipe, videos), build_collate(recipe)
    with torch.no_grad():
        supports = [make_batch([clip]).support.flatten(0, 1) for clip in clips]
        tokens = torch.cat([encoder.backbone.embed(images) for images in supports])
        assert encoder.predictor.reduction(tokens).mean((0, 1)).abs().max() < 1e-4
        assert tokens.mean((0, 1)).abs().max() > 0.01


def test_nothing_to_centre_is_an_error_unless_nothing_is_asked_for(tiny):
    videos = tiny.MovingSquares()
    for predictor in ("none", "static", "mixer"):
        recipe = tiny.recipe(predictor)
        detector = build_detector(recipe, 2)
        before = {key: value.clone() for key, value in detector.state_dict().items()}
        centre_predictor(detector, recipe, videos, CPU)
        assert all(torch.equal(before[key], v) for key, v in detector.state_dict().items())
        asked = tiny.recipe(predictor, centre_clips=2)
        with pytest.raises(ValueError, match=f"centre_clips must be 0 for .*{predictor}"):
            centre_predictor(detector, asked, videos, CPU)


@pytest.mark.parametrize(
    ("has", "expected"),
    [({}, "no"), ({"avx2": True, "avx512_bf16": False}, "no"), ({"amx_bf16": True}, "bf16")],
)
def test_half_precision_is_for_processors_that_have_it(monkeypatch, has, expected):
    monkeypatch.setattr(engine.torch.cpu, "get_capabilities", lambda: has)
    assert fast_precision("cpu") == expected


def test_whose_frames_support_reaches_training_and_testing(tiny):
    accelerator = make_accelerator("cpu")
    for whose in ("own", "other"):
        recipe = tiny.recipe(support_video=whose)
        assert build_clips(recipe, tiny.MovingSquares()).support_video == whose
        saved = SavedDetector(build_detector(recipe, 2), recipe, ("a", "b"))
        assert build_inference(saved, accelerator, SupportOptions()).support_video == whose
    other = SupportOptions(support_video="other")
    own = SavedDetector(build_detector(tiny.recipe(), 2), tiny.recipe(), ("a", "b"))
    assert build_inference(own, accelerator, other).support_video == "other"


def test_static_prompts_cannot_be_switched_off(tiny):
    recipe = tiny.recipe("static")
    saved = SavedDetector(build_detector(recipe, 2), recipe, ("a", "b"))
    accelerator = make_accelerator("cpu")
    assert build_inference(saved, accelerator, SupportOptions()).sampler is None
    with pytest.raises(ValueError, match="not for static ones"):
        build_inference(saved, accelerator, SupportOptions(off=True))


def test_the_same_evaluation_gives_the_same_numbers(tiny):
    recipe, videos, accelerator = tiny.recipe(), tiny.MovingSquares(), make_accelerator("cpu")
    saved = SavedDetector(tiny.detector(recipe), recipe, videos.classes)
    one, two = (
        evaluate_saved(saved, videos, accelerator=accelerator, support=SupportOptions())
        for _ in range(2)
    )
    assert repr(one.precision) == repr(two.precision)  # nan where no object has a size
    for number, frames in one.detections.items():
        for frame, again in zip(frames, two.detections[number], strict=True):
            assert torch.equal(frame.boxes_xyxy, again.boxes_xyxy)
            assert torch.equal(frame.scores, again.scores)
