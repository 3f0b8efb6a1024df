import json
from dataclasses import replace

import pytest
import torch

from stpn_tasks import engine
from stpn_tasks.detection.build import build_detector
from stpn_tasks.detection.checkpoint import SavedDetector
from stpn_tasks.detection.data import build_clips, build_collate
from stpn_tasks.detection.run import (
    build_inference,
    centre_predictor,
    evaluate_saved,
    train_detector,
)
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


def changed_videos(tiny, change):
    """Videos of as many frames as those of `tiny`, other than these in one thing."""
    videos = tiny.MovingSquares()
    if change == "classes":
        videos.classes = ("lemon", "pear")
    elif change == "names":
        videos.videos = [replace(one, name=f"other-{one.name}") for one in videos.videos]
    elif change == "key frames":
        first, second = videos.videos
        videos.videos = [
            replace(first, key_frames=first.key_frames[1:]),
            replace(second, num_frames=7, key_frames=tuple(range(7))),
        ]
    else:
        objects = videos.objects
        videos.objects = lambda video, index: replace(
            objects(video, index), labels=1 - objects(video, index).labels
        )
    return videos


@pytest.mark.parametrize("change", ["classes", "names", "key frames", "objects"])
def test_a_run_on_other_data_is_not_gone_on_with(tiny, tmp_path, change):
    recipe, accelerator = tiny.recipe("none"), make_accelerator("cpu")
    weights = train_detector(recipe, tiny.MovingSquares(), tmp_path, accelerator=accelerator)
    before = weights.read_bytes()
    with pytest.raises(ValueError, match=r"holds a run on other data, see data\.json"):
        train_detector(recipe, changed_videos(tiny, change), tmp_path, accelerator=accelerator)
    assert weights.read_bytes() == before
    assert json.loads((tmp_path / "data.json").read_text())["classes"] == ["bright", "dark"]


def test_what_training_took_is_told_once_and_a_run_that_went_on_says_so(tiny, tmp_path):
    recipe, videos, path = tiny.recipe("none"), tiny.MovingSquares(), tmp_path / "training.json"
    train_detector(recipe, videos, tmp_path, accelerator=make_accelerator("cpu"))
    first = json.loads(path.read_text())
    assert not first["resumed"]
    path.write_text(json.dumps({**first, "minutes": 90.0}))
    train_detector(recipe, videos, tmp_path, accelerator=make_accelerator("cpu"))
    assert json.loads(path.read_text())["minutes"] == 90.0
    path.unlink()  # as if it had been killed at the end
    train_detector(recipe, videos, tmp_path, accelerator=make_accelerator("cpu"))
    last = json.loads(path.read_text())
    assert last == {**first, "minutes": last["minutes"], "resumed": True}
    assert last["minutes"] < 90.0
