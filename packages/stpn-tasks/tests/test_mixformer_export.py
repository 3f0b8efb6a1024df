"""Encoding templates and searching are two programs of plain operators."""

import pytest
import torch
from torch import nn
from torch.export import export

from stpn_core import TransformerPredictor
from stpn_tasks.tracking.mixformer import create_mixformer

pytestmark = pytest.mark.compile

TINY = {"dims": (16, 16, 16), "depths": (1, 1, 1), "num_heads": (1, 2, 4), "head_channels": 8}


class Method(nn.Module):
    """A method of a network in place of its forward."""

    def __init__(self, network, name):
        super().__init__()
        self.network = network
        self.name = name

    def forward(self, *args):
        return getattr(self.network, self.name)(*args)


@torch.no_grad()
@pytest.mark.parametrize("prompted", [False, True])
def test_exported_programs_find_what_the_network_finds(prompted):
    torch.manual_seed(0)
    network = create_mixformer("small", predictor=TransformerPredictor, **TINY).eval()
    template, online, search = torch.randn(3, 1, 3, 64, 64).unbind()
    encode = export(Method(network, "encode_templates"), (template, online[None])).module()
    templates = encode(template, online[None])
    prompts = [torch.randn(1, 9, 16)] if prompted else None
    program = export(Method(network, "track"), (search, templates, prompts))
    operators = {str(n.target) for n in program.graph.nodes if n.op == "call_function"}
    assert all(name.startswith("aten.") for name in operators)  # nothing that others cannot read
    other_template, other_search = torch.randn(2, 1, 3, 64, 64).unbind()
    found = program.module()(other_search, encode(other_template, online[None]), prompts)
    expected = network.track(
        other_search, network.encode_templates(other_template, online[None]), prompts
    )
    assert torch.equal(found.boxes_cxcywh, expected.boxes_cxcywh)
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.search_tokens, expected.search_tokens)
