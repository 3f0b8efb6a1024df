import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stpn_data.sampling import CausalSampler, VideoUniformSampler, WindowSampler
from stpn_tasks.analysis.cost import cost_table, measure_cost
from stpn_tasks.detection.build import build_detector, build_test_sampler, build_train_sampler
from stpn_tasks.detection.detector import SelsaDetector, VideoDetector
from stpn_tasks.recipe_json import from_json, to_json
from stpn_tasks.recipes import (
    DETECTION_RECIPES,
    BackboneRecipe,
    DetectionRecipe,
    HeadRecipe,
    OptimRecipe,
    PromptRecipe,
    SelsaRecipe,
    SupportOptions,
    small,
    small_selsa,
    swin_tiny,
    swin_tiny_released,
    swin_tiny_selsa,
)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def build_on_meta(recipe, num_classes=30):
    with torch.device("meta"):
        return build_detector(recipe, num_classes, load_weights=False)


@pytest.mark.parametrize("name", DETECTION_RECIPES)
def test_every_recipe_survives_json_and_builds(name):
    recipe = DETECTION_RECIPES[name]()
    assert from_json(to_json(recipe), "test", DetectionRecipe) == recipe
    detector = build_on_meta(recipe)
    assert (detector.encoder.predictor is None) == (recipe.prompts.predictor == "none")
    build_test_sampler(recipe)
    build_train_sampler(recipe)


@pytest.mark.parametrize("name", DETECTION_RECIPES)
def test_every_recipe_tells_its_command_and_whether_it_was_run(name):
    text = DETECTION_RECIPES[name].__doc__
    assert f"stpn train detection {name} --data" in text
    if name.startswith("swin"):
        assert "Not run by us" in text


@pytest.mark.parametrize(
    ("name", "millions", "predictor"),
    [
        ("swin-tiny-baseline", "44.90", 0),
        ("swin-tiny", "45.01", 117_048),
        ("swin-tiny-mixer", "44.96", 61_328),
        ("swin-tiny-released", "45.01", 111_552),
    ],
)
def test_detectors_have_as_many_parameters_as_the_paper_says(name, millions, predictor):
    detector = build_on_meta(DETECTION_RECIPES[name]())
    assert count(detector.encoder.backbone) == 27_520_698
    assert count(detector) == 44_895_072 + predictor
    assert f"{count(detector) / 1e6:.2f}" == millions


def test_selsa_adds_its_aggregators_to_the_parameters():
    plain, selsa = build_on_meta(swin_tiny()), build_on_meta(swin_tiny_selsa())
    assert count(selsa) - count(plain) == 8_396_800


def test_selsa_is_one_option_away_from_faster_rcnn():
    assert replace(swin_tiny(), detector="selsa") == swin_tiny_selsa()
    assert replace(small(), detector="selsa") == small_selsa()
    for recipe, kind in ((small(), VideoDetector), (small_selsa(), SelsaDetector)):
        assert type(build_on_meta(recipe)) is kind


@pytest.mark.parametrize("predictor", ["none", "static", "transformer"])
def test_selsa_reads_support_frames_with_and_without_prompts_of_them(tiny, predictor):
    recipe = replace(tiny.recipe(predictor), detector="selsa")
    assert build_test_sampler(recipe) == WindowSampler(2, 2)
    assert build_train_sampler(recipe) is not None


def test_options_that_exclude_each_other_are_named(tiny):
    options = SelsaRecipe(references="prompted")
    with pytest.raises(ValueError, match="options of selsa .* not for 'faster-rcnn'"):
        build_detector(replace(tiny.recipe(), selsa=options), 2)
    alone = replace(tiny.recipe("none"), detector="selsa", selsa=options)
    with pytest.raises(ValueError, match="selsa.references must be 'plain' for .* 'none'"):
        build_detector(alone, 2)


settings = st.builds(
    DetectionRecipe,
    backbone=st.builds(
        BackboneRecipe,
        name=st.text(),
        pretrained=st.booleans(),
        weights=st.none() | st.just(Path("weights") / "ü.pth"),
        prompt_merging=st.sampled_from(["repeat", "released"]),
        drop_path_rate=st.floats(0, 1),
        embed_dim=st.none() | st.integers(1),
        depths=st.none() | st.lists(st.integers(1), min_size=1).map(tuple),
    ),
    prompts=st.builds(
        PromptRecipe,
        predictor=st.sampled_from(["transformer", "mixer", "none"]),
        deep=st.booleans(),
        test_sampler=st.sampled_from(["window", "grid", "causal", "uniform"]),
        test_support=st.integers(),
    ),
    detector=st.sampled_from(["faster-rcnn", "selsa"]),
    head=st.builds(HeadRecipe, anchor_scale=st.floats(allow_nan=False)),
    selsa=st.builds(SelsaRecipe, st.integers(), st.sampled_from(["plain", "prompted"])),
    optim=st.builds(
        OptimRecipe,
        lr=st.floats(allow_nan=False),
        batch_size=st.integers(1),
        epochs=st.integers(1),
        epoch_size=st.none() | st.integers(1),
        clip_norm=st.none() | st.floats(allow_nan=False),
    ),
    init=st.none() | st.just(Path("a/b c.safetensors")),
    seed=st.integers(),
)


@given(settings)
def test_any_recipe_survives_json(recipe):
    again = from_json(to_json(recipe), "test", DetectionRecipe)
    assert again == recipe
    assert to_json(again) == to_json(recipe)


def changed(**fields):
    values = json.loads(to_json(swin_tiny()))
    for path, value in fields.items():
        *parents, name = path.split("__")
        target = values
        for parent in parents:
            target = target[parent]
        target[name] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the file is not JSON"),
        ("[]", "the file: recipe must be an object"),
        (changed(sed=3), r"the file: recipe has unknown fields \['sed'\]; known: .*'seed'"),
        (changed(optim__lrr=3), r"recipe.optim has unknown fields \['lrr'\]"),
        (changed(optim="fast"), "recipe.optim must be an object, got 'fast'"),
        (changed(seed="1"), "recipe.seed must be int, got '1'"),
        (changed(seed=True), "recipe.seed must be int, got True"),
        (changed(seed=None), "recipe.seed must be int, got None"),
        (changed(optim__lr="high"), "recipe.optim.lr must be float, got 'high'"),
        (changed(prompts__deep=1), "recipe.prompts.deep must be bool, got 1"),
        (changed(prompts__predictor="mix"), r"predictor must be Literal\[.*'mixer'.*got 'mix'"),
        (changed(detector="selsas"), r"recipe.detector must be .*'selsa'.* got 'selsas'"),
        (changed(prompts__predictor=["mixer"]), r"predictor must be Literal\[.*got \['mixer'\]"),
        (changed(backbone__depths=[2, "2"]), "recipe.backbone.depths must be int, got '2'"),
        (changed(backbone__depths=2), r"depths must be tuple\[int, ...\], got 2"),
        (changed(init=3), "recipe.init must be Path, got 3"),
        (changed(optim__epochs=0), "the file: optim.epochs must be at least 1, got 0"),
    ],
)
def test_a_wrong_recipe_is_refused_by_file_and_field(text, message):
    with pytest.raises(ValueError, match=message):
        from_json(text, "the file", DetectionRecipe)


def test_fields_that_an_older_file_lacks_have_their_defaults():
    assert from_json('{"seed": 4}', "test", DetectionRecipe) == DetectionRecipe(seed=4)


@pytest.mark.parametrize("field", ["batch_size", "epochs", "epoch_size"])
def test_counts_that_would_train_nothing_are_refused(field):
    with pytest.raises(ValueError, match=f"optim.{field} must be at least 1, got 0"):
        OptimRecipe(**{field: 0})


@pytest.mark.parametrize(
    ("test_sampler", "sampler"),
    [
        ("window", WindowSampler(2, 3)),
        ("grid", WindowSampler(2, 3, on_grid=True)),
        ("causal", CausalSampler(4, 3)),
        ("uniform", VideoUniformSampler(4)),
    ],
)
def test_support_frames_are_those_that_the_recipe_says(test_sampler, sampler):
    prompts = PromptRecipe(test_sampler=test_sampler, test_support=4, stride=3)
    assert build_test_sampler(DetectionRecipe(prompts=prompts)) == sampler


def test_half_a_window_on_each_side_needs_an_even_number():
    with pytest.raises(ValueError, match="prompts.test_support must be even .* got 5"):
        build_test_sampler(DetectionRecipe(prompts=PromptRecipe(test_support=5)))


def test_the_baseline_has_no_support_frames():
    recipe = DetectionRecipe(prompts=PromptRecipe(predictor="none"))
    assert build_test_sampler(recipe) is None
    assert build_train_sampler(recipe) is None


def test_the_released_recipe_predicts_prompts_once_per_video():
    assert build_test_sampler(swin_tiny_released()) == VideoUniformSampler(14)


def test_support_options_replace_only_what_they_name():
    prompts = PromptRecipe(test_support=6, stride=4)
    assert SupportOptions().change(prompts) == prompts
    other = SupportOptions(test_sampler="causal", stride=2).change(prompts)
    assert other == replace(prompts, test_sampler="causal", stride=2)


def test_random_weights_are_a_function_of_the_seed_and_of_nothing_else(tiny):
    recipe = tiny.recipe()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = build_detector(recipe, 2).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    same = build_detector(recipe, 2).state_dict()
    other = build_detector(replace(recipe, seed=1), 2).state_dict()
    assert all(torch.equal(first[key], same[key]) for key in first)
    key = "head.roi_head.classifier.weight"
    assert not torch.equal(first[key], other[key])


def test_recipes_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        swin_tiny().seed = 1


@pytest.mark.parametrize("detector", ["faster-rcnn", "selsa"])
@pytest.mark.parametrize("predictor", ["transformer", "none"])
def test_cost_counts_parts_and_multiplications(tiny, predictor, detector):
    recipe = replace(tiny.recipe(predictor), detector=detector)
    cost = measure_cost(recipe, 2, (30, 45), device=torch.device("cpu"), runs=1)
    detector = build_detector(recipe, 2)
    assert cost.parameters == {
        "backbone": count(detector.encoder.backbone),
        "prompt predictor": count(detector.encoder.predictor) if predictor != "none" else 0,
        "detection head": count(detector.head),
    }
    assert cost.size == (32, 48)  # padded to multiples of 16
    # The patch embedding alone: 8 x 12 patches of 48 values to 16 channels.
    assert cost.plain_gmacs > 8 * 12 * 48 * 16 / 1e9
    assert (cost.prompted_gmacs > cost.plain_gmacs) == (predictor != "none")
    assert (cost.predict_gmacs > 0) == (predictor != "none")
    assert min(cost.plain_seconds, cost.prompted_seconds) > 0
    assert cost_table("tiny", cost).row_count == 9
