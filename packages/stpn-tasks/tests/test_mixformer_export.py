"""The graphs of a tracker as programs of plain operators, which do what the network does."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from stpn_core import AttentionPredictor, AveragePredictor, MixerPredictor, TransformerPredictor
from stpn_tasks.cli import main
from stpn_tasks.tracking.build import build_network
from stpn_tasks.tracking.checkpoint import SavedTracker, save_tracker
from stpn_tasks.tracking.export import check_files, export_tracker
from stpn_tasks.tracking.graphs import draw_arguments, export_program, tracker_modules
from stpn_tasks.tracking.mixformer import create_mixformer
from stpn_tasks.tracking.recipes import CropRecipe, TrackPromptRecipe, small, small_baseline

pytestmark = pytest.mark.compile

TINY = {"dims": (16, 16, 16), "depths": (1, 1, 1), "num_heads": (1, 2, 4), "head_channels": 8}
TEMPLATE, SEARCH = 32, 64
SIZES = (TEMPLATE, SEARCH)


@torch.no_grad()
def make(**options):
    """Build a network whose random heads tell its inputs apart, as trained ones do."""
    torch.manual_seed(0)
    network = create_mixformer("small", **TINY, **options).eval()
    for weight in network.box_head.parameters():
        weight *= 3 if weight.ndim == 4 else 1
    return network


def export_all(network, names=None):
    arguments = draw_arguments(network, *SIZES)
    return {
        name: export_program(module, arguments[name])
        for name, module in tracker_modules(network).items()
        if names is None or name in names
    }


@pytest.fixture(scope="module")
def network():
    return make(predictor=TransformerPredictor, prompt_gate=-1.0)


@pytest.fixture(scope="module")
def programs(network):
    return export_all(network)


def assert_same(program, module, arguments):
    """Compare a program to what it is of, to the last bit."""
    found = program.module()(*arguments.values())
    expected = module(**arguments)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@torch.no_grad()
@pytest.mark.parametrize(("num_online", "num_support"), [(1, 1), (3, 5)])
def test_programs_are_exact_for_any_number_of_templates_and_support_frames(
    network, programs, num_online, num_support
):
    modules = tracker_modules(network)
    case = draw_arguments(
        network, *SIZES, num_online=num_online, num_support=num_support, seed=num_online
    )
    assert programs.keys() == modules.keys() == case.keys()
    for name, program in programs.items():
        assert_same(program, modules[name], case[name])


def test_programs_hold_nothing_that_others_cannot_read(programs):
    for program in programs.values():
        operators = [node.target for node in program.graph.nodes if node.op == "call_function"]
        libraries = {op.namespace for op in operators if isinstance(op, torch._ops.OpOverload)}
        assert libraries == {"aten"}


@torch.no_grad()
def test_what_one_graph_gives_the_next_one_takes(network, programs):
    template, online, *support, search = draw_crops(num_support=2)
    run = {name: program.module() for name, program in programs.items()}
    templates = run["encode_templates"](template, online)
    embeddings = [run["track_plain"](crop, templates)["embedding"] for crop in support]
    prompts = run["predict_prompts"](torch.stack(embeddings, 1))
    found = run["track_prompted"](search, templates, prompts)

    encoded = network.encode_templates(template, online)
    tokens = [network.track(crop, encoded).search_tokens for crop in support]
    embedded = torch.stack([network.embed_support(each) for each in tokens], 1)
    expected = network.track(search, encoded, network.predict_prompts(embedded))
    assert torch.equal(found["box_cxcywh"], expected.boxes_cxcywh)
    assert torch.equal(found["score"], expected.scores.sigmoid())
    # Prompts do matter, of a network at random too.
    plain = run["track_plain"](search, templates)
    assert (plain["box_cxcywh"] - found["box_cxcywh"]).abs().max() > 1e-5


@torch.no_grad()
def test_templates_stay_as_they_are_beside_prompts(programs):
    template, online, search, _ = draw_crops(num_support=1)
    run = {name: program.module() for name, program in programs.items()}
    templates = run["encode_templates"](template, online)
    before = {name: tensor.clone() for name, tensor in templates.items()}
    plain = run["track_plain"](search, templates)
    prompts = {"prompt_0": torch.randn(1, 9, 16)}
    run["track_prompted"](search, templates, prompts)
    assert all(torch.equal(templates[name], tensor) for name, tensor in before.items())
    assert torch.equal(run["track_plain"](search, templates)["box_cxcywh"], plain["box_cxcywh"])


def draw_crops(num_support):
    template, online = torch.randn(2, 1, 3, TEMPLATE, TEMPLATE)
    return template, online[None], *torch.randn(num_support + 1, 1, 3, SEARCH, SEARCH)


class Method(nn.Module):
    """A method of a network in place of its forward."""

    def __init__(self, network, name):
        super().__init__()
        self.network = network
        self.name = name

    def forward(self, *args):
        return getattr(self.network, self.name)(*args)


@torch.no_grad()
def test_methods_of_the_network_export_with_their_own_types(network):
    template, online, search, other = draw_crops(num_support=1)
    encode = torch.export.export(Method(network, "encode_templates"), (template, online)).module()
    prompts = [torch.randn(1, 9, 16)]
    arguments = (search, encode(template, online), prompts)
    found = torch.export.export(Method(network, "track"), arguments).module()(
        other, encode(template, online), prompts
    )
    expected = network.track(other, network.encode_templates(template, online), prompts)
    assert torch.equal(found.boxes_cxcywh, expected.boxes_cxcywh)
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.search_tokens, expected.search_tokens)


@torch.no_grad()
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("kind", [AttentionPredictor, AveragePredictor, MixerPredictor])
def test_prompts_of_every_predictor_are_exact(kind, deep):
    network = make(predictor=kind, deep=deep)
    (program,) = export_all(network, ["predict_prompts"]).values()
    case = draw_arguments(network, *SIZES, num_support=5, seed=1)["predict_prompts"]
    assert_same(program, tracker_modules(network)["predict_prompts"], case)
    assert len(program.module()(*case.values())) == (3 if deep else 1)


@torch.no_grad()
@pytest.mark.parametrize("kind", [AveragePredictor, MixerPredictor])
def test_the_embedding_for_every_predictor_is_exact(kind):
    network = make(predictor=kind, score=False)
    (program,) = export_all(network, ["track_plain"]).values()
    case = draw_arguments(network, *SIZES, seed=1)["track_plain"]
    assert_same(program, tracker_modules(network)["track_plain"], case)


def test_a_network_in_training_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        tracker_modules(make().train())


RECIPE = replace(
    small(),
    crops=CropRecipe(template_size=TEMPLATE, search_size=SEARCH),
    prompts=TrackPromptRecipe(num_support=2, stride=2),
)
# Torch alone reads and runs what was written.
RUN = """
import json, sys, torch
folder = sys.argv[1]
run = {name: torch.export.load(f"{folder}/{name}.pt2").module()
       for name in json.load(open(folder + "/tracker.json"))["graphs"]}
crops = torch.load(folder + "/crops.pt")
with torch.no_grad():
    templates = run["encode_templates"](crops["template"], crops["online"])
    torch.save(run["track_plain"](crops["search"], templates), folder + "/found.pt")
assert not [name for name in sys.modules if name.startswith("stpn")]
"""


@pytest.mark.slow
@torch.no_grad()
def test_the_command_writes_programs_that_need_torch_alone(tmp_path, capsys):
    recipe = replace(small_baseline(), crops=RECIPE.crops, has_score=False)
    network = build_network(recipe, score=False).eval()
    save_tracker(tmp_path / "model.safetensors", network, recipe)
    weights, folder = str(tmp_path / "model.safetensors"), tmp_path / "out"
    main(["export", "tracking", weights, "--output", str(folder), "--format", "torch"])
    told = capsys.readouterr().out
    assert told.count(" 0.0e+00 ") == 2
    assert f"in {folder}, with tracker.json" in told
    names = {"encode_templates.pt2", "track_plain.pt2", "tracker.json"}
    assert {path.name for path in folder.iterdir()} == names

    about = json.loads((folder / "tracker.json").read_text())
    assert about["num_prompts"] == 0
    assert about["options"]["support"] is None
    calls = {
        frames: [call["graph"] for call in about["calls"][frames]] for frames in about["calls"]
    }
    assert calls == {
        "first_frame": ["encode_templates"],
        "later_frames": ["track_plain", "encode_templates"],
    }
    outputs = about["graphs"]["track_plain"]["outputs"]
    assert outputs == [{"name": "box_cxcywh", "shape": [1, 4], "dtype": "float32"}]

    template, online, search, _ = draw_crops(num_support=1)
    torch.save({"template": template, "online": online, "search": search}, folder / "crops.pt")
    subprocess.run([sys.executable, "-c", RUN, str(folder)], check=True)
    found = torch.load(folder / "found.pt")
    expected = network.track(search, network.encode_templates(template, online))
    assert_close(found["box_cxcywh"], expected.boxes_cxcywh, rtol=0, atol=1e-6)


def test_a_file_of_another_network_is_found_out(tmp_path):
    torch.manual_seed(0)
    made = make(predictor=TransformerPredictor)
    path = tmp_path / "predict_prompts.pt2"
    torch.export.save(export_all(made, ["predict_prompts"])["predict_prompts"], path)
    (written,) = check_files(made, [path], *SIZES)
    assert written.difference == 0
    nn.init.normal_(made.predictor.ffn[2].weight)
    with pytest.raises(ValueError, match=r"predict_prompts.pt2 differs from the network by .*e"):
        check_files(made, [path], *SIZES)


class Changed(nn.Module):
    """Prompts of a network, the last of them changed."""

    def __init__(self, module, change):
        super().__init__()
        self.module, self.change = module, change

    def forward(self, embeddings):
        outputs = self.module(embeddings)
        *_, last = outputs
        return outputs | {last: self.change(outputs[last])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * torch.nan, "its output prompt_2 is not finite"),
        (lambda x: x / 0, "its output prompt_2 is not finite"),
        (lambda x: x[None], r"output prompt_2 is \(1, 1, 9, 16\), the network's \(1, 9, 16\)"),
    ],
)
def test_what_a_comparison_would_pass_over_is_refused(tmp_path, change, message):
    made = make(predictor=AveragePredictor, deep=True)
    module = Changed(tracker_modules(made)["predict_prompts"], change)
    path = tmp_path / "predict_prompts.pt2"
    arguments = draw_arguments(made, *SIZES)["predict_prompts"]
    torch.export.save(export_program(module, arguments), path)
    with pytest.raises(ValueError, match=rf"predict_prompts.pt2: {message}"):
        check_files(made, [path], *SIZES)


def test_a_network_that_is_not_finite_is_refused(tmp_path):
    made = make(predictor=AveragePredictor, deep=True)
    with torch.no_grad():
        [*made.predictor.parameters()][-1].fill_(torch.nan)
    path = tmp_path / "predict_prompts.pt2"
    torch.export.save(export_all(made, ["predict_prompts"])["predict_prompts"], path)
    with pytest.raises(ValueError, match=r"the network's output prompt_\d is not finite"):
        check_files(made, [path], *SIZES)


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_what_onnx_needs_is_asked_for_before_anything_is_written(monkeypatch, tmp_path, missing):
    for name in ("onnx", "onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None if name == missing else sys)
    saved = SavedTracker(build_network(RECIPE, score=True).eval(), RECIPE)
    with pytest.raises(ValueError, match=rf'{missing}, .*: pip install "stpn-tasks\[export\]"'):
        export_tracker(saved, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_tracker_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(SystemExit) as exit_:
        main(["export", "tracking", str(tmp_path / "model.safetensors"), "--output", "out"])
    assert exit_.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith(f"stpn: error: {tmp_path / 'model.safetensors'} is not a whole")
