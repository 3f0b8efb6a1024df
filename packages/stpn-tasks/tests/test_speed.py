from dataclasses import replace

import pytest
import torch

from stpn_data.sampling import CausalSampler, WindowSampler
from stpn_tasks.analysis import speed
from stpn_tasks.analysis.cost import measure_cost
from stpn_tasks.analysis.speed import SpeedOptions, measure_speed, speed_json, speed_table
from stpn_tasks.analysis.steady import SteadyStream, TimedDetector, TimedSegmenter
from stpn_tasks.detection.policies import policy_cost
from stpn_tasks.recipes import SelsaRecipe
from stpn_tasks.tables import write_json

OPTIONS = SpeedOptions((30, 48), 2, torch.device("cpu"), 2)


def make_recipe(tiny, detector):
    recipe = tiny.recipe(deep=True)
    if detector == "faster-rcnn":
        return recipe
    return replace(recipe, detector="selsa", selsa=SelsaRecipe(num_heads=2, references="prompted"))


def count(backbone):
    images = []
    patches = backbone.swin.patch_embed.proj
    patches.register_forward_pre_hook(lambda _, args: images.append(len(args[0])))
    return images


@pytest.mark.parametrize("detector", ["faster-rcnn", "selsa"])
def test_every_policy_is_timed_beside_the_baseline(tiny, detector, tmp_path):
    found = measure_speed(make_recipe(tiny, detector), OPTIONS, progress=False)
    names = ["baseline", "steady", "first", "uniform", "window", "grid", "causal"]
    assert [one.name for one in found] == names
    assert all(one.seconds > 0 and one.ratio > 0 for one in found)
    by_name = {one.name: one for one in found}
    assert by_name["baseline"].ratio == 1
    assert by_name["first"].seconds > by_name["uniform"].seconds
    assert by_name["window"].cost.passes == 2
    assert by_name["uniform"].cost.delay is None
    table = speed_table(found, "title")
    assert table.row_count == len(names)
    write_json(tmp_path / "speed.json", {"speeds": speed_json(found)})


@pytest.mark.parametrize("detector", ["faster-rcnn", "selsa"])
@pytest.mark.parametrize(
    ("sampler", "length"),
    [(WindowSampler(2, 3), 1), (WindowSampler(2, 3, on_grid=True), 3), (CausalSampler(2, 4), 4)],
)
@torch.no_grad()
def test_a_steady_stream_pays_what_the_policy_costs(tiny, detector, sampler, length):
    recipe = replace(make_recipe(tiny, detector), selsa=SelsaRecipe(num_heads=2))
    if detector == "faster-rcnn":
        recipe = replace(recipe, selsa=SelsaRecipe())
    timed = TimedDetector(recipe, 2, (30, 48), torch.device("cpu"))
    assert timed.frame.shape == (1, 3, 32, 48)
    stream = SteadyStream(timed, sampler, length)
    images = count(timed.detector.encoder.backbone)
    for _ in range(5):
        images.clear()
        stream.advance()
        embedded = sum(sampler.embeds(t) for t in range(length))
        assert sum(images) == length + embedded
        state = stream.stream.state
        waits = [t for t in range(state.received) if max(sampler(t, None)) >= state.received]
        assert list(state.waiting) == waits


@pytest.mark.parametrize(
    ("sampler", "length"), [(WindowSampler(2, 3), 1), (CausalSampler(2, 4), 4)]
)
@torch.no_grad()
def test_a_segmenter_is_timed_as_a_detector_is(tiny_segmentation, sampler, length):
    recipe = tiny_segmentation.recipe()
    found = {one.name: one for one in measure_speed(recipe, OPTIONS, progress=False)}
    assert found.keys() >= {"baseline", "steady", "first", "uniform", "window"}
    assert found["first"].seconds > found["steady"].seconds
    timed = TimedSegmenter(recipe, 2, (30, 48), torch.device("cpu"))
    stream = SteadyStream(timed, sampler, length)
    images, pushed = count(timed.encoder.backbone), []
    push = timed.associator.push
    timed.associator.push = lambda embeddings: pushed.append(push(embeddings))
    stream.advance()
    assert sum(images) == length + sum(sampler.embeds(t) for t in range(length))
    assert len(pushed) == length
    with pytest.raises(ValueError, match="a recipe with prompts is needed"):
        measure_speed(tiny_segmentation.recipe("none"), OPTIONS)


@torch.no_grad()
def test_the_first_frame_waits_for_all_support_frames_the_steady_one_for_none(tiny):
    timed = TimedDetector(tiny.recipe(), 2, (30, 48), torch.device("cpu"))
    images = count(timed.detector.encoder.backbone)
    timed.run_first(5)
    assert sum(images) == 6
    images.clear()
    timed.run()
    assert sum(images) == 1


def test_times_over_a_video_come_from_its_first_frame_and_the_others(tiny):
    seconds = {"baseline": [1.0, 1.0], "steady": [1.5, 1.5], "first": [11.5, 11.5]}
    seconds |= {name: [2.0, 3.0] for name in ("window", "grid", "causal")}
    cost = policy_cost(None, 11)
    costs = dict.fromkeys(("uniform", "window", "grid", "causal"), cost)
    found = {s.name: s for s in speed._summary(seconds, costs, tiny.recipe().prompts, 11)}
    assert found["uniform"].seconds == found["uniform"].ratio == pytest.approx(26.5 / 11)
    assert found["window"].ratio == 2.5


def test_what_cannot_be_timed_is_named(tiny):
    with pytest.raises(ValueError, match="a recipe with prompts is needed, not predictor 'none'"):
        measure_speed(tiny.recipe("none"), OPTIONS)
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        measure_speed(tiny.recipe(), replace(OPTIONS, rounds=0))
    with pytest.raises(ValueError, match=r"size must be \(height, width\) .*, got \(0, 96\)"):
        measure_speed(tiny.recipe(), replace(OPTIONS, size=(0, 96)))


@pytest.mark.parametrize(
    ("size", "runs", "message"),
    [((32, -1), 1, r"size must be .*, got \(32, -1\)"), ((32, 48), 0, "runs must be .*, got 0")],
)
def test_a_cost_that_cannot_be_measured_is_named(tiny, size, runs, message):
    with pytest.raises(ValueError, match=message):
        measure_cost(tiny.recipe(), 2, size, device=torch.device("cpu"), runs=runs)
