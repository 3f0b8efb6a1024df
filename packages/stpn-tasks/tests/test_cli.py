import json
import math
import os
import re
import signal

import cv2
import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from stpn_data.imagenet_vid import ImageNetVID
from stpn_data.video import VideoReader, VideoWriter
from stpn_kernels.testing import shared_path
from stpn_tasks.cli import main
from stpn_tasks.detection.checkpoint import load_detector, save_detector
from stpn_tasks.detection.detector import SelsaDetector, VideoDetector
from stpn_tasks.detection.motion import motion_from_tracks
from stpn_tasks.recipe_json import from_json
from stpn_tasks.recipes import DETECTION_RECIPES, DetectionRecipe
from stpn_tasks.results import load_results
from stpn_tasks.segmentation.recipes import SEGMENTATION_RECIPES
from stpn_tasks.tracking.recipes import TRACKING_RECIPES

SMALLER = (
    *("--backbone.embed-dim", "16", "--backbone.depths", "1", "1"),
    *("--backbone.num-heads", "1", "2", "--images.test-size", "32", "--images.max-size", "64"),
    *("--head.fpn-channels", "16", "--head.fc-dim", "16", "--head.num-proposals", "10"),
    *("--optim.epoch-size", "4", "--optim.batch-size", "2"),
    *("--num-workers", "0", "--device", "cpu"),
)
NO_CENTRE = ("--prompts.centre-clips", "0")
GENERATED = ("--data", "generated", "--num-videos", "2")


def stpn(*arguments):
    main([str(argument) for argument in arguments])


def refused(capsys, *arguments, code=1):
    """Run a command that must fail; return its one line of error output."""
    with pytest.raises(SystemExit) as exit_:
        stpn(*arguments)
    assert exit_.value.code == code
    error = capsys.readouterr().err
    if code == 2:
        return error
    # Progress bars end where they were; the message is the last line, whole.
    return next(line for line in reversed(error.splitlines()) if line.startswith("stpn: error:"))


def train(output, *arguments, recipe="small", data=GENERATED):
    stpn("train", "detection", recipe, *data, *SMALLER, "--output", output, *arguments)
    return output / "model.safetensors"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return train(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def selsa_weights(tmp_path_factory):
    return train(tmp_path_factory.mktemp("selsa"), recipe="small-selsa")


@pytest.fixture
def video(tmp_path, tiny):
    videos = tiny.MovingSquares(((6, 48, 64),))
    with VideoWriter(tmp_path / "clip.mp4", 10, (48, 64)) as writer:
        for index in range(6):
            writer.write(videos.frame(0, index))
    return tmp_path / "clip.mp4"


COMMANDS = [
    (),
    ("demo",),
    ("train",),
    ("train", "detection"),
    *(("train", "detection", name) for name in DETECTION_RECIPES),
    ("train", "segmentation"),
    *(("train", "segmentation", name) for name in SEGMENTATION_RECIPES),
    ("train", "tracking"),
    *(("train", "tracking", name) for name in TRACKING_RECIPES),
    ("eval",),
    ("eval", "detection"),
    ("eval", "segmentation"),
    ("eval", "tracking"),
    ("predict",),
    ("predict", "detection"),
    ("predict", "segmentation"),
    ("predict", "tracking"),
    ("data",),
    ("data", "check"),
    ("data", "convert"),
    ("weights",),
    ("weights", "convert"),
    ("weights", "convert", "swin-tiny-released"),
    ("analyze",),
    ("analyze", "cam"),
    ("analyze", "tsne"),
    ("export",),
    ("export", "tracking"),
    ("bench",),
    ("bench", "detection"),
    ("bench", "segmentation"),
    ("bench", "tracking"),
    ("recipes",),
    ("info",),
    ("sweep",),
    ("report",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(capsys, command):
    with pytest.raises(SystemExit) as exit_:
        stpn(*command, "--help")
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: stpn {' '.join(command)}".strip() in text
    assert "Args:" not in text


def options_without_help(text):
    """Return the options of a help text that are followed by nothing but their default."""
    words = re.sub(r"[│\s]+", " ", text)
    return re.findall(r"(--[\w.-]+) [^ ]+ \((?:default|required)", words)


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if len(c) >= 2 or c in [("demo",), ("info",), ("sweep",)]]
)
def test_every_option_is_explained(capsys, command):
    with pytest.raises(SystemExit):
        stpn(*command, "--help")
    assert options_without_help(capsys.readouterr().out) == []


def test_recipes_lists_all_with_their_commands(capsys):
    stpn("recipes")
    text = capsys.readouterr().out
    for name in DETECTION_RECIPES:
        assert f"\n{name}\n    " in f"\n{text}"
        assert f"    stpn train detection {name} --data" in text
    for name in SEGMENTATION_RECIPES:
        assert f"    stpn train segmentation {name} --data" in text
    for name in TRACKING_RECIPES:
        assert f"    stpn train tracking {name} --data" in text


def test_bench_times_every_policy_and_writes_the_numbers(capsys, tmp_path):
    size = ("--height", 48, "--width", 64, "--rounds", 1, "--device", "cpu")
    stpn("bench", "detection", "small", *size, "--output", tmp_path)
    text = capsys.readouterr().out
    for policy in ("baseline", "steady", "first", "uniform", "window", "grid", "causal"):
        assert f"│ {policy} " in text
    found = json.loads((tmp_path / "bench-small.json").read_text())
    assert found["about"]["height"] == 48
    assert len(found["speeds"]) == 7


def test_info_tells_the_parameters_of_the_paper(capsys):
    stpn("info", "swin-tiny", "--height", 128, "--width", 160, "--runs", 1, "--device", "cpu")
    text = capsys.readouterr().out
    assert "swin-tiny: 128×160, cpu" in text
    assert "45,012,120 (45.01 M)" in text
    assert "117,048" in text
    assert "frames/s" in text


def test_training_writes_weights_recipe_and_losses(weights):
    recipe = from_json((weights.parent / "recipe.json").read_text(), "recipe.json", DetectionRecipe)
    assert recipe.optim.epoch_size == 4
    assert recipe.backbone.depths == (1, 1)
    losses = json.loads((weights.parent / "training.json").read_text())["losses"]
    assert len(losses) == 1
    assert losses[0].keys() == {"rpn_objectness", "rpn_box", "roi_classification", "roi_box"}
    saved = load_detector(weights)
    assert saved.recipe == recipe
    assert saved.detector.encoder.predictor is not None
    assert [path.name for path in (weights.parent / "checkpoints").iterdir()] == ["step-2"]


def test_the_same_command_gives_the_same_file_of_weights(weights, tmp_path):
    assert train(tmp_path / "again").read_bytes() == weights.read_bytes()


@pytest.mark.parametrize(
    ("recipe", "kind"), [("small", VideoDetector), ("small-selsa", SelsaDetector)]
)
def test_sigterm_leaves_a_checkpoint_from_which_the_same_command_goes_on(
    request, tmp_path, monkeypatch, capsys, recipe, kind
):
    weights = request.getfixturevalue({"small": "weights", "small-selsa": "selsa_weights"}[recipe])
    before, forward = signal.getsignal(signal.SIGTERM), kind.forward

    def signal_and_forward(self, batch):
        os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, batch)

    monkeypatch.setattr(kind, "forward", signal_and_forward)
    with pytest.raises(SystemExit) as exit_:
        train(tmp_path, recipe=recipe)
    monkeypatch.undo()
    assert exit_.value.code == 143
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("stpn: ended by SIGTERM after step 1 of 2: the same command goes on")
    assert signal.getsignal(signal.SIGTERM) == before
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-1"]
    assert not (tmp_path / "model.safetensors").exists()
    assert train(tmp_path, recipe=recipe).read_bytes() == weights.read_bytes()
    assert "goes on from" in capsys.readouterr().out


def test_selsa_is_one_option_of_the_command(selsa_weights, tmp_path):
    by_option = train(tmp_path, "--detector", "selsa")
    assert by_option.read_bytes() == selsa_weights.read_bytes()
    assert isinstance(load_detector(by_option).detector, SelsaDetector)


@pytest.mark.parametrize("options", [(), ("--support.off",), ("--support.test-sampler", "uniform")])
def test_selsa_is_evaluated_beside_faster_rcnn(selsa_weights, weights, tmp_path, options):
    command = ("eval", "detection", "--weights", selsa_weights, "--baseline", weights, *GENERATED)
    stpn(*command, "--output", tmp_path, "--device", "cpu", *options)
    models = load_results(tmp_path / "results.json").models
    assert len(models) == 2
    for model in models:
        assert not math.isnan(model.runs[0].precision["test"]["all"].ap)


def test_selsa_streams_a_video(selsa_weights, video, tmp_path):
    stpn("predict", "detection", video, "--weights", selsa_weights, "--output", tmp_path / "out")
    assert len(json.loads((tmp_path / "out" / "clip.json").read_text())["frames"]) == 6


def test_selsa_begins_from_faster_rcnn_and_says_what_is_new(weights, tmp_path, capsys):
    train(tmp_path, "--init", weights, recipe="small-selsa")
    text = capsys.readouterr().out
    new = "weights in only one of the two: head.roi_head.aggregators."
    assert f"begins from {weights}; {new}" in text


def test_selsa_without_prompts_and_with_prompted_references(tmp_path, capsys):
    train(tmp_path / "alone", "--prompts.predictor", "none", *NO_CENTRE, recipe="small-selsa")
    prompted = ("--selsa.references", "prompted", "--selsa.reference-grad")
    train(tmp_path / "prompted", *prompted, recipe="small-selsa")
    command = ("train", "detection", "small", *SMALLER, *GENERATED, *prompted)
    message = refused(capsys, *command, "--output", tmp_path / "wrong")
    assert "options of selsa are for detector 'selsa', not for 'faster-rcnn'" in message


def test_a_folder_that_cannot_be_written_is_one_line_before_training(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    message = refused(capsys, *train_command(tmp_path / "file"))
    assert f"cannot write in {tmp_path / 'file'}: " in message


def test_a_step_that_cannot_be_shared_out_is_named(tmp_path, capsys):
    command = (*train_command(tmp_path), "--prompts.centre-clips", "0")
    assert "optim.batch_size 2, the clips of a step" in refused(
        capsys, *command, "--accumulate", "3"
    )
    message = refused(capsys, *command, "--checkpoint-every", "0")
    assert "checkpoint_every must be at least 1" in message


def test_a_second_start_in_the_same_folder_goes_on_and_keeps_the_losses(tmp_path, capsys):
    path = train(tmp_path)
    before, losses = load_file(path), json.loads((tmp_path / "training.json").read_text())["losses"]
    train(tmp_path)
    assert all((load_file(path)[key] == before[key]).all() for key in before)
    assert json.loads((tmp_path / "training.json").read_text())["losses"] == losses
    message = refused(capsys, *train_command(tmp_path), "--optim.lr", "0.5")
    assert f"{tmp_path} holds a run of another recipe" in message
    message = refused(capsys, *train_command(tmp_path)[:-1], "3")  # clips
    assert f"{tmp_path} holds a run on other data, see data.json" in message


def train_command(output):
    return ("train", "detection", "small", *SMALLER, "--output", output, *GENERATED)


def test_training_begins_from_another_detector(tmp_path, capsys):
    baseline = train(tmp_path / "baseline", recipe="small-baseline")
    capsys.readouterr()
    train(tmp_path / "stpn", "--init", baseline)
    text = capsys.readouterr().out
    assert f"begins from {baseline}; weights in only one of the two: encoder.predictor." in text


@pytest.mark.parametrize(
    "options",
    [
        ("--batch-size", "2"),
        ("--support.off",),
        ("--support.test-sampler", "causal", "--support.test-support", "2"),
        ("--support.test-sampler", "uniform"),
    ],
)
def test_evaluation_prints_and_writes_precision_by_condition(weights, tmp_path, capsys, options):
    output = tmp_path / "evaluation"
    command = ("eval", "detection", "--weights", weights, *GENERATED, "--split", "test")
    stpn(*command, "--output", output, "--device", "cpu", *options)
    text = capsys.readouterr().out
    said = " ".join(text.split())
    coco, vid = said.index("COCO box AP in percent"), said.index("ImageNet VID AP50 in percent")
    assert "by motion IoU of the tracks; generated (test):" in said
    for word in (weights.parent.name, "AP", "AP50", "AP75", "APs", "all", "deteriorated", "clean"):
        assert f" {word} " in said[coco:vid]
    for word in (weights.parent.name, "AP50", "all", "slow", "medium", "fast", "0.9 to 1.0"):
        assert f" {word} " in said[vid:]
    results = load_results(output / "results.json")
    (model,) = results.models
    assert model.about == f"Weights {weights}."
    assert {"all", "clean", "deteriorated"} <= model.runs[0].precision["test"].keys()
    assert not math.isnan(model.runs[0].precision["test"]["all"].ap)
    by_motion = model.runs[0].vid["test"]
    assert list(by_motion) == ["all", "slow", "medium", "fast"]
    assert list(by_motion["all"].by_class) == list(load_detector(weights).classes)
    protocols = results.about["protocol"]
    assert protocols["precision"].startswith("COCO box AP")
    assert protocols["vid"].startswith("ImageNet VID AP50")
    assert int(results.about["num_frames"]) > 0
    assert results.about["device"] == "cpu"
    page = (output / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert ">AP50 of ImageNet VID</h2>" in page
    assert "data:image/" in page


def test_evaluation_compares_with_a_baseline_on_the_same_frames(weights, tmp_path, capsys):
    baseline = train(tmp_path / "baseline", recipe="small-baseline")
    capsys.readouterr()
    command = ("eval", "detection", "--weights", weights, *GENERATED, "--baseline", baseline)
    stpn(*command, "--output", tmp_path / "evaluation", "--device", "cpu")
    names = [model.name for model in load_results(tmp_path / "evaluation/results.json").models]
    assert names == ["baseline", weights.parent.name]
    text = capsys.readouterr().out
    assert all(name in text for name in names)


def test_reports_of_several_folders_become_one(weights, tmp_path, capsys):
    command = ("eval", "detection", "--weights", weights, *GENERATED, "--device", "cpu")
    stpn(*command, "--output", tmp_path / "evaluation")
    page = tmp_path / "together.html"
    stpn("report", tmp_path / "evaluation", "--output", page)
    assert f"report: {page}" in capsys.readouterr().out
    assert "data:image/" in page.read_text()
    message = refused(capsys, "report", tmp_path / "gone", "--output", page)
    assert "gone" in message


def test_prediction_writes_a_video_and_its_boxes(weights, video, tmp_path, capsys):
    output = tmp_path / "out"
    stpn("predict", "detection", video, "--weights", weights, "--output", output)
    assert f"6 frames: {output / 'clip.mp4'} {output / 'clip.json'}" in capsys.readouterr().out
    assert len(list(VideoReader(output / "clip.mp4"))) == 6
    assert len(json.loads((output / "clip.json").read_text())["frames"]) == 6


def shorten(tmp_path, frames):
    """Return trees and json files of the real videos with their first frames only."""
    vod = shared_path("real/vod")
    root = tmp_path / "ILSVRC"
    (root / "Lists").mkdir(parents=True)
    for folder in ("Data", "Annotations"):
        (root / folder).symlink_to(vod / "ILSVRC" / folder)
    lists = vod / "ILSVRC" / "Lists"
    train_list = (lists / "VID_train_15frames.txt").read_text().splitlines(keepends=True)
    (root / "Lists" / "VID_train_15frames.txt").write_text("".join(train_list[:6]))
    val = [line.split() for line in (lists / "VID_val_videos.txt").read_text().splitlines()[1:3]]
    names = [name for name, *_ in val]
    (root / "Lists" / "VID_val_videos.txt").write_text(
        "".join(f"{name} {i * frames + 1} 0 {frames}\n" for i, name in enumerate(names))
    )
    (tmp_path / "annotations").mkdir()
    json_file = tmp_path / "annotations" / "imagenet_vid_val.json"
    values = json.loads((vod / "annotations" / json_file.name).read_text())
    values["videos"] = [video for video in values["videos"] if video["name"] in names]
    videos = {video["id"] for video in values["videos"]}
    values["images"] = [
        image
        for image in values["images"]
        if image["video_id"] in videos and image["frame_id"] < frames
    ]
    images = {image["id"] for image in values["images"]}
    values["annotations"] = [a for a in values["annotations"] if a["image_id"] in images]
    json_file.write_text(json.dumps(values))
    return root, json_file


def test_real_frames_are_trained_on_and_evaluated_from_the_tree_and_from_json(tmp_path, capsys):
    root, json_file = shorten(tmp_path, frames=5)
    weights = train(tmp_path / "run", data=("--data", root))
    assert len(load_detector(weights).classes) == 30
    found = []
    for name, data in (("tree", root), ("json", json_file)):
        output = tmp_path / name
        stpn("eval", "detection", "--weights", weights, "--data", data, "--output", output)
        found.append(json.loads((output / "results.json").read_text()))
    assert found[0]["about"]["num_frames"] == found[1]["about"]["num_frames"] == 10
    of_tree, of_json = (one["models"][0]["runs"][0]["vid"]["test"] for one in found)
    assert list(of_tree) == ["all", "slow", "medium", "fast"]
    assert of_tree == of_json
    capsys.readouterr()
    table, output = write_table(tmp_path / "motion_iou.mat", root), tmp_path / "table"
    command = ("eval", "detection", "--weights", weights, "--data", root)
    stpn(*command, "--output", output, "--motion-table", table)
    assert f"motion IoU of {table}" in " ".join(capsys.readouterr().out.split())
    values = json.loads((output / "results.json").read_text())
    assert values["models"][0]["runs"][0]["vid"]["test"] == of_tree
    assert str(table) in values["about"]["protocol"]["vid"]
    message = refused(capsys, *command, "--motion-table", json_file)
    assert f"{json_file} cannot be read as a table of motion IoU" in message


def write_table(path, root):
    """Write the motion of the objects of a tree in the layout of the official file."""
    savemat = pytest.importorskip("scipy.io").savemat
    videos = ImageNetVID.from_folders(root, "val")
    cells = []
    for number, video in enumerate(videos.videos):
        objects = {index: videos.objects(number, index) for index in range(video.num_frames)}
        cells += [np.array([[v] for v in m]) for m in motion_from_tracks(objects).values()]
    table = np.empty((len(cells), 1), object)
    table[:, 0] = cells
    savemat(path, {"motion_iou": table})
    return path
    one, two = (results["models"][0]["runs"][0]["precision"] for results in found)
    assert one == two
    assert one["test"]["all"]["ap50"] is not None
    capsys.readouterr()

    from_json_file = train(tmp_path / "run-json", data=("--data", json_file))
    frames = root / "Data" / "VID" / "val" / "ILSVRC2015_val_00007006"
    command = ("predict", "detection", frames, "--weights", from_json_file)
    stpn(*command, "--output", tmp_path / "out", "--support.test-sampler", "grid")
    assert f"45 frames: {tmp_path / 'out' / frames.name}.mp4" in capsys.readouterr().out


@pytest.mark.slow
def test_all_real_frames_are_evaluated(tmp_path):
    vod = shared_path("real/vod")
    data = ("--data", vod / "annotations" / "imagenet_vid_train.json")
    weights = train(
        tmp_path / "run", "--images.test-size", "64", "--images.max-size", "96", data=data
    )
    for name, path in (("tree", vod), ("json", vod / "annotations" / "imagenet_vid_val.json")):
        output = tmp_path / name
        stpn("eval", "detection", "--weights", weights, "--data", path, "--output", output)
    tree, from_file = (
        json.loads((tmp_path / n / "results.json").read_text()) for n in ("tree", "json")
    )
    assert tree["about"]["num_frames"] == 315
    assert tree["models"][0]["runs"] == from_file["models"][0]["runs"]


def test_wrong_weights_are_named(weights, video, tmp_path, capsys):
    command = ("predict", "detection", video, "--output", tmp_path / "out", "--weights")
    assert "gone.safetensors is not a file" in refused(
        capsys, *command, tmp_path / "gone.safetensors"
    )
    assert "clip.mp4 is not a whole safetensors file" in refused(capsys, *command, video)
    foreign = tmp_path / "foreign.safetensors"
    save_file(load_file(weights), foreign)
    assert f"{foreign} is not a detector" in refused(capsys, *command, foreign)
    assert not (tmp_path / "out").exists()


def test_weights_of_another_model_are_named(weights, tmp_path, capsys):
    message = refused(capsys, *train_command(tmp_path), "--init", weights, "--head.fc-dim", "8")
    assert re.search(f"{weights} is of another model; misshapen weights: head.roi_head", message)
    message = refused(
        capsys, *train_command(tmp_path / "b"), "--backbone.weights", tmp_path / "b.pth"
    )
    assert "b.pth" in message


def test_other_classes_are_named(weights, tiny, tmp_path, capsys):
    other = tmp_path / "model.safetensors"
    save_detector(other, tiny.detector(tiny.recipe()), tiny.recipe(), ("bright", "dark"))
    message = refused(capsys, "eval", "detection", "--weights", other, *GENERATED)
    assert "the detector knows the classes ('bright', 'dark'), the data has (" in message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (("--data", "nowhere"), "nowhere is neither 'generated', a .json, nor a folder"),
        (("--data", "nowhere.json", "--images", "."), "nowhere.json"),
        (("--data", "nowhere.json"), "nowhere.json: the file cannot be read"),
        (("--data", "."), "Data/VID"),
        (("--data",), "--data needs at least one value"),
        (("--data", ".", "--num-videos", "2"), "num_videos is for generated video"),
        (("--data", "generated", "--num-videos", "0"), "num_videos=0"),
    ],
)
def test_missing_data_is_named(weights, tmp_path, monkeypatch, capsys, data, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, "eval", "detection", "--weights", weights, *data)
    assert message in refused(capsys, "train", "detection", "small", *SMALLER, *data)


def test_a_broken_video_is_named(weights, video, tmp_path, capsys):
    command = ("--weights", weights, "--output", tmp_path / "out")
    video.write_bytes(video.read_bytes()[:500])
    message = refused(capsys, "predict", "detection", video, *command)
    assert re.search(r"clip\.mp4: not a video, or a damaged one", message)
    message = refused(capsys, "predict", "detection", tmp_path / "no.mp4", *command)
    assert "no.mp4: no such file or folder" in message


def test_a_folder_with_a_damaged_frame_is_written_up_to_it(weights, tmp_path, tiny, capsys):
    import cv2

    videos, folder = tiny.MovingSquares(((4, 48, 64),)), tmp_path / "frames"
    folder.mkdir()
    for index in range(4):
        cv2.imwrite(str(folder / f"{index}.png"), videos.frame(0, index))
    damaged = folder / "2.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    output = tmp_path / "out"
    message = refused(
        capsys, "predict", "detection", folder, "--weights", weights, "--output", output
    )
    assert "2.png" in message
    assert len(json.loads((output / "frames.json").read_text())["frames"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("train", "detection", "small", *GENERATED, "--optim.batch-sise", "2"),
            "--optim.batch-sise",
        ),
        (("train", "detection", "huge", *GENERATED), "huge"),
        (("train", "detection", "small"), "--data"),
        (("train", "detection", "small", *GENERATED, "--optim.epochs", "many"), "many"),
        (
            ("train", "detection", "small", *GENERATED, "--optim.epochs", "0"),
            "optim.epochs must be",
        ),
        (("train", "detection", "small", *GENERATED, "--split", "tst"), "tst"),
        (("eval", "detection", *GENERATED), "--weights"),
        (("predict", "detection"), "PATH"),
        (("info", "huge"), "huge"),
        (("frobnicate",), "frobnicate"),
        ((), "demo"),
    ],
)
def test_a_misspelt_command_line_is_explained(capsys, arguments, message):
    assert message in refused(capsys, *arguments, code=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "tpu"), "device 'tpu' is not there"),
        (("--prompts.num-prompts", "0"), "num_prompts must be at least 1, got 0"),
        (("--backbone.name", "resnet50"), "no promptable backbone 'resnet50'"),
        (("--prompts.num-support", "3"), "num_frames must be even"),
        (("--seed", "-1"), "eed"),
    ],
)
def test_values_that_cannot_be_are_named(tmp_path, capsys, options, message):
    assert message in refused(capsys, *train_command(tmp_path), *options)


def test_odd_windows_are_named(weights, capsys):
    command = ("eval", "detection", "--weights", weights, *GENERATED, "--support.test-support", "3")
    assert "prompts.test_support must be even" in refused(capsys, *command)


def make_vid_folders(root):
    """Write a video of two frames in ImageNet VID's tree, one object in each."""
    content = (
        "<annotation><size><width>64</width><height>48</height></size><object><trackid>0</trackid>"
        "<name>n02084071</name><bndbox><xmax>20</xmax><xmin>1</xmin><ymax>30</ymax><ymin>2</ymin>"
        "</bndbox></object></annotation>"
    )
    for number in range(2):
        for kind, suffix in (("Data", "JPEG"), ("Annotations", "xml")):
            (root / kind / "VID/val/a").mkdir(parents=True, exist_ok=True)
            path = root / kind / f"VID/val/a/{number:06d}.{suffix}"
            if kind == "Data":
                path.write_bytes(cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes())
            else:
                path.write_text(content)
    return root


def test_data_check_of_sound_data(tmp_path, capsys):
    stpn("data", "check", make_vid_folders(tmp_path / "ILSVRC"))
    text = capsys.readouterr().out
    row = re.search(r"VID/val .*", text).group()
    assert re.findall(r"\d+", row) == ["1", "2", "0", "2", "1", "1"]
    assert text.endswith("no problems\n")


def test_data_check_names_every_problem_and_ends_with_one(tmp_path, capsys):
    root = make_vid_folders(tmp_path / "ILSVRC")
    annotation = root / "Annotations/VID/val/a/000000.xml"
    annotation.write_text(annotation.read_text().replace(">20<", ">90<"))
    image = root / "Data/VID/val/a/000001.JPEG"
    image.write_bytes(image.read_bytes()[:-40])
    with pytest.raises(SystemExit) as exit_:
        stpn("data", "check", root)
    assert exit_.value.code == 1
    text = capsys.readouterr().out
    assert f"{annotation}: object 0: (1, 2, 90, 30) in 64x48" in text
    assert f"{image}: the image is truncated" in text
    assert text.endswith("problems: 2\n")


def test_data_check_of_no_data_is_refused(tmp_path, capsys):
    assert f"{tmp_path}: neither" in refused(capsys, "data", "check", tmp_path)


def test_data_convert_overwrites_no_json(tmp_path, capsys):
    (tmp_path / "train.json").write_text("mine")
    missing = tmp_path / "ILSVRC"  # told before it is read
    error = refused(capsys, "data", "convert", missing, tmp_path / "train.json")
    assert f"{tmp_path / 'train.json'} is there already, and is not overwritten" in error
    assert (tmp_path / "train.json").read_text() == "mine"


def test_data_convert_writes_what_the_folders_hold(tmp_path, capsys):
    root, output = make_vid_folders(tmp_path / "ILSVRC"), tmp_path / "annotations/val.json"
    stpn("data", "convert", root, output, "--split", "val")
    assert capsys.readouterr().out == f"nothing left out\n1 videos, 2 frames: {output}\n"
    coco = ImageNetVID.from_coco(output, root / "Data/VID")
    folders = ImageNetVID.from_folders(root, "val")
    assert coco.videos == folders.videos
    for index in range(2):
        boxes = folders.objects(0, index).boxes_xyxy
        np.testing.assert_array_equal(coco.objects(0, index).boxes_xyxy, boxes)
