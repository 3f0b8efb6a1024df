"""A tracker in ONNX files: they do what the network does, and all that tracking asks of it."""

import importlib.util
import json
import re
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.testing import assert_close

from stpn_data.video import VideoReader, VideoWriter
from stpn_tasks.cli import main
from stpn_tasks.tracking.build import build_network, build_tracker_options
from stpn_tasks.tracking.checkpoint import load_tracker, save_tracker
from stpn_tasks.tracking.export import export_tracker
from stpn_tasks.tracking.graphs import draw_arguments, flat, tracker_modules
from stpn_tasks.tracking.recipes import CropRecipe, FollowRecipe, TrackPromptRecipe, small
from stpn_tasks.tracking.tracker import OnlineTracker

pytestmark = pytest.mark.compile

EXAMPLE = Path(__file__).parents[1] / "examples" / "track_with_onnx.py"
LENGTH, BOX = 15, (30.0, 24.0, 18.0, 14.0)
RECIPE = replace(
    small(),
    crops=CropRecipe(template_size=32, search_size=64),
    prompts=TrackPromptRecipe(deep=True, num_prompts=4, num_support=3, stride=2),
    follow=FollowRecipe(search_factor=4.5, online_size=2, update_interval=3, score_decay=0.9),
)


@torch.no_grad()
def save(path, recipe):
    """Save a network whose random heads tell its inputs apart, as trained ones do."""
    network = build_network(recipe, score=recipe.has_score)
    for weight in network.box_head.parameters():
        weight *= 3 if weight.ndim == 4 else 1
    if network.score_head is not None:
        for weight in network.score_head.mlp.parameters():
            weight *= 2
    save_tracker(path, network, recipe)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save(tmp_path_factory.mktemp("run") / "model.safetensors", RECIPE)


@pytest.fixture(scope="module")
def command(weights, tmp_path_factory):
    """What ``stpn export tracking`` prints, and the folder that it writes."""
    folder = tmp_path_factory.mktemp("exported")
    with redirect_stdout(StringIO()) as told:
        main(["export", "tracking", str(weights), "--output", str(folder)])
    return told.getvalue(), folder


@pytest.fixture(scope="module")
def folder(command):
    return command[1]


@pytest.fixture
def frames():
    """A textured target that moves over noise."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 160, (LENGTH, 72, 96, 3)).astype(np.uint8)
    target = random.integers(60, 256, (14, 18, 3))
    for t, frame in enumerate(frames):
        frame[24 + t : 38 + t, 30 + 2 * t : 48 + 2 * t] = target
    return frames


def sessions_of(folder):
    return {
        path.stem: onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for path in folder.glob("*.onnx")
    }


def test_the_command_tells_what_it_wrote_and_how_exact_it_is(command):
    told, folder = command
    names = ["encode_templates", "track_plain", "predict_prompts", "track_prompted"]
    assert {path.name for path in folder.iterdir()} == {
        *(f"{name}.onnx" for name in names),
        "tracker.json",
    }
    rows = re.findall(r"(\w+)\.onnx +│ +\S+ +│ +(\S+) ", told)
    assert [name for name, _ in rows] == names
    assert all(float(difference) < 1e-5 for _, difference in rows)
    assert told.splitlines()[-1] == f"in {folder}, with tracker.json, which describes them"


@torch.no_grad()
@pytest.mark.parametrize(("num_online", "num_support"), [(1, 1), (2, 3), (4, 7)])
def test_each_graph_gives_what_the_network_gives(weights, folder, num_online, num_support):
    network = load_tracker(weights).network
    cases = draw_arguments(
        network, 32, 64, num_online=num_online, num_support=num_support, seed=num_online
    )
    modules, sessions = tracker_modules(network), sessions_of(folder)
    assert sessions.keys() == cases.keys()
    for name, arguments in cases.items():
        expected = modules[name](**arguments)
        given = {key: tensor.numpy() for key, tensor in flat(arguments).items()}
        found = sessions[name].run(list(expected), given)
        for tensor, array in zip(expected.values(), found, strict=True):
            assert_close(torch.from_numpy(array), tensor, rtol=1e-4, atol=1e-4)


def test_graphs_hold_standard_operators_alone_and_their_weights(folder):
    for path in folder.glob("*.onnx"):
        model = onnx.load(path, load_external_data=False)
        assert {node.domain for node in model.graph.node} == {""}
        assert [opset.domain for opset in model.opset_import] == [""]
        weights = model.graph.initializer
        assert not any(onnx.external_data_helper.uses_external_data(each) for each in weights)


def test_the_description_is_of_the_files(weights, folder):
    about = json.loads((folder / "tracker.json").read_text())
    network, options = load_tracker(weights).network, build_tracker_options(RECIPE)
    for name, session in sessions_of(folder).items():
        graph = about["graphs"][name]
        assert graph["file"] == f"{name}.onnx"
        for described, of_session in (
            (graph["inputs"], session.get_inputs()),
            (graph["outputs"], session.get_outputs()),
        ):
            assert [port["name"] for port in described] == [port.name for port in of_session]
            assert {port["dtype"] for port in described} == {"float32"}
            assert {port.type for port in of_session} == {"tensor(float)"}
            for own, port in zip(described, of_session, strict=True):
                fixed = [None if isinstance(size, str) else size for size in port.shape]
                assert [None if isinstance(size, str) else size for size in own["shape"]] == fixed
    shapes = {port["name"]: port["shape"] for port in about["graphs"]["track_prompted"]["inputs"]}
    assert shapes["key_0"] == [1, 1, "16*online + 16", 32]  # 4 x 4 keys of each template
    assert sum(name.startswith("prompt_") for name in shapes) == len(network.backbone.prompt_dims)
    assert about["options"] == {**asdict(options), "support_size": 64, "support_factor": 4.5}
    assert about["num_prompts"] == 4


class Noted:
    """A network, and the graphs that its calls would be."""

    def __init__(self, network):
        self.network, self.predictor, self.calls = network, network.predictor, []

    def encode_templates(self, *arguments):
        self.calls.append("encode_templates")
        return self.network.encode_templates(*arguments)

    def track(self, search, templates, prompts=None):
        self.calls.append("track_plain" if prompts is None else "track_prompted")
        return self.network.track(search, templates, prompts)

    def predict_prompts(self, embeddings):
        self.calls.append("predict_prompts")
        return self.network.predict_prompts(embeddings)

    def embed_support(self, tokens):
        return self.network.embed_support(tokens)


def test_the_calls_are_described_in_the_order_of_the_tracker(weights, folder, frames):
    about = json.loads((folder / "tracker.json").read_text())
    first, later = ([call["graph"] for call in calls] for calls in about["calls"].values())
    noted = Noted(load_tracker(weights).network)
    tracker = OnlineTracker(noted, build_tracker_options(RECIPE))
    tracker.init(frames[0], BOX)
    assert noted.calls == first
    called = []
    for frame in frames[1:7]:
        noted.calls.clear()
        tracker.track(frame)
        assert noted.calls == [graph for graph in later if graph in noted.calls]
        called.append(len(noted.calls))
    # Prompts are new at frames 1, 3 and 5, support comes from 2, 4 and 6, templates from 3 and 6.
    assert called == [2, 2, 3, 2, 2, 3]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("track_with_onnx", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def follow(weights, frames):
    """Track with PyTorch; return the results, and how many templates there were at each."""
    saved = load_tracker(weights)
    tracker = OnlineTracker(saved.network, build_tracker_options(saved.recipe))
    tracker.init(frames[0], BOX)
    return [tracker.track(frame) for frame in frames[1:]], tracker.state


def test_a_sequence_on_onnxruntime_alone_has_the_boxes_of_the_tracker(
    weights, folder, frames, example
):
    expected, state = follow(weights, frames)
    tracker = example.OnnxTracker(folder)
    tracker.init(frames[0], BOX)
    for frame, (box, score, _) in zip(frames[1:], expected, strict=True):
        found_box, found_score = tracker.track(frame)
        assert found_box == pytest.approx(box, abs=1e-2)
        assert found_score == pytest.approx(score, abs=1e-4)
    assert tracker.support == sorted(state.support, reverse=True)
    # The sequence goes through all that can happen.
    places = np.array([result.box_xywh for result in expected])
    assert np.ptp(places, axis=0)[:2].min() > 2
    assert state.oldest == tracker.oldest
    for own, other in zip(state.online, tracker.online, strict=True):
        assert_close(torch.from_numpy(other), own)
    assert any(not torch.equal(online, state.template) for online in state.online)


def test_the_example_needs_neither_torch_nor_this_project(weights, folder, frames, tmp_path):
    with VideoWriter(tmp_path / "clip.mp4", 10, (72, 96)) as writer:
        for frame in frames:
            writer.write(frame)
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], None, '__main__')"
        "; assert not {'torch', 'stpn_tasks', 'stpn_data'} & sys.modules.keys()"
    )
    arguments = [str(EXAMPLE), str(folder), str(tmp_path / "clip.mp4"), *map(str, BOX)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    expected, _ = follow(weights, list(VideoReader(tmp_path / "clip.mp4")))
    lines = done.stdout.splitlines()
    assert len(lines) == LENGTH - 1
    for number, (line, result) in enumerate(zip(lines, expected, strict=True), start=1):
        x, y, width, height = result.box_xywh
        told = f"frame {number}: {x:.1f} {y:.1f} {width:.1f} {height:.1f}, score "
        assert line.startswith(told)


@pytest.mark.slow
@pytest.mark.parametrize("predictor", ["mixer", "attention", "average", "none"])
@pytest.mark.parametrize(("has_score", "crop"), [(True, "target"), (False, "searched")])
def test_every_kind_of_tracker_follows_as_in_pytorch(
    tmp_path, frames, example, predictor, has_score, crop
):
    prompts = replace(RECIPE.prompts, predictor=predictor, support_crop=crop)
    recipe = replace(RECIPE, prompts=prompts, has_score=has_score)
    weights = save(tmp_path / "model.safetensors", recipe)
    graphs = export_tracker(load_tracker(weights), tmp_path / "out", "onnx")
    assert len(graphs) == (2 if predictor == "none" else 4)
    expected, _ = follow(weights, frames)
    tracker = example.OnnxTracker(tmp_path / "out")
    tracker.init(frames[0], BOX)
    for frame, (box, score, _) in zip(frames[1:], expected, strict=True):
        found_box, found_score = tracker.track(frame)
        assert found_box == pytest.approx(box, abs=1e-2)
        assert found_score == (None if score is None else pytest.approx(score, abs=1e-4))
