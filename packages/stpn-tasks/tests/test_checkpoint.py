import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from stpn_tasks.detection.build import build_detector
from stpn_tasks.detection.checkpoint import initialise, load_detector, save_detector
from stpn_tasks.recipe_json import from_json
from stpn_tasks.recipes import DetectionRecipe

CLASSES = ("bright", "dark")


@pytest.fixture
def saved(tiny, tmp_path):
    """Recipe, detector and file of an STPN detector."""
    recipe, path = tiny.recipe(), tmp_path / "model.safetensors"
    detector = tiny.detector(recipe)
    save_detector(path, detector, recipe, CLASSES)
    return recipe, detector, path


def state(detector):
    return {key: tensor.clone() for key, tensor in detector.state_dict().items()}


def assert_same(detector, expected):
    for key, tensor in detector.state_dict().items():
        assert torch.equal(tensor, expected[key]), key


def rewrite(path, change, metadata=True):
    """Write a file again after a change of its tensors."""
    with safe_open(path, framework="pt") as file:
        kept = file.metadata() if metadata else None
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, kept)


def test_equal_detectors_are_equal_files(saved):
    recipe, detector, path = saved
    files = set()
    for _ in range(8):
        save_detector(path, detector, recipe, CLASSES)
        files.add(path.read_bytes())
    assert len(files) == 1


def test_a_detector_from_a_file_detects_as_it_did(saved):
    recipe, detector, path = saved
    loaded = load_detector(path)
    assert loaded.recipe == recipe
    assert loaded.classes == CLASSES
    assert not loaded.detector.training
    frame, support = torch.randn(2, 3, 32, 48), torch.randn(2, 3, 3, 32, 48)
    sizes = [(32, 48)] * 2
    ours, theirs = (
        model.head.detect(model.encoder(frame, support), sizes)
        for model in (detector, loaded.detector)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.boxes_xyxy, other.boxes_xyxy)
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.labels, other.labels)


def test_the_recipe_lies_beside_the_weights_and_nothing_else(saved):
    recipe, _, path = saved
    assert {file.name for file in path.parent.iterdir()} == {"model.safetensors", "recipe.json"}
    assert from_json(path.with_name("recipe.json").read_text(), "test", DetectionRecipe) == recipe


def test_saving_again_replaces_the_file(tiny, saved):
    recipe, _, path = saved
    other = build_detector(replace(recipe, seed=8), 2)
    save_detector(path, other, replace(recipe, seed=8), CLASSES)
    assert load_detector(path).recipe.seed == 8
    assert_same(load_detector(path).detector, state(other))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.safetensors is not a file"):
        load_detector(tmp_path / "none.safetensors")


@pytest.mark.parametrize("part", [0, 4, 0.5, -1])
def test_a_truncated_file_is_named(saved, part):
    path = saved[2]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part) if isinstance(part, float) else part])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a whole safetensors file"):
        load_detector(path)


def test_a_file_of_something_else_is_named(saved):
    path = saved[2]
    rewrite(path, lambda tensors: None, metadata=False)
    with pytest.raises(ValueError, match=r"model\.safetensors is not a detector: it has no recipe"):
        load_detector(path)
    save_file({"x": torch.zeros(1)}, path, {"recipe": "{}", "classes": "1]"})
    with pytest.raises(ValueError, match=r"the classes in .*model\.safetensors are not JSON"):
        load_detector(path)
    save_file({"x": torch.zeros(1)}, path, {"recipe": '{"a": 1}', "classes": "[]"})
    with pytest.raises(ValueError, match=r"the recipe in .*model\.safetensors: .*unknown .*'a'"):
        load_detector(path)


KEY = "head.roi_head.classifier.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(KEY), f"missing weights: {KEY}"),
        (lambda t: t.update({"head.more": torch.zeros(1)}), "unknown weights: head.more"),
        (
            lambda t: t.update({KEY: torch.zeros(9)}),
            rf"misshapen weights: {KEY} is \(9,\), want \(3,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(saved, change, message):
    path = saved[2]
    rewrite(path, change)
    with pytest.raises(ValueError, match=rf"model\.safetensors is of another model; {message}"):
        load_detector(path)


def test_many_wrong_names_are_cut_short(saved):
    path = saved[2]
    rewrite(path, lambda t: t.update({f"x{i}": torch.zeros(1) for i in range(9)}))
    with pytest.raises(ValueError, match="unknown weights: x0, x1, x2, x3, x4 and 4 more"):
        load_detector(path)


def test_stpn_begins_from_the_baseline_with_a_new_predictor(tiny, tmp_path):
    baseline, path = tiny.detector(tiny.recipe("none")), tmp_path / "baseline.safetensors"
    save_detector(path, baseline, tiny.recipe("none"), CLASSES)
    detector = build_detector(replace(tiny.recipe(), seed=3), 2)
    before = state(detector)
    anew = initialise(detector, path)
    assert anew == sorted(key for key in before if key.startswith("encoder.predictor."))
    assert anew
    assert_same(detector, {**before, **{k: v for k, v in state(baseline).items() if k not in anew}})


def test_the_baseline_begins_from_stpn_without_its_predictor(tiny, saved):
    _, stpn, path = saved
    detector = build_detector(tiny.recipe("none"), 2)
    left_out = initialise(detector, path)
    assert left_out
    assert all(key.startswith("encoder.predictor.") for key in left_out)
    assert_same(detector, state(stpn))


def test_selsa_begins_from_faster_rcnn_with_new_aggregators(tiny, saved):
    _, stpn, path = saved
    detector = build_detector(replace(tiny.recipe(), detector="selsa", seed=3), 2)
    before = state(detector)
    anew = initialise(detector, path)
    assert len(anew) == 2 * 4 * 2
    assert all(key.startswith("head.roi_head.aggregators.") for key in anew)
    assert_same(detector, {**state(stpn), **{key: before[key] for key in anew}})


def test_faster_rcnn_begins_from_selsa_without_its_aggregators(tiny, tmp_path):
    recipe, path = replace(tiny.recipe("none"), detector="selsa"), tmp_path / "model.safetensors"
    save_detector(path, tiny.detector(recipe), recipe, CLASSES)
    detector = build_detector(tiny.recipe(), 2)
    names = initialise(detector, path)
    assert {key.split(".")[1] for key in names} == {"predictor", "roi_head"}
    loaded = load_detector(path)
    assert loaded.recipe == recipe
    assert_same(
        detector,
        {**state(detector), **{k: v for k, v in state(loaded.detector).items() if k not in names}},
    )


@pytest.mark.parametrize("chosen", ["selsa", "faster-rcnn"])
def test_weights_of_the_other_detector_are_refused_by_name(tiny, tmp_path, chosen):
    """A file whose recipe was changed by hand, say."""
    other = {"selsa": "faster-rcnn", "faster-rcnn": "selsa"}[chosen]
    path = tmp_path / "model.safetensors"
    detector = tiny.detector(replace(tiny.recipe(), detector=other))
    save_detector(path, detector, replace(tiny.recipe(), detector=chosen), CLASSES)
    what = {"selsa": "missing", "faster-rcnn": "unknown"}[chosen]
    message = rf"model\.safetensors is of another model; {what} weights: head.roi_head.aggregators"
    with pytest.raises(ValueError, match=message):
        load_detector(path)


@pytest.mark.parametrize("num_classes", [3, 30])
def test_nothing_is_loaded_when_something_does_not_fit(tiny, saved, num_classes):
    detector = build_detector(replace(tiny.recipe(), seed=3), num_classes)
    before = state(detector)
    with pytest.raises(ValueError, match="misshapen weights: head.roi_head.classifier.bias"):
        initialise(detector, saved[2])
    assert_same(detector, before)


def test_a_predictor_of_another_kind_is_refused(tiny, saved):
    detector = build_detector(tiny.recipe("mixer"), 2)
    with pytest.raises(ValueError, match="of another model; unknown weights: encoder.predictor"):
        initialise(detector, saved[2])


def test_a_checkpoint_needs_no_backbone_weights_that_its_recipe_began_from(tiny, tmp_path):
    recipe = tiny.recipe()
    gone = replace(recipe, backbone=replace(recipe.backbone, weights=tmp_path / "gone.pth"))
    save_detector(tmp_path / "model.safetensors", tiny.detector(recipe), gone, CLASSES)
    assert load_detector(tmp_path / "model.safetensors").recipe == gone


def test_class_names_keep_their_order_and_letters(tiny, tmp_path):
    classes = ("zebra", "Ärgernis")
    path = tmp_path / "model.safetensors"
    save_detector(path, tiny.detector(tiny.recipe()), tiny.recipe(), classes)
    assert load_detector(path).classes == classes
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["classes"]) == list(classes)
