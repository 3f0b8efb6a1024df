"""A tracker as graphs of plain operators, which call each other's tensors by the same names.

``encode_templates``, ``track_plain`` and, of a network with a predictor, ``predict_prompts`` and
``track_prompted`` do what `OnlineTracker` asks of a network, for one clip. A pass without prompts
is a graph of its own: every support frame needs it, and a network without a predictor has no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from stpn_core import PromptPredictor
from stpn_kernels.support_attend.reference import support_attend_reference
from stpn_kernels.support_pool.reference import support_pool_reference
from stpn_tasks.tracking.mixed_attention import EncodedTemplates, MixedAttentionCvt
from stpn_tasks.tracking.mixformer import MixFormer, Tracked

Named: TypeAlias = dict[str, Tensor]
Arguments: TypeAlias = dict[str, Tensor | Named]

# Sizes that torch shall leave open must not be 1 where a program is traced.
_TRACED_ONLINE, _TRACED_SUPPORT = 2, 3
# So that a program needs torch alone. Those of windows are not in a tracker.
_PLAIN_OPERATORS = {
    torch.ops.stpn.support_attend.default: support_attend_reference,
    torch.ops.stpn.support_pool.default: support_pool_reference,
}


class EncodeTemplates(nn.Module):
    """`MixFormer.encode_templates`; of the last tokens, only those that the score looks at."""

    def __init__(self, backbone: MixedAttentionCvt) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(
        self, template: Float[Tensor, "1 3 T T"], online: Float[Tensor, "1 n 3 T T"]
    ) -> Named:
        """Return keys and values of every layer, and the tokens of the initial template."""
        encoded = self.backbone.encode_templates(torch.cat([template.unsqueeze(1), online], dim=1))
        named: Named = {}
        for layer, (keys, values) in enumerate(zip(encoded.keys, encoded.values, strict=True)):
            named |= {f"key_{layer}": keys, f"value_{layer}": values}  # (1, h, M, d)
        return named | {"initial_tokens": encoded.tokens[:, 0]}  # (1, N, C)


class TrackPlain(nn.Module):
    """A pass without prompts: what it finds, and its embedding for the prompts of later frames."""

    def __init__(self, network: MixFormer) -> None:
        super().__init__()
        self.network = network

    def forward(self, search: Float[Tensor, "1 3 S S"], templates: Named) -> Named:
        """Return box and score; of a network with a predictor also the embedding."""
        tracked = self.network.track(search, _encoded(templates))
        found = _found(tracked)
        if self.network.predictor is not None:
            found["embedding"] = self.network.embed_support(tracked.search_tokens)  # (1, n, d)
        return found


class PredictPrompts(nn.Module):
    """`MixFormer.predict_prompts`."""

    def __init__(self, predictor: PromptPredictor) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, embeddings: Float[Tensor, "1 K n d"]) -> Named:
        """Return the prompts of every prompted layer."""
        prompts = self.predictor.predict(embeddings)
        return {f"prompt_{layer}": tokens for layer, tokens in enumerate(prompts)}  # (1, P, D)


class TrackPrompted(nn.Module):
    """A pass with prompts."""

    def __init__(self, network: MixFormer) -> None:
        super().__init__()
        self.network = network

    def forward(self, search: Float[Tensor, "1 3 S S"], templates: Named, prompts: Named) -> Named:
        """Return box and score."""
        layers = [prompts[f"prompt_{layer}"] for layer in range(len(prompts))]
        return _found(self.network.track(search, _encoded(templates), layers))


def tracker_modules(network: MixFormer) -> dict[str, nn.Module]:
    """Return what becomes a graph, by its name, in the order of the first calls.

    Raises:
        ValueError: if the network is in training mode.
    """
    if network.training:
        raise ValueError("the network is in training mode: call eval() before it is exported")
    modules: dict[str, nn.Module] = {
        "encode_templates": EncodeTemplates(network.backbone),
        "track_plain": TrackPlain(network),
    }
    if network.predictor is not None:
        modules["predict_prompts"] = PredictPrompts(network.predictor)
        modules["track_prompted"] = TrackPrompted(network)
    return {name: module.eval() for name, module in modules.items()}


@torch.no_grad()
def draw_arguments(
    network: MixFormer,
    template_size: int,
    search_size: int,
    *,
    support_size: int | None = None,
    num_online: int = _TRACED_ONLINE,
    num_support: int = _TRACED_SUPPORT,
    seed: int = 0,
) -> dict[str, Arguments]:
    """Return arguments of every graph: random crops, and what the graphs before make of them.

    Args:
        network: takes them.
        template_size: rows and columns of a template.
        search_size: rows and columns of a search crop.
        support_size: of a crop that supports later frames, which is all that a network with a
            predictor sees without prompts; as of a search crop if not given.
        num_online: online templates.
        num_support: support frames K.
        seed: of the crops.
    """
    generator = torch.Generator().manual_seed(seed)
    template, *online = torch.randn(
        1 + num_online, 1, 3, template_size, template_size, generator=generator
    )
    search = torch.randn(1, 3, search_size, search_size, generator=generator)
    support_size = support_size or search_size
    support = torch.randn(num_support, 1, 3, support_size, support_size, generator=generator)
    modules = tracker_modules(network)
    arguments: dict[str, Arguments] = {
        "encode_templates": {"template": template, "online": torch.stack(online, dim=1)}
    }
    templates = modules["encode_templates"](**arguments["encode_templates"])
    seen = search if network.predictor is None else support[0]
    arguments["track_plain"] = {"search": seen, "templates": templates}
    if network.predictor is not None:
        found = [modules["track_plain"](crop, templates)["embedding"] for crop in support]
        embeddings = torch.stack(found, dim=1)  # (1, K, n, d)
        prompts = modules["predict_prompts"](embeddings)
        arguments["predict_prompts"] = {"embeddings": embeddings}
        arguments["track_prompted"] = {
            "search": search,
            "templates": templates,
            "prompts": prompts,
        }
    return arguments


@torch.no_grad()
def export_program(module: nn.Module, arguments: Arguments) -> ExportedProgram:
    """Export one of `tracker_modules` with any number of online templates and support frames.

    The program holds torch's own operators, so that a process needs torch alone to run it.

    Args:
        module: what to export.
        arguments: of it, from `draw_arguments`, which says what sizes to trace with.
    """
    shapes = {
        name: {inner: open_sizes(inner, tensor) for inner, tensor in value.items()}
        if isinstance(value, dict)
        else open_sizes(name, value)
        for name, value in arguments.items()
    }
    # By position, since torch cannot guard the sizes of arguments by name alone.
    positions = tuple(arguments.values())
    program: ExportedProgram = torch.export.export(module, positions, dynamic_shapes=shapes)
    if any(node.target in _PLAIN_OPERATORS for node in program.graph.nodes):
        program = program.run_decompositions(_PLAIN_OPERATORS)
    return program


def open_sizes(name: str, tensor: Tensor) -> dict[int, Any]:
    """Return which dimensions of a graph's tensor differ between calls, and their size.

    Args:
        name: of the tensor.
        tensor: as in `draw_arguments` with its default numbers.
    """
    if name == "online":
        return {1: Dim("online", min=1)}
    if name == "embeddings":
        return {1: Dim("support", min=1)}
    if name.startswith(("key_", "value_")):
        keys_of_one = tensor.shape[2] // (1 + _TRACED_ONLINE)
        return {2: keys_of_one * Dim("online", min=1) + keys_of_one}
    return {}


def flat(arguments: Mapping[str, Tensor | Named]) -> Named:
    """Return all tensors by their names, in the order in which graphs take or give them."""
    return dict(_pairs(arguments))


def _pairs(arguments: Mapping[str, Tensor | Named]) -> Iterator[tuple[str, Tensor]]:
    for name, value in arguments.items():
        if isinstance(value, dict):
            yield from value.items()
        else:
            yield name, value


def _encoded(templates: Named) -> EncodedTemplates:
    layers = range((len(templates) - 1) // 2)
    return EncodedTemplates(
        tuple(templates[f"key_{layer}"] for layer in layers),
        tuple(templates[f"value_{layer}"] for layer in layers),
        templates["initial_tokens"].unsqueeze(1),  # (1, 1, N, C)
    )


def _found(tracked: Tracked) -> Named:
    found: Named = {"box_cxcywh": tracked.boxes_cxcywh}  # (1, 4)
    if tracked.scores is not None:
        found["score"] = tracked.scores.sigmoid()  # (1,)
    return found
