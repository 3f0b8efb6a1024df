"""What a generated data set looks like: every choice has a name, a default and a check."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal, get_args

Kind = Literal["motion_blur", "defocus", "occlusion", "low_light", "low_resolution"]
Texture = Literal[
    "horizontal", "vertical", "checks", "dots", "rings", "zigzag", "spokes", "speckle"
]
Split = Literal["train", "val", "test"]

KINDS: tuple[Kind, ...] = get_args(Kind)
TEXTURES: tuple[Texture, ...] = get_args(Texture)
SPLITS: tuple[Split, ...] = get_args(Split)

# Raised whenever the same options render other pixels or annotations, so that caches are renewed.
RENDERER_VERSION = 1


@dataclass(frozen=True)
class RenderOptions:
    """Choose what the renderer draws.

    A clip shows a few objects that move over a smooth background. The class of an object is the
    texture on it: its shape, colour, size and path say nothing about the class. In deteriorated
    frames the texture is erased while the place of the object stays visible.

    Attributes:
        size: (height, width) of a frame in pixels. At the default a Swin with stride 4, window 7
            and three stages has maps of 28, 14 and 7 tokens a side: nothing is padded.
        num_frames: T, frames of a clip.
        classes: textures to draw, in the order of the labels.
        num_objects: fewest and most objects of a clip.
        object_size: range of the object sizes in pixels; the size is the square root of the area.
        speed: range of the clips' speeds in pixels per frame, drawn so that at the default about
            a third of the objects are slow, medium and fast by the motion IoU of `motion.py`.
        same_class: probability that all objects of a clip have one class. Otherwise their
            classes differ. At the default of 1 one word, the class, says everything that
            neighbouring frames can add; with different classes prompts must also bind
            each class to its object, which is harder.
        kinds: the deteriorations to choose from, one for each run of frames.
        strength: of all deteriorations; at 1 textures are gone, near 0 hardly anything changes.
        deteriorated: share of deteriorated frames. They come in runs of two to five, and at least
            a quarter of every clip is clean.
        deterioration_follows_speed: let the share grow linearly with the speed rank of a clip,
            from none for the slowest to twice `deteriorated` for the fastest (but see the quarter).
    """

    size: tuple[int, int] = (112, 112)
    num_frames: int = 16
    classes: tuple[Texture, ...] = TEXTURES[:6]
    num_objects: tuple[int, int] = (1, 2)
    object_size: tuple[float, float] = (24.0, 40.0)
    speed: tuple[float, float] = (0.1, 3.0)
    same_class: float = 1.0
    kinds: tuple[Kind, ...] = KINDS
    strength: float = 1.0
    deteriorated: float = 0.45
    deterioration_follows_speed: bool = False

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: a value out of its range, named with the range.
        """
        check_names("classes", self.classes, TEXTURES, at_least=1)
        check_names("kinds", self.kinds, KINDS, at_least=1)
        check_range("size", self.size, 32, 4096)
        check_range("num_frames", (self.num_frames,), 1, 10_000)
        check_range("num_objects", self.num_objects, 1, 16, ascending=True)
        # An object turns and breathes, and needs some room to move in.
        largest = min(self.size) / 2
        check_range("object_size", self.object_size, 8, largest, ascending=True)
        check_range("speed", self.speed, 0, min(self.size) / 4, ascending=True)
        check_range("same_class", (self.same_class,), 0, 1)
        check_range("strength", (self.strength,), 0, 1.5)
        check_range("deteriorated", (self.deteriorated,), 0, 0.75)
        if self.strength == 0 and self.deteriorated > 0:
            raise ValueError("strength is 0: ask for no deteriorated frames with deteriorated=0")

    def fingerprint(self, seed: int) -> str:
        """Return a short name for the clips of these options, a seed and this renderer."""
        text = json.dumps([RENDERER_VERSION, seed, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_names(
    field: str, names: tuple[str, ...], known: tuple[str, ...], *, at_least: int
) -> None:
    """Raise ValueError unless all names are known, different, and enough."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"{field}: {unknown} not among {list(known)}")
    if len(set(names)) != len(names) or len(names) < at_least:
        raise ValueError(f"{field} must be {at_least} or more different names, got {names}")


def check_range(
    field: str,
    values: tuple[float, ...],
    low: float,
    high: float,
    *,
    ascending: bool = False,
) -> None:
    """Raise ValueError unless all values lie in [low, high], in order if `ascending`."""
    if not all(low <= value <= high for value in values):  # also refuses NaN
        raise ValueError(f"{field} must lie in [{low:g}, {high:g}], got {values}")
    if ascending and values[0] > values[1]:
        raise ValueError(f"{field} must be (least, most), got {values}")
