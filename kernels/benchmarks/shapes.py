"""The sizes that are timed: stages of Swin, support frames, and what one call of each must cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from stpn_kernels.cost import Cost
from stpn_kernels.prompted_window_attention import cost as window_attention
from stpn_kernels.support_attend import cost as attend
from stpn_kernels.support_pool import cost as pool

WINDOW, PROMPTS, SUPPORT_FRAMES, PATCH = 7, 7, 14, 4
IMAGES = ((600, 1000), (384, 640))
BATCHES = (1, 8, 32)
# Width and heads of the first stage; both double from stage to stage.
MODELS = {"Swin-T": (96, 3), "Swin-B": (128, 4)}


@dataclass(frozen=True)
class WindowShape:
    """A call of the window attention of one Swin layer: batch B, map H x W, P prompts, h heads."""

    name: str
    batch: int
    height: int
    width: int
    heads: int
    head_width: int = 32
    shift: int = WINDOW // 2
    prompts: int = PROMPTS

    def __str__(self) -> str:
        return f"{self.name}, batch {self.batch}, shift {self.shift}"

    @property
    def channels(self) -> int:
        return self.heads * self.head_width

    @property
    def num_windows(self) -> int:
        return -(-self.height // WINDOW) * -(-self.width // WINDOW)

    @property
    def rows(self) -> int:
        """Rows of the sequences of all images."""
        return self.batch * (self.prompts + self.height * self.width)

    def costs(self, element_size: int) -> dict[str, Cost]:
        """Return what the operator must cost, from the projected sequence to its output."""
        size = {
            "images": self.batch,
            "height": self.height,
            "width": self.width,
            "window_size": WINDOW,
            "num_prompts": self.prompts,
            "heads": self.heads,
            "head_width": self.head_width,
            "element_size": element_size,
        }
        return _both(window_attention.forward_cost(**size), window_attention.backward_cost(**size))

    def layer_costs(self, element_size: int) -> dict[str, Cost]:
        """Return what the layer must cost, with both projections.

        Forward: the sequence in, the sequence out, weights. Backward: the saved sequence (C), its
        projection (3 C) and attention (C) and a gradient (C) in, a gradient (C) out; weights in,
        their gradients out.
        """
        operator = self.costs(element_size)
        C = self.channels
        weights, sequence = 4 * C * C, self.rows * C
        forward = Cost(
            element_size * (2 * sequence + weights),
            operator["forward"].flops + 8 * C * sequence,
        )
        backward = Cost(
            element_size * (7 * sequence + 2 * weights),
            operator["backward"].flops + 16 * C * sequence,
        )
        return _both(forward, backward)


@dataclass(frozen=True)
class PoolShape:
    """A call of `support_pool`: B clips of K support frames of N tokens."""

    name: str
    clips: int
    tokens: int
    channels: int
    support_frames: int = SUPPORT_FRAMES

    def __str__(self) -> str:
        return f"{self.name}, batch {self.clips}"

    def costs(self, element_size: int) -> dict[str, Cost]:
        size = _sizes(self, element_size)
        return _both(pool.forward_cost(**size), pool.backward_cost(**size))


@dataclass(frozen=True)
class AttendShape:
    """A call of `support_attend`: P queries of h heads, B clips of K support frames of N tokens."""

    name: str
    clips: int
    tokens: int
    channels: int
    support_frames: int = SUPPORT_FRAMES
    num_prompts: int = PROMPTS
    heads: int = 8

    def __str__(self) -> str:
        return f"{self.name}, batch {self.clips}"

    def costs(self, element_size: int) -> dict[str, Cost]:
        size = _sizes(self, element_size)
        return _both(attend.forward_cost(**size), attend.backward_cost(**size))

    def layer_costs(self, element_size: int) -> dict[str, Cost]:
        """Return what the operator must cost with the key projection before it, the value's after.

        Both are (D, D), the same for all clips; queries and results are h times as narrow as the
        operator's.
        """
        D, P, B = self.channels, self.num_prompts, self.clips
        operator = self.costs(element_size)
        frames = B * self.support_frames * self.tokens * D
        forward = Cost(
            element_size * (frames + 2 * D * D + (1 + B) * P * D),
            operator["forward"].flops + 2 * (1 + B) * P * D * D,
        )
        backward = Cost(
            element_size * (2 * frames + 4 * D * D + (2 + B) * P * D),
            operator["backward"].flops + 4 * (1 + B) * P * D * D,
        )
        return _both(forward, backward)


def window_shapes(device_type: str, quick: bool) -> list[WindowShape]:
    """Return the stages of Swin-T and Swin-B on a GPU; on a CPU Swin-T's, and a small detector's.

    Every other layer of a stage shifts its windows. Those are timed, as the slower half; the others
    are timed on Swin-T at 600x1000 only.
    """
    if quick:
        if device_type == "cuda":
            return _stages("Swin-T", IMAGES[0], batch=1)[::3]
        return _stages("Swin-T", IMAGES[1], batch=1)[2:]
    if device_type == "cuda":
        return [
            shape
            for model in MODELS
            for image in IMAGES
            for batch in BATCHES
            for shift in ((WINDOW // 2, 0) if (model, image) == ("Swin-T", IMAGES[0]) else (3,))
            for shape in _stages(model, image, batch, shift)
        ]
    stages = [shape for image in IMAGES for shape in _stages("Swin-T", image, batch=1)]
    unshifted = _stages("Swin-T", IMAGES[0], batch=1, shift=0)[2:3]
    small = [
        WindowShape(f"training 112, stage {stage}", 16, size, size, heads, head_width=16)
        for stage, size, heads in ((1, 28, 2), (3, 7, 8))
    ]
    return small + stages[::-1] + unshifted


def pool_shapes(device_type: str, quick: bool) -> list[PoolShape]:
    """Return the mixer's grid, and the last stage of both models on both image sizes."""
    sizes = [("mixer's 7x7 grid", 49, 768), ("mixer's 7x7 grid, wide", 49, 1024)]
    for model, (channels, _) in MODELS.items():
        for image in IMAGES:
            height, width = _map(image, stage=4)
            sizes.append((f"{model} {image[0]}x{image[1]}", height * width, 8 * channels))
    if quick or device_type == "cpu":
        sizes = sizes[:1] if quick else sizes[:3]
    return [
        PoolShape(name, clips, tokens, channels)
        for name, tokens, channels in sizes
        for clips in (BATCHES if device_type == "cuda" and not quick else BATCHES[:1])
    ]


def attend_shapes(device_type: str, quick: bool) -> list[AttendShape]:
    """Return the reduced last stage of both models on both image sizes."""
    sizes = []
    for model, (channels, _) in MODELS.items():
        for image in IMAGES:
            height, width = _map(image, stage=4)
            sizes.append((f"{model} {image[0]}x{image[1]}", height * width, channels))
    if quick or device_type == "cpu":
        sizes = sizes[1:2] if quick else sizes[:2]
    return [
        AttendShape(name, clips, tokens, channels)
        for name, tokens, channels in sizes
        for clips in (BATCHES if device_type == "cuda" and not quick else BATCHES[:1])
    ]


def _stages(
    model: str, image: tuple[int, int], batch: int, shift: int = WINDOW // 2
) -> list[WindowShape]:
    heads = MODELS[model][1]
    return [
        WindowShape(
            f"{model} {image[0]}x{image[1]} stage {stage}",
            batch,
            *_map(image, stage),
            heads=heads * 2 ** (stage - 1),
            shift=shift,
        )
        for stage in (1, 2, 3, 4)
    ]


def _map(image: tuple[int, int], stage: int) -> tuple[int, int]:
    """Return rows and columns of the map of a stage: halves are rounded up."""
    height, width = (-(-size // (PATCH * 2 ** (stage - 1))) for size in image)
    return height, width


def _sizes(shape: PoolShape | AttendShape, element_size: int) -> dict[str, int]:
    size = {**asdict(shape), "element_size": element_size}
    del size["name"]
    return size


def _both(forward: Cost, backward: Cost) -> dict[str, Cost]:
    return {"forward": forward, "backward": backward, "both": forward + backward}
