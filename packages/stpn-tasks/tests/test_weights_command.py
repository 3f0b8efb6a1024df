"""``stpn weights convert``: from a checkpoint file to a detector that the other commands take."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file

from stpn_data.video import VideoWriter
from stpn_tasks.cli import main
from stpn_tasks.detection.checkpoint import load_detector
from stpn_tasks.recipes import DETECTION_RECIPES
from stpn_tasks.results import load_results

SMALL = (
    *("--backbone.embed-dim", "32", "--backbone.depths", "2", "2", "2", "2"),
    *("--backbone.num-heads", "1", "2", "4", "8", "--head.fpn-channels", "64"),
    *("--head.fc-dim", "128", "--images.test-size", "64", "--images.max-size", "96"),
    *("--head.num-proposals", "10", "--head.candidates-per-level", "20"),
)
FIVE = ("--classes", "a", "b", "c", "d", "e")


class RunsCode:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def convert(recipe, *arguments):
    main(["weights", "convert", recipe, *map(str, arguments)])


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        convert(*arguments)
    assert exit_.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("stpn: error: ")
    return error


@pytest.fixture
def checkpoint(released_layout, tmp_path):
    return released_layout.mmcv_file(tmp_path / "epoch_9_model.pth", released_layout.released())


def test_a_released_checkpoint_becomes_a_detector_that_predicts(checkpoint, tiny, tmp_path, capsys):
    output = tmp_path / "out" / "model.safetensors"
    convert("swin-tiny-released", checkpoint, output, *SMALL, *FIVE)
    text = capsys.readouterr().out
    assert "encoder.predictor" in text
    assert "not used, a buffer, computed anew (8): detector.backbone.stages.0.blocks.0." in text
    assert f"detector: {output}, for --weights of stpn eval and stpn predict" in text
    saved = load_detector(output)
    assert saved.classes == ("a", "b", "c", "d", "e")
    assert saved.recipe.backbone.embed_dim == 32
    assert output.with_name("recipe.json").is_file()

    videos = tiny.MovingSquares(((6, 48, 64),))
    with VideoWriter(tmp_path / "clip.mp4", 10, (48, 64)) as writer:
        for index in range(6):
            writer.write(videos.frame(0, index))
    predictions = tmp_path / "predictions"
    predict = ("predict", "detection", str(tmp_path / "clip.mp4"), "--weights", str(output))
    predict += ("--output", str(predictions), "--device", "cpu")
    for sampler in ((), ("--support.test-sampler", "grid")):  # its own: 14 of the whole video
        main([*predict, *sampler])
        assert len(json.loads((predictions / "clip.json").read_text())["frames"]) == 6


def test_a_released_checkpoint_is_evaluated_on_its_classes(released_layout, tmp_path, capsys):
    classes = ("horizontal", "vertical", "checks", "dots", "rings", "zigzag")
    state_dict = released_layout.released(head={**released_layout.SMALL_HEAD, "num_classes": 6})
    checkpoint = released_layout.mmcv_file(tmp_path / "epoch_9_model.pth", state_dict)
    output = tmp_path / "model.safetensors"
    convert("swin-tiny-released", checkpoint, output, *SMALL, "--classes", *classes)
    data = ("--data", "generated", "--num-videos", "1", "--device", "cpu")
    main(["eval", "detection", "--weights", str(output), *data, "--output", str(tmp_path / "e")])
    (model,) = load_results(tmp_path / "e" / "results.json").models
    (by_motion,) = model.runs[0].vid.values()
    assert list(by_motion["all"].by_class) == list(classes)


def test_of_a_coco_detector_the_backbone_is_written_and_trained_from(
    released_layout, tmp_path, capsys
):
    state_dict = released_layout.mask_rcnn()
    checkpoint = released_layout.mmcv_file(tmp_path / "mask_rcnn.pth", state_dict)
    output = tmp_path / "backbone.safetensors"
    convert("swin-tiny-released-baseline", checkpoint, output, *SMALL)
    text = capsys.readouterr().out
    outside = [key for key in state_dict if not key.startswith("backbone.")]
    assert f"not used, outside the backbone ({len(outside)}): {', '.join(outside)}" in text
    assert f"the backbone alone: {output}, for --backbone.weights" in text
    written = load_file(output)
    assert torch.equal(
        written["swin.layers.1.blocks.0.mlp.fc1.bias"],
        state_dict["backbone.stages.1.blocks.0.ffn.layers.0.0.bias"],
    )
    runs = []
    for name, weights in (("own", output), ("foreign", checkpoint)):
        run = tmp_path / name
        main(
            [
                *("train", "detection", "swin-tiny-released-baseline", "--data", "generated"),
                *("--num-videos", "1", "--num-workers", "0", "--device", "cpu", *SMALL),
                *("--optim.epochs", "1", "--optim.epoch-size", "1", "--optim.batch-size", "1"),
                *("--backbone.weights", str(weights), "--output", str(run)),
            ]
        )
        runs.append(load_file(run / "model.safetensors"))
    assert runs[0].keys() == runs[1].keys()
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])


def test_imagenet_vids_classes_are_meant_if_none_are_named(checkpoint, tmp_path, capsys):
    error = refused(
        capsys, "swin-tiny-released", checkpoint, tmp_path / "model.safetensors", *SMALL
    )
    assert "fc_cls.weight is (6, 128): 5 classes and background; 30 names are given" in error
    assert str(checkpoint) in error


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "epoch_9_model.pth is not a file"),
        ("truncated", "epoch_9_model.pth is not a whole PyTorch checkpoint: "),
        ("code", "epoch_9_model.pth is not read: it asks to run"),
        ("unknown", "keys that no released video detector has: detector.other.weight"),
    ],
)
def test_what_cannot_be_converted_is_named_and_nothing_written(
    checkpoint, tmp_path, capsys, damage, message
):
    output, folder = tmp_path / "out" / "model.safetensors", tmp_path / "made"
    if damage == "missing":
        checkpoint.unlink()
    elif damage == "truncated":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-5000])
    else:
        content = torch.load(checkpoint, weights_only=True)
        if damage == "code":
            content["meta"]["env"] = RunsCode(folder)
        else:
            content["state_dict"]["detector.other.weight"] = torch.zeros(1)
        torch.save(content, checkpoint)
    error = refused(capsys, "swin-tiny-released", checkpoint, output, *SMALL, *FIVE)
    assert message in error
    assert not folder.exists()
    assert not output.exists()


def test_what_is_there_is_not_overwritten(checkpoint, tmp_path, capsys):
    folder = tmp_path / "run"
    output, recipe = folder / "model.safetensors", folder / "recipe.json"
    folder.mkdir()
    recipe.write_text("of a run")
    arguments = ("swin-tiny-released", checkpoint, output, *SMALL, *FIVE)
    error = refused(capsys, *arguments)
    assert f"{recipe} is another recipe's, and is not overwritten" in error
    assert recipe.read_text() == "of a run"
    assert not output.exists()
    recipe.unlink()
    convert(*arguments)
    before = output.read_bytes()
    for source in (checkpoint, output, tmp_path / "missing.pth"):  # told before it is read
        error = refused(capsys, "swin-tiny-released", source, output, *SMALL, *FIVE)
        assert f"{output} is there already, and is not overwritten" in error
    assert output.read_bytes() == before
    convert("swin-tiny-released", checkpoint, folder / "other.safetensors", *SMALL, *FIVE)


def test_weights_that_are_no_detector_are_refused_where_one_is_wanted(
    released_layout, tmp_path, capsys
):
    checkpoint = released_layout.mmcv_file(tmp_path / "a.pth", released_layout.mask_rcnn())
    convert("swin-tiny", checkpoint, tmp_path / "backbone.safetensors", *SMALL)
    with pytest.raises(ValueError, match="is not a detector: it has no recipe and classes"):
        load_detector(tmp_path / "backbone.safetensors")


def test_there_is_a_command_per_recipe_that_explains_itself(capsys):
    for arguments in (("--help",), ("swin-tiny-released", "--help")):
        with pytest.raises(SystemExit) as exit_:
            main(["weights", "convert", *arguments])
        assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in DETECTION_RECIPES)
    assert "the backbone is taken, for ``--backbone.weights``" in " ".join(text.split())
    assert "Args:" not in text
