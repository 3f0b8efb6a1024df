"""SELSA with prompts: in training, in whole videos, and in streams."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from stpn_data.sampling import CausalSampler, VideoUniformSampler, WindowSampler
from stpn_tasks.detection.build import build_preparation
from stpn_tasks.detection.data import build_clips, build_collate
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.recipes import SelsaRecipe

SAMPLERS = [
    WindowSampler(2, 2),
    WindowSampler(1, 3, on_grid=True),
    CausalSampler(3, 2),
    VideoUniformSampler(4),
]
LENGTH = 7


def make_recipe(tiny, predictor="transformer", **options):
    return replace(tiny.recipe(predictor), detector="selsa", selsa=SelsaRecipe(4, **options))


def make_inference(tiny, recipe, sampler):
    prepare = build_preparation(recipe, torch.device("cpu"))
    return VideoInference(tiny.detector(recipe), sampler, prepare)


@torch.no_grad()
def detect_offline(inference, videos, number, index, support=None):
    """Detect in one frame by definition: its prompts, and the regions of its support frames."""
    source = number if support is None else support
    prepare, detector = inference.prepare, inference.detector
    encoder, head = detector.encoder, detector.head
    frame = videos.frame(number, index)
    times = inference.sampler(index, videos.videos[number].num_frames)
    images = prepare([videos.frame(source, t) for t in times])  # (K, 3, H, W)
    size = prepare.resized_size(frame)
    features = encoder(prepare([frame]), images[None] if encoder.takes_support else None)
    if detector.prompted_references:
        by_itself = images[:, None] if encoder.takes_support else None
        maps = encoder(images, by_itself)
    else:
        maps = encoder.backbone(images)
    references = head.references(maps, [size] * len(times))
    scale = (size[0] / frame.shape[0], size[1] / frame.shape[1])
    return head.detect(features, [size], [scale], [references])[0]


def assert_same(found, expected):
    assert len(expected.scores) > 5
    assert_close(found.boxes_xyxy, expected.boxes_xyxy, atol=2e-3, rtol=1e-4)
    assert_close(found.scores, expected.scores, atol=2e-5, rtol=1e-4)
    assert torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("predictor", "references"),
    [("transformer", "plain"), ("mixer", "prompted"), ("none", "plain"), ("static", "prompted")],
)
def test_every_frame_has_the_detections_of_its_support_frames(tiny, predictor, references, sampler):
    inference = make_inference(tiny, make_recipe(tiny, predictor, references=references), sampler)
    videos = tiny.MovingSquares(((LENGTH, 64, 96),) * 2)
    together = replace(inference, frames_per_pass=3)
    for run in (inference, together):
        for number, video in zip((1, 0), run.videos(videos, [1, 0]), strict=True):
            for index, found in enumerate(video):
                assert_same(found, detect_offline(inference, videos, number, index))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_support_frames_of_another_video_are_described_once_too(tiny, monkeypatch, sampler):
    inference = make_inference(tiny, make_recipe(tiny), sampler)
    videos = tiny.MovingSquares(((LENGTH, 64, 96),) * 2)
    swapped, detector, described = replace(inference, support_video="other"), inference.detector, []
    describe = detector.describe
    monkeypatch.setattr(
        detector, "describe", lambda *given: described.append(1) or describe(*given)
    )
    by_video = swapped.videos(videos, [0, 1])
    assert len(described) == len({s for t in range(LENGTH) for s in sampler(t, LENGTH)})
    for number, found in enumerate(by_video):
        for index, frame in enumerate(found):
            expected = detect_offline(inference, videos, number, index, support=1 - number)
            assert_same(frame, expected)


@pytest.mark.parametrize("references", ["plain", "prompted"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_regions_of_a_support_frame_are_made_once(tiny, monkeypatch, sampler, references):
    """And by the default choice in the one plain pass that prompts need anyway."""
    inference = make_inference(tiny, make_recipe(tiny, references=references), sampler)
    encoder, head = inference.detector.encoder, inference.detector.head
    videos = tiny.MovingSquares(((LENGTH, 64, 96),))
    made, passes = [], []
    make = head.references
    monkeypatch.setattr(head, "references", lambda *given: made.append(1) or make(*given))
    encoder.backbone.swin.norm.register_forward_hook(lambda *_: passes.append(1))
    inference.videos(videos, [0])
    if isinstance(sampler, VideoUniformSampler):
        supporting = set(sampler(0, LENGTH))
    else:
        supporting = set(filter(sampler.embeds, range(LENGTH)))
    assert len(made) == len(supporting)
    per_support_frame = 1 if references == "plain" else 2
    assert len(passes) == LENGTH + per_support_frame * len(supporting)


def test_a_stream_forgets_regions_that_no_later_frame_reaches(tiny):
    inference = make_inference(tiny, make_recipe(tiny), None)
    sampler, detector = CausalSampler(2, 2), inference.detector
    describe = lambda images: detector.describe(images, [(32, 48)])  # noqa: E731
    stream = detector.encoder.stream(sampler, describe=describe)
    for _ in range(12):
        stream.push(torch.randn(1, 3, 32, 48))
        assert len(stream.state.notes) <= 3


def test_references_beside_prompts_matter(tiny):
    inference = make_inference(tiny, make_recipe(tiny), SAMPLERS[0])
    videos, plain = tiny.MovingSquares(((LENGTH, 64, 96),)), replace(inference, sampler=None)
    one, other = (run.videos(videos, [0])[0][3] for run in (inference, plain))
    assert one.scores.shape != other.scores.shape or not torch.allclose(one.scores, other.scores)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("predictor", ["transformer", "none"])
def test_a_video_of_one_frame_supports_itself(tiny, predictor, sampler):
    inference = make_inference(tiny, make_recipe(tiny, predictor), sampler)
    videos = tiny.MovingSquares(((1, 64, 96),))
    (found,) = inference.videos(videos, [0])[0]
    assert_same(found, detect_offline(inference, videos, 0, 0))


def make_batch(tiny, recipe, videos):
    clips = build_clips(recipe, videos)
    return build_collate(recipe)([clips[0], clips[len(clips) - 1]])


@pytest.mark.parametrize(
    ("predictor", "references"),
    [("transformer", "plain"), ("transformer", "prompted"), ("none", "plain")],
)
def test_support_frames_carry_gradient_only_where_asked(tiny, predictor, references):
    """The prompts' own gradient through the backbone stays as ``support_grad`` says: off."""
    videos = tiny.MovingSquares()
    gradients = {}
    for asked in (False, True):
        recipe = make_recipe(tiny, predictor, references=references, reference_grad=asked)
        detector, batch = tiny.detector(recipe), make_batch(tiny, recipe, videos)
        batch.support.requires_grad_()
        torch.manual_seed(0)
        losses = detector(batch)
        losses.total.backward()
        gradients[asked] = batch.support.grad
        for name, parameter in detector.named_parameters():
            assert parameter.grad is not None or not parameter.requires_grad, name
    assert gradients[False] is None
    assert gradients[True].abs().sum() > 0


def test_prompts_learn_alike_with_and_without_gradient_through_references(tiny):
    """The embeddings do not carry the references' gradient into the backbone."""
    recipe = make_recipe(tiny, reference_grad=True)
    detector, batch = tiny.detector(recipe), make_batch(tiny, recipe, tiny.MovingSquares())
    images = batch.support.flatten(0, 1).requires_grad_()
    described = detector.describe(images, [size for clip in batch.support_sizes for size in clip])
    embedding = torch.autograd.grad(
        described.embedding.sum(), images, allow_unused=True, retain_graph=True
    )
    assert embedding == (None,)
    regions = torch.autograd.grad(described.notes[0].keys[0].sum(), images)[0]
    assert regions[0].abs().sum() > 0
    assert all(image.abs().sum() == 0 for image in regions[1:])


def test_clips_of_a_batch_have_references_of_their_own(tiny, monkeypatch):
    """And their boxes are clipped to the sizes that these have without padding."""
    asked = []
    monkeypatch.setattr(
        "stpn_tasks.detection.roi_head.sample_assignment",
        lambda assigned, *_: ((assigned >= 0).nonzero()[:, 0], (assigned == -1).nonzero()[:, 0]),
    )
    videos = tiny.MovingSquares(((6, 64, 96), (6, 96, 64)))
    recipe = make_recipe(tiny)
    detector, clips = tiny.detector(recipe), build_clips(recipe, videos)
    collate = build_collate(recipe)
    pair = [clips[2], clips[8]]
    assert pair[0].support_sizes != pair[1].support_sizes
    make = detector.head.references
    monkeypatch.setattr(
        detector.head, "references", lambda maps, sizes: asked.append(sizes) or make(maps, sizes)
    )
    together = detector(collate(pair))
    assert asked == [pair[0].support_sizes + pair[1].support_sizes]
    apart = [detector(collate([clip])) for clip in pair]
    mean = (apart[0].roi_classification + apart[1].roi_classification) / 2
    # Padding beside a larger clip shows in features, a little.
    assert_close(together.roi_classification, mean, rtol=0.1, atol=0)


def test_clips_without_support_frames_are_refused(tiny):
    recipe = make_recipe(tiny, "none")
    plain = tiny.recipe("none")
    batch = make_batch(tiny, plain, tiny.MovingSquares())
    with pytest.raises(ValueError, match="reads support frames, but the clips have none"):
        tiny.detector(recipe)(batch)


def test_training_lowers_the_loss(tiny):
    recipe = make_recipe(tiny)
    detector, batch = tiny.detector(recipe), make_batch(tiny, recipe, tiny.MovingSquares())
    optimizer, losses = torch.optim.Adam(detector.parameters(), 3e-3), []
    torch.manual_seed(0)
    for _ in range(30):
        optimizer.zero_grad()
        loss = detector(batch).total
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.5 * losses[0]
