"""The command line of tracking, end to end on generated sequences that cost next to nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from stpn_data import DataError, DeterioratedTracking, TrackingOptions, VideoWriter
from stpn_tasks.cli import main
from stpn_tasks.engine import make_accelerator
from stpn_tasks.recipe_json import from_json, to_json
from stpn_tasks.tracking.batch import collate_tracks
from stpn_tasks.tracking.build import build_network, build_samples, build_tracker_options
from stpn_tasks.tracking.checkpoint import load_tracker, save_tracker
from stpn_tasks.tracking.recipes import (
    TRACKING_RECIPES,
    NetworkRecipe,
    TrackingRecipe,
    small,
    small_baseline,
    stpn_22k,
)
from stpn_tasks.tracking.training import (
    BoxTraining,
    ScoreTraining,
    centre_on_samples,
    train_tracker,
)


def stpn(*arguments):
    main([str(argument) for argument in arguments])


def shortened(recipe, steps=2):
    box = replace(recipe.box, batch_size=2, epoch_size=2 * steps, warmup_steps=0)
    prompts = replace(recipe.prompts, num_support=2)
    return replace(recipe, box=box, score=box, prompts=prompts)


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    options = TrackingOptions(num_frames=(20, 22), deteriorated=0.2)
    return DeterioratedTracking(
        tmp_path_factory.mktemp("cache"),
        num_sequences=3,
        options=options,
        num_workers=0,
        progress=False,
    )


@pytest.fixture(scope="module")
def trained(sequences, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "stpn"
    recipe = shortened(small())
    train_tracker(recipe, sequences, output, accelerator=make_accelerator("cpu"))
    return recipe, output


@pytest.mark.parametrize("name", TRACKING_RECIPES)
def test_recipes_come_back_from_json(name):
    recipe = TRACKING_RECIPES[name]()
    assert from_json(to_json(recipe), "test", TrackingRecipe) == recipe


def test_the_published_recipes_have_the_schedule_of_mixformer():
    recipe = stpn_22k()
    assert (recipe.box.epochs, recipe.box.decay_epoch, recipe.box.epoch_size) == (500, 400, 60_000)
    assert (recipe.box.lr, recipe.box.backbone_factor, recipe.box.clip_norm) == (1e-4, 0.1, 0.1)
    assert (recipe.score.epochs, recipe.score.decay_epoch) == (40, 30)
    assert recipe.prompts.num_prompts == 9
    options = build_tracker_options(recipe)
    assert (options.search_size, options.search_factor, options.template_size) == (320, 4.55, 128)


def test_a_trained_tracker_is_one_file_with_its_recipe(trained):
    recipe, output = trained
    saved = load_tracker(output / "model.safetensors")
    assert saved.recipe == recipe
    assert saved.network.score_head is not None
    assert not saved.network.training
    training = json.loads((output / "training.json").read_text())
    assert training["losses"].keys() == {"box", "score"}
    assert not training["resumed"]
    assert training["losses"]["box"][0].keys() == {"ciou", "l1", "place"}


def test_a_stage_trains_its_own_part_only(sequences):
    recipe = shortened(small())
    batch = collate_tracks(
        [build_samples(recipe, sequences, "score", recipe.box)[i] for i in (0, 1)]
    )
    network = build_network(recipe, score=True)
    score = ScoreTraining(network).train()
    assert not network.backbone.training
    assert network.score_head.training
    score(batch).total.backward()
    moved = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert moved == {"score_head"}
    network = build_network(recipe, score=False)
    BoxTraining(network).train()(batch).total.backward()
    still = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert still == []
    assert network.predictor.reduction.weight.grad.abs().sum() > 0


def test_the_score_module_learns_beside_the_weights_of_the_first_stage(trained, sequences):
    recipe, output = trained
    first = output / "checkpoints" / "box"
    assert list(first.glob("step-*"))
    told = (output / "training.json").read_text()
    again = train_tracker(recipe, sequences, output, accelerator=make_accelerator("cpu"))
    assert (output / "training.json").read_text() == told
    before = load_tracker(output / "model.safetensors").network.state_dict()
    for name, weight in load_tracker(again).network.state_dict().items():
        assert_close(weight, before[name], rtol=0, atol=0)


def test_the_baseline_begins_as_stpn_does_but_for_the_predictor():
    one = build_network(small(), score=True).state_dict()
    other = build_network(small_baseline(), score=True).state_dict()
    assert {name for name in one if name not in other} == {
        name for name in one if name.startswith("predictor.")
    }
    for name, weight in other.items():
        assert torch.equal(weight, one[name]), name


def test_a_tracker_begins_with_another_ones_weights(trained):
    recipe, output = trained
    begin = NetworkRecipe(name="small", mixformer=output / "model.safetensors")
    weights = load_tracker(output / "model.safetensors").network.state_dict()
    for score in (True, False):
        network = build_network(replace(recipe, network=begin), score=score)
        for name, weight in network.state_dict().items():
            assert torch.equal(weight, weights[name]), name
    both = replace(begin, cvt="cvt_21")
    with pytest.raises(ValueError, match="network.cvt and network.mixformer are two beginnings"):
        build_network(replace(recipe, network=both), score=True)


def test_stpn_begins_with_plain_mixformer(trained, tmp_path):
    recipe, _ = trained
    plain = build_network(small_baseline(), score=False)
    save_tracker(tmp_path / "plain.safetensors", plain, replace(small_baseline(), has_score=False))
    begin = NetworkRecipe(name="small", mixformer=tmp_path / "plain.safetensors")
    network = build_network(replace(recipe, seed=5, network=begin), score=True)
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, network.state_dict()[name]), name
    assert network.predictor is not None


def test_the_score_module_of_another_tracker_is_trained_on(trained, sequences, tmp_path):
    recipe, output = trained
    saved = load_tracker(output / "model.safetensors")
    for name, weight in saved.network.score_head.named_parameters():
        weight.data.fill_(0.25 if name.endswith("weight") else 0.125)
    begin = tmp_path / "begin.safetensors"
    save_tracker(begin, saved.network, saved.recipe)
    network = NetworkRecipe(name="small", mixformer=begin)
    still = replace(recipe.score, lr=1e-12, weight_decay=0.0)
    path = train_tracker(
        replace(recipe, network=network, score=still),
        sequences,
        tmp_path / "run",
        accelerator=make_accelerator("cpu"),
    )
    trained_on = load_tracker(path).network
    for name, weight in trained_on.score_head.named_parameters():
        assert_close(weight, saved.network.score_head.get_parameter(name), atol=1e-6, rtol=0)
    first, later = saved.network.box_head, trained_on.box_head  # the first stage's are kept
    assert any(
        not torch.equal(a, b) for a, b in zip(first.parameters(), later.parameters(), strict=True)
    )


class Alone:
    """One sequence whose target is always visible."""

    def __init__(self, sequences):
        one = sequences.sequences[0]
        boxes = np.tile([20.0, 20.0, 30.0, 30.0], (one.num_frames, 1))
        seen = np.ones(one.num_frames, bool)
        self.sequences = [replace(one, boxes_xywh=boxes, visible=seen, counted=seen)]
        self.frame, self.frames = sequences.frame, sequences.frames


def test_sequences_that_give_no_negatives_are_refused_before_anything_is_trained(
    sequences, tmp_path
):
    recipe, alone = shortened(small()), Alone(sequences)
    accelerator = make_accelerator("cpu")
    with pytest.raises(DataError, match=r"is the only sequence.*--no-has-score"):
        train_tracker(recipe, alone, tmp_path, accelerator=accelerator)
    assert list(tmp_path.iterdir()) == []
    train_tracker(replace(recipe, has_score=False), alone, tmp_path, accelerator=accelerator)


def test_a_run_on_other_data_is_not_gone_on_with(trained, sequences):
    recipe, output = trained
    before = (output / "model.safetensors").read_bytes()
    fewer = Alone(sequences)
    fewer.sequences = sequences.sequences[:2]
    with pytest.raises(ValueError, match="holds a run on other data, see data.json"):
        train_tracker(recipe, fewer, output, accelerator=make_accelerator("cpu"))
    assert (output / "model.safetensors").read_bytes() == before
    assert json.loads((output / "data.json").read_text())["sequences"] == 3


def test_samples_need_a_number(sequences):
    recipe = shortened(small())
    with pytest.raises(ValueError, match="box.epoch_size must be given"):
        build_samples(recipe, sequences, "box", replace(recipe.box, epoch_size=None))


def test_eval_writes_results_and_numbers_in_the_toolkit_s_layout(
    trained, sequences, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("stpn_tasks.tracking.data.open_sequences", lambda *a, **k: sequences)
    weights = trained[1] / "model.safetensors"
    command = ("eval", "tracking", "--weights", weights, "--data", "generated", "--device", "cpu")
    stpn(*command, "--output", tmp_path)
    text = capsys.readouterr().out
    assert "GOT-10k's protocol; generated (val)" in text
    folder = tmp_path / "results" / "GOT-10k" / "stpn"
    for one in sequences.sequences:
        boxes = np.loadtxt(folder / one.name / f"{one.name}_001.txt", delimiter=",")
        assert boxes.shape == (one.num_frames, 4)
    report = tmp_path / "reports" / "GOT-10k" / "stpn" / "performance.json"
    assert 0 <= json.loads(report.read_text())["stpn"]["overall"]["ao"] <= 1
    with pytest.raises(SystemExit):
        stpn(*command, "--output", tmp_path / "other", "--zip-test")
    assert "--zip-test is for GOT-10k's split test" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_predict_follows_a_target_through_a_video(trained, sequences, tmp_path, capsys):
    with VideoWriter(tmp_path / "clip.mp4", 10, sequences.sequences[0].size) as writer:
        for frame in sequences.frames(0):
            writer.write(frame)
    box = sequences.sequences[0].boxes_xywh[0].tolist()
    weights = trained[1] / "model.safetensors"
    command = ("predict", "tracking", tmp_path / "clip.mp4", "--weights", weights)
    stpn(*command, "--box", *box, "--output", tmp_path / "out", "--device", "cpu")
    found = json.loads((tmp_path / "out" / "clip.json").read_text())
    assert len(found["frames"]) == sequences.sequences[0].num_frames
    assert found["frames"][0]["box_xywh"] == pytest.approx(box, abs=1e-2)
    with pytest.raises(SystemExit):
        stpn(*command, "--box", 500, 500, 10, 10, "--output", tmp_path / "out")
    assert "has no area on a frame" in capsys.readouterr().err


def test_train_takes_a_folder_of_own_sequences(sequences, tmp_path, capsys):
    import cv2

    for number in range(2):
        folder = tmp_path / "own" / f"s{number}"
        folder.mkdir(parents=True)
        for index, frame in enumerate(sequences.frames(number)):
            cv2.imwrite(str(folder / f"{index:04d}.png"), frame[..., ::-1])
        lines = (",".join(map(str, row)) for row in sequences.sequences[number].boxes_xywh.tolist())
        (tmp_path / "own" / f"s{number}.txt").write_text("\n".join(lines))
    options = ("--box.batch-size", 2, "--box.epoch-size", 2, "--no-has-score")
    command = ("train", "tracking", "small-baseline", "--data", tmp_path / "own", *options)
    stpn(*command, "--output", tmp_path / "run", "--num-workers", 0, "--device", "cpu")
    assert load_tracker(tmp_path / "run" / "model.safetensors").network.score_head is None
    with pytest.raises(SystemExit):
        stpn(*command, "--data", tmp_path / "nowhere")
    assert "is neither 'generated' nor a folder" in capsys.readouterr().err


def test_a_file_that_is_no_tracker_is_named(tmp_path, trained, capsys):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        load_tracker(path)


def test_a_predictor_is_centred_on_the_crops_of_training_samples(sequences):
    recipe = shortened(small())
    recipe = replace(recipe, prompts=replace(recipe.prompts, centre_samples=3))
    network = build_network(recipe, score=False)
    samples = build_samples(recipe, sequences, "box", recipe.box)
    before = network.predictor.reduction.bias.clone()
    centre_on_samples(network, recipe, samples, torch.device("cpu"))
    assert not torch.allclose(network.predictor.reduction.bias, before)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(recipe.seed))
    reduced = []
    for index in order[:3].tolist():
        batch = collate_tracks([samples[index]])
        with torch.no_grad():
            templates = network.encode_templates(batch.template, batch.online)
            found = network.track(batch.support[0], templates.repeat_interleave(2))
        reduced.append(network.predictor.reduction(found.search_tokens).mean((0, 1)))
    assert torch.stack(reduced).mean(0).abs().max() < 1e-4


def test_only_a_predictor_with_a_reduction_can_be_centred(sequences):
    recipe = shortened(small_baseline())
    recipe = replace(recipe, prompts=replace(recipe.prompts, centre_samples=3))
    samples = build_samples(recipe, sequences, "box", recipe.box)
    with pytest.raises(ValueError, match="centre_samples must be 0 for the predictor 'none'"):
        centre_on_samples(build_network(recipe, score=False), recipe, samples, torch.device("cpu"))


def test_the_width_of_the_transformer_predictor_is_of_no_other():
    recipe = small()
    prompts = replace(recipe.prompts, predictor="average")
    with pytest.raises(ValueError, match="ffn_dim must be None for the predictor 'average'"):
        build_network(replace(recipe, prompts=prompts), score=False)
