"""The command line of segmentation, end to end on generated clips that cost next to nothing."""

import json
from dataclasses import replace
from zipfile import ZipFile

import cv2
import pytest
import torch
from safetensors.torch import save_file

from stpn_data import to_youtube_vis
from stpn_tasks.cli import main
from stpn_tasks.engine import make_accelerator, parameter_groups
from stpn_tasks.recipe_json import from_json, to_json
from stpn_tasks.recipes import SupportOptions
from stpn_tasks.segmentation import data as data_module
from stpn_tasks.segmentation.build import (
    build_segmenter,
    build_test_sampler,
    build_train_sampler,
)
from stpn_tasks.segmentation.checkpoint import initialise, load_segmenter, save_segmenter
from stpn_tasks.segmentation.data import build_clips, build_collate, open_truth
from stpn_tasks.segmentation.evaluation import evaluate_segmenter
from stpn_tasks.segmentation.inference import VideoSegmentation, build_inference
from stpn_tasks.segmentation.recipes import (
    SEGMENTATION_RECIPES,
    SegmentationRecipe,
    minvis_swin_tiny,
    small,
    small_baseline,
    stpn_swin_tiny,
)
from stpn_tasks.segmentation.training import (
    SegmentationTraining,
    train_segmenter,
    undecayed_parameters,
)
from stpn_tasks.termination import Terminated


def stpn(*arguments):
    main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def videos(tiny_segmentation, tmp_path_factory):
    return tiny_segmentation.videos(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def generated(tiny_segmentation, monkeypatch):
    """Let "generated" be the tiny clips."""
    monkeypatch.setattr(data_module, "GENERATED", {"generated": tiny_segmentation.OPTIONS})


@pytest.fixture(scope="module")
def trained(tiny_segmentation, videos, tmp_path_factory):
    """The files of STPN and of its baseline after two steps, by name."""
    folder, accelerator = tmp_path_factory.mktemp("runs"), make_accelerator("cpu")
    recipes = {"stpn": tiny_segmentation.recipe(), "minvis": tiny_segmentation.recipe("none")}
    return {
        name: train_segmenter(recipe, videos, folder / name, accelerator=accelerator)
        for name, recipe in recipes.items()
    }


def weights_of(path):
    return load_segmenter(path).segmenter.state_dict()


def write_frames(videos, folder):
    """Write the frames where `to_youtube_vis` says that they are."""
    for number, video in enumerate(videos.videos):
        (folder / video.name).mkdir(parents=True)
        for t in range(video.num_frames):
            path = folder / video.name / f"{t:05d}.jpg"
            cv2.imwrite(str(path), videos.frame(number, t)[..., ::-1])


@pytest.fixture(scope="module")
def written(videos, tmp_path_factory):
    """A YouTube-VIS json and its frames."""
    folder = tmp_path_factory.mktemp("ytvis")
    write_frames(videos, folder / "JPEGImages")
    (folder / "train.json").write_text(json.dumps(to_youtube_vis(videos)))
    return folder / "train.json"


@pytest.mark.parametrize("name", SEGMENTATION_RECIPES)
def test_every_recipe_survives_json_and_builds(name):
    recipe = SEGMENTATION_RECIPES[name]()
    assert from_json(to_json(recipe), "test", SegmentationRecipe) == recipe
    with torch.device("meta"):
        segmenter = build_segmenter(recipe, 40, load_weights=False)
    has_prompts = recipe.prompts.predictor != "none"
    assert (segmenter.encoder.predictor is not None) == has_prompts
    assert (build_test_sampler(recipe) is not None) == has_prompts
    assert (build_train_sampler(recipe) is not None) == has_prompts


@pytest.mark.parametrize("name", SEGMENTATION_RECIPES)
def test_every_recipe_tells_its_command_and_whether_it_was_run(name):
    text = SEGMENTATION_RECIPES[name].__doc__
    assert f"stpn train segmentation {name} --data" in text
    assert "Not run by us" in text or " AP" in text


def test_the_published_recipes_have_the_schedule_of_minvis():
    recipe = stpn_swin_tiny()
    optim = recipe.optim
    assert optim.batch_size * optim.epochs * optim.epoch_size == 32 * 32 * 6000
    assert optim.decay_epoch * optim.epoch_size == 32 * 4000
    assert (optim.lr, optim.backbone_factor, optim.weight_decay) == (1e-4, 0.1, 0.05)
    assert (optim.clip_norm, optim.warmup_steps) == (0.01, 0)
    assert (recipe.num_points, recipe.semantic_weight) == (12544, 0.0)
    assert (recipe.images.test_size, recipe.images.max_size) == (480, 1333)
    assert replace(minvis_swin_tiny(), prompts=recipe.prompts) == recipe


def test_norms_and_embeddings_do_not_decay(tiny_segmentation):
    recipe = tiny_segmentation.recipe()
    training = SegmentationTraining(build_segmenter(recipe, 6), 1.0)
    undecayed = undecayed_parameters(training)
    head = "segmenter.head."
    assert {
        head + "decoder.query_features.weight",
        head + "decoder.query_positions.weight",
        head + "decoder.level_embed.weight",
        head + "decoder.norm.bias",
        head + "pixel_decoder.input_projections.0.1.weight",
        head + "pixel_decoder.laterals.0.1.bias",
    } <= undecayed
    assert head + "pixel_decoder.level_embed" not in undecayed  # a parameter, as in detectron2
    names = {id(parameter): name for name, parameter in training.named_parameters()}
    groups = parameter_groups(training, recipe.optim, undecayed)
    still = {names[id(p)] for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    tables = {name for name in names.values() if "relative_position_bias_table" in name}
    assert tables
    assert undecayed | tables <= still
    norms = {name for name in names.values() if "norm" in name}
    assert still == undecayed | tables | norms
    trained = [parameter for parameter in training.parameters() if parameter.requires_grad]
    assert sum(len(group["params"]) for group in groups) == len(trained)


def test_a_trained_segmenter_is_one_file_with_its_recipe_and_classes(
    trained, tiny_segmentation, videos
):
    saved = load_segmenter(trained["stpn"])
    assert saved.recipe == tiny_segmentation.recipe()
    assert saved.classes == videos.classes
    assert not saved.segmenter.training
    assert not [name for name in weights_of(trained["stpn"]) if "semantic" in name]
    values = json.loads((trained["stpn"].parent / "training.json").read_text())
    assert values["losses"][0].keys() == {"classification", "mask", "dice", "semantic"}


def test_every_weight_is_trained(tiny_segmentation, videos):
    recipe = tiny_segmentation.recipe()
    training = SegmentationTraining(build_segmenter(recipe, 6), 1.0).train()
    clips = build_clips(recipe, videos)
    training(build_collate(recipe)([clips[1], clips[9]])).total.backward()
    still = [n for n, p in training.named_parameters() if p.grad is None]
    assert [name for name in still if not name.endswith("attention.key.bias")] == []


def test_the_semantic_loss_adds_to_those_of_minvis_alone(tiny_segmentation, videos):
    recipe = tiny_segmentation.recipe("none")
    segmenter = build_segmenter(recipe, 6).eval()
    batch = build_collate(recipe)([build_clips(recipe, videos)[i] for i in (1, 9)])
    with torch.no_grad():
        plain = SegmentationTraining(segmenter)(batch)
        one, two = (SegmentationTraining(segmenter, weight)(batch) for weight in (1.0, 2.0))
    assert (one.classification, one.mask) == (plain.classification, plain.mask)
    assert one.total == plain.total + one.semantic
    torch.testing.assert_close(two.semantic, 2 * one.semantic)
    assert one.semantic > 0


def test_the_baseline_begins_as_stpn_does_but_for_the_predictor():
    one = build_segmenter(small(), 6).state_dict()
    other = build_segmenter(small_baseline(), 6).state_dict()
    assert one.keys() - other.keys() == {k for k in one if k.startswith("encoder.predictor.")}
    for name, weight in other.items():
        assert torch.equal(weight, one[name]), name


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_that_was_ended_goes_on_to_the_same_weights(
    trained, tiny_segmentation, videos, tmp_path, steps, monkeypatch
):
    from stpn_tasks import engine

    recipe, done = tiny_segmentation.recipe(), []

    def update(*arguments):
        original(*arguments)
        done.append(None)
        if len(done) == steps:
            raise Terminated("killed")

    original = engine._update

    def train():
        options = {"accelerator": make_accelerator("cpu"), "checkpoint_every": 1}
        return train_segmenter(recipe, videos, tmp_path, **options)

    monkeypatch.setattr(engine, "_update", update)
    with pytest.raises(Terminated):
        train()
    monkeypatch.setattr(engine, "_update", original)
    weights = weights_of(train())
    for name, weight in weights_of(trained["stpn"]).items():
        assert torch.equal(weights[name], weight), name
    assert json.loads((tmp_path / "training.json").read_text())["resumed"] is (steps > 1)


def test_a_folder_of_another_recipe_is_refused(trained, tiny_segmentation, videos):
    recipe = replace(tiny_segmentation.recipe(), semantic_weight=0.5)
    with pytest.raises(ValueError, match="holds a run of another recipe"):
        train_segmenter(recipe, videos, trained["stpn"].parent, accelerator=make_accelerator("cpu"))


def test_a_run_on_other_data_is_not_gone_on_with(trained, tiny_segmentation, videos, monkeypatch):
    before = trained["stpn"].read_bytes()
    monkeypatch.setattr(videos, "classes", tuple(f"other {name}" for name in videos.classes))
    with pytest.raises(ValueError, match=r"holds a run on other data, see data\.json"):
        train_segmenter(
            tiny_segmentation.recipe(),
            videos,
            trained["stpn"].parent,
            accelerator=make_accelerator("cpu"),
        )
    assert trained["stpn"].read_bytes() == before


def test_stpn_begins_with_a_baselines_weights_and_a_baseline_with_stpns(trained, tiny_segmentation):
    for begin, name in (("none", "stpn"), ("transformer", "minvis")):
        segmenter = build_segmenter(tiny_segmentation.recipe(begin), 6)
        differing = initialise(segmenter, trained[name])
        assert differing
        assert all(key.startswith("encoder.predictor.") for key in differing)
        for key, weight in weights_of(trained[name]).items():
            if key not in differing:
                assert torch.equal(segmenter.state_dict()[key], weight)


def test_eval_prints_and_writes_numbers_and_predictions(trained, generated, tmp_path, capsys):
    command = ("eval", "segmentation", "--weights", trained["stpn"], "--data", "generated")
    options = ("--num-videos", 2, "--device", "cpu", "--headroom")
    stpn(*command, *options, "--output", tmp_path)
    shown = capsys.readouterr().out
    for row in ("videos", "deteriorated frames", "none clean", "tracks by annotations"):
        assert row in shown
    numbers = json.loads((tmp_path / "evaluation.json").read_text())
    assert numbers["video"]["ap"] is not None
    assert {"all", "clean", "deteriorated"} <= numbers["frames"].keys()
    assert numbers["num_windows"] >= 2
    results = json.loads((tmp_path / "results.json").read_text())
    assert {record["video_id"] for record in results} == {1, 2}
    assert all(len(record["segmentations"]) == 8 for record in results)


def test_train_and_eval_take_a_youtube_vis_json(
    trained, videos, written, tiny_segmentation, tmp_path, capsys
):
    options = (
        "--data", written, "--backbone.embed-dim", 16, "--backbone.depths", 1, 1,
        "--backbone.num-heads", 1, 2, "--optim.batch-size", 2, "--optim.epoch-size", 2,
        "--device", "cpu",
    )  # fmt: skip
    run = tmp_path / "run"
    stpn("train", "segmentation", "small-baseline", *options, "--num-workers", 0, "--output", run)
    assert load_segmenter(run / "model.safetensors").classes == videos.classes
    command = ("eval", "segmentation", "--data", written, "--device", "cpu", "--weights")
    stpn(*command, trained["stpn"], "--output", tmp_path / "eval")
    assert "AP50" in capsys.readouterr().out
    numbers = json.loads((tmp_path / "eval" / "evaluation.json").read_text())
    assert numbers["frames"] == {}  # the file tells no conditions


def test_a_test_json_without_annotations_is_zipped_for_the_server(
    trained, written, tmp_path, capsys
):
    values = json.loads(written.read_text())
    del values["annotations"]
    values["videos"][0]["id"], values["categories"][0]["id"] = 77, 1
    withheld = written.parent / "test.json"
    withheld.write_text(json.dumps(values))
    command = ("eval", "segmentation", "--weights", trained["stpn"], "--data", withheld)
    stpn(*command, "--device", "cpu", "--zip-test", "--output", tmp_path)
    with ZipFile(tmp_path / "results.zip") as archive:
        assert archive.namelist() == ["results.json"]
        records = json.loads(archive.read("results.json"))
    assert [record["video_id"] for record in records] == [77] * 10 + [2] * 10
    for arguments, message in (
        ((), "the json has no 'annotations', which an evaluation; --zip-test packs"),
        (("--zip-test",), "--zip-test needs --output"),
    ):
        with pytest.raises(SystemExit):
            stpn(*command, "--device", "cpu", *arguments)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        stpn("train", "segmentation", "small", "--data", withheld, "--output", tmp_path / "t")
    assert "the json has no 'annotations', which training needs" in capsys.readouterr().err


@pytest.mark.parametrize("options", [(), ("--zip-test",)])
def test_a_folder_that_cannot_be_written_shows_before_the_work(
    trained, generated, tmp_path, capsys, monkeypatch, options
):
    (tmp_path / "file").write_text("in the way")
    work = []
    monkeypatch.setattr(VideoSegmentation, "videos", lambda *_: work.append(1) or iter(()))
    command = ("eval", "segmentation", "--weights", trained["stpn"], "--data", "generated")
    with pytest.raises(SystemExit):
        stpn(*command, "--device", "cpu", "--output", tmp_path / "file", *options)
    assert f"{tmp_path / 'file'}: File exists" in capsys.readouterr().err
    assert not work


def test_what_cannot_be_used_is_named(trained, tiny_segmentation, written, tmp_path, capsys):
    other = tmp_path / "other" / "model.safetensors"
    other.parent.mkdir()
    recipe = tiny_segmentation.recipe()
    save_segmenter(other, build_segmenter(recipe, 2), recipe, ("cat", "dog"))
    nothing = tmp_path / "nothing.safetensors"
    nothing.write_bytes(b"nothing")
    coco = tmp_path / "coco.json"
    coco.write_text(json.dumps({"images": [], "categories": [], "annotations": []}))
    good = trained["stpn"]
    for weights, data, message in (
        (other, written, "knows the classes ('cat', 'dog'), the data has"),
        (nothing, written, "nothing.safetensors is not a whole safetensors file"),
        (good, coco, "coco.json is no YouTube-VIS json"),
        (good, tmp_path, "nor a folder with JPEGImages and Annotations, itself or in val/"),
        (good, tmp_path / "x", "is neither 'generated' nor 'generated-large', a .json"),
    ):
        with pytest.raises(SystemExit):
            stpn("eval", "segmentation", "--weights", weights, "--data", data, "--device", "cpu")
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="num_videos is for generated video"):
        data_module.open_videos(str(written), "val", num_videos=3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.pkl", "nowhere.pkl is not a file"),
        ("other.pth", "other.pth"),
        ("other.safetensors", "other.safetensors is of another model; unknown weights: other"),
    ],
)
def test_weights_to_begin_with_that_do_not_fit_are_named(
    tiny_segmentation, tmp_path, name, message
):
    torch.save({"other": torch.ones(2)}, tmp_path / "other.pth")
    save_file({"other": torch.ones(2)}, tmp_path / "other.safetensors")
    segmenter = build_segmenter(tiny_segmentation.recipe("none"), 6)
    before = {name: weight.clone() for name, weight in segmenter.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        initialise(segmenter, tmp_path / name)
    for key, weight in segmenter.state_dict().items():
        assert torch.equal(weight, before[key])


@pytest.mark.parametrize("name", SEGMENTATION_RECIPES)
def test_heads_share_the_width_of_every_stage(name):
    recipe = SEGMENTATION_RECIPES[name]()
    with torch.device("meta"):
        backbone = build_segmenter(recipe, 40, load_weights=False).encoder.backbone
    for prefix, module in backbone.named_modules():
        if hasattr(module, "num_heads"):
            assert module.qkv.in_features % module.num_heads == 0, prefix


@pytest.mark.slow
@pytest.mark.parametrize("predictor", ["none", "transformer"])
def test_training_learns_to_segment(tiny_segmentation, tmp_path, predictor):
    videos = tiny_segmentation.videos(tmp_path / "cache", num_videos=8)
    recipe = tiny_segmentation.recipe(predictor)
    optim = replace(recipe.optim, lr=2e-3, batch_size=8, epoch_size=8 * 150, warmup_steps=10)
    recipe = replace(recipe, optim=replace(optim, schedule="cosine"))
    accelerator = make_accelerator("cpu")
    weights = train_segmenter(recipe, videos, tmp_path / "run", accelerator=accelerator)
    inference = build_inference(load_segmenter(weights), accelerator.device, SupportOptions())
    found = evaluate_segmenter(
        inference,
        videos,
        open_truth("generated", videos),
        accelerator=accelerator,
        headroom=True,
        progress=False,
    )
    assert found.headroom["all frames, no classes"].ap50 > 0.3
