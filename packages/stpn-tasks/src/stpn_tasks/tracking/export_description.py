"""What ``tracker.json`` says of exported graphs: all that a deployment has to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from stpn_data.batch import IMAGE_MEAN, IMAGE_STD
from stpn_tasks.tracking.graphs import Arguments, Named, flat, open_sizes
from stpn_tasks.tracking.mixformer import MixFormer
from stpn_tasks.tracking.options import SupportCrop, TrackerOptions

# When `OnlineTracker` calls which graph; within a frame in this order.
_RENEWED = ("encode_templates", "an online template was added or replaced; after all else")
_CALLS = {
    "first_frame": (
        ("encode_templates", "always: the initial template, which is the only online one too"),
        ("track_plain", "always: the support crop around the given box supports later frames"),
    ),
    "later_frames": (
        ("predict_prompts", "the support frames are not those of the frame before"),
        ("track_prompted", "always"),
        ("track_plain", "multiples of the stride support later frames: {crop}"),
        _RENEWED,
    ),
}
_SUPPORT_CROPS: dict[SupportCrop, str] = {
    "searched": "the same search crop",
    "target": "a support crop around the box that was found, clipped",
}
_CALLS_PLAIN = {
    "first_frame": _CALLS["first_frame"][:1],
    "later_frames": (("track_plain", "always"), _RENEWED),
}


def describe(
    network: MixFormer,
    options: TrackerOptions,
    files: Mapping[str, str],
    arguments: Mapping[str, Arguments],
    outputs: Mapping[str, Named],
) -> dict[str, Any]:
    """Return what ``tracker.json`` says.

    Args:
        network: what the graphs are of.
        options: how a tracker uses them.
        files: of the graphs, by their names.
        arguments: of each graph, from `draw_arguments` with its default numbers.
        outputs: of each graph.
    """
    described: dict[str, Any] = asdict(options)
    if network.predictor is None:
        described |= {"support": None, "support_crop": None}
    else:
        described |= {
            "support_size": options.support_size,
            "support_factor": options.support_factor,
        }
    crop = _SUPPORT_CROPS[options.support_crop]
    return {
        "graphs": {
            name: {
                "file": file,
                "inputs": [_describe_tensor(*pair) for pair in flat(arguments[name]).items()],
                "outputs": [_describe_tensor(*pair) for pair in outputs[name].items()],
            }
            for name, file in files.items()
        },
        "calls": {
            frames: [{"graph": graph, "when": when.format(crop=crop)} for graph, when in calls]
            for frames, calls in (_CALLS if network.predictor else _CALLS_PLAIN).items()
        },
        "normalisation": {
            "channels": "RGB",
            "divisor": 255,
            "mean": list(IMAGE_MEAN),
            "std": list(IMAGE_STD),
        },
        "options": described,
        "num_prompts": network.predictor.num_prompts if network.predictor else 0,
    }


def _describe_tensor(name: str, tensor: Tensor) -> dict[str, Any]:
    """Return name, shape and dtype; sizes that differ between calls are named, as in a formula."""
    sizes = open_sizes(name, tensor)
    shape = [sizes[d].__name__ if d in sizes else size for d, size in enumerate(tensor.shape)]
    return {"name": name, "shape": shape, "dtype": str(tensor.dtype).removeprefix("torch.")}
