"""What generated tracking sequences look like: the one place of all that makes them hard."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from stpn_data.deteriorated.options import (
    KINDS,
    TEXTURES,
    Kind,
    RenderOptions,
    Texture,
    check_names,
    check_range,
)

Attribute = Literal["colors", "period"]
ATTRIBUTES: tuple[Attribute, ...] = get_args(Attribute)

# Raised whenever the same options render other pixels or annotations, so that caches are renewed.
TRACKING_VERSION = 2


@dataclass(frozen=True)
class TrackingOptions:
    """Choose what generated tracking sequences show, and how hard they are.

    The objects of a sequence, the target and its distractors, have the same outline, size, class
    (texture) and turn. They differ in one attribute: the pair of colours that the texture
    alternates between, or its period. Nothing but that attribute tells which of them is the target.
    Blur takes the texture away and leaves the mean colour, which is another one by `tint`; with
    none, networks of this size learned nothing of identity in minutes. Over the sequence the target
    changes its look wholly, and one of the distractors takes the one that the target had at first,
    so that the first template misleads in the end.

    How much that asks for identity is measured by `benchmarks/tracking_identity.py`. A later
    change or less strength make the first template better than that of another sequence; an
    earlier change makes a recent template better than the first one.

    Attributes:
        size: (height, width) of a frame in pixels.
        num_frames: fewest and most frames T of a sequence.
        textures: to choose one from for each sequence.
        num_distractors: fewest and most of a sequence.
        object_size: range of the object sizes in pixels; the size is the square root of the area.
        attributes: to choose one from for each sequence.
        contrast: half the distance in RGB between the two colours of an object, in grey levels.
        tint: how far the mean colour of an object lies from the one that all would have, in
            `contrast` towards one of its colours. At 0 nothing but the texture tells objects apart.
        periods: shortest and longest period in pixels where objects differ in it; they are spaced
            geometrically. Where they do not, all have one between the two, nearer to the shortest.
        change_start: when the target begins to change its look, as a share of the sequence.
        change_frames: fewest and most frames that the change takes; fewer where it would not end
            with the sequence.
        jumps: probability per frame that all objects are dealt to new places, as at a low frame
            rate; the target may stay.
        swaps: probability per frame, where there is no jump, that the target and a distractor
            exchange their places, if the one that is drawn is within reach.
        crossing: share of the swaps in which both walk and one passes before the other; the
            others take place between two frames.
        reach: how far the target jumps or swaps at most, in pixels along each axis, so that it
            stays in what a tracker searches: at the default in twice its size around it.
        leaving: probability for each object to leave the frame once and to enter it again. The
            target is then not visible for some frames.
        wander: how far objects go about their places, in pixels.
        shake: how far the camera shakes from frame to frame, in pixels.
        kinds: the deteriorations to choose from, one for each run of frames.
        strength: of all deteriorations; at 1 nothing is left of textures. Lower, the look is
            ambiguous, which is where knowing what to look for helps.
        deteriorated: share of deteriorated frames, in runs of two to five; at least a quarter is
            clean, and so is the first frame, which a tracker is given.
    """

    size: tuple[int, int] = (144, 144)
    num_frames: tuple[int, int] = (24, 48)
    textures: tuple[Texture, ...] = ("horizontal", "vertical", "checks", "dots", "zigzag")
    num_distractors: tuple[int, int] = (4, 6)
    object_size: tuple[float, float] = (22.0, 28.0)
    attributes: tuple[Attribute, ...] = ("colors",)
    contrast: float = 60.0
    tint: float = 0.6
    periods: tuple[float, float] = (4.0, 14.0)
    change_start: tuple[float, float] = (0.35, 0.55)
    change_frames: tuple[int, int] = (3, 8)
    jumps: float = 0.7
    swaps: float = 0.6
    crossing: float = 0.25
    reach: float = 50.0
    leaving: float = 0.0
    wander: float = 4.0
    shake: float = 5.0
    kinds: tuple[Kind, ...] = KINDS
    strength: float = 0.7
    deteriorated: float = 0.45

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: a value out of its range, named with the range.
        """
        check_names("textures", self.textures, TEXTURES, at_least=1)
        check_names("attributes", self.attributes, ATTRIBUTES, at_least=1)
        check_range("num_distractors", self.num_distractors, 1, 14, ascending=True)
        check_range("contrast", (self.contrast,), 1, 127)
        check_range("tint", (self.tint,), 0, 1)
        check_range("periods", self.periods, 3, 64, ascending=True)
        check_range("change_start", self.change_start, 0, 1, ascending=True)
        check_range("change_frames", self.change_frames, 1, 1000, ascending=True)
        for field in ("jumps", "swaps", "crossing", "leaving"):
            check_range(field, (getattr(self, field),), 0, 1)
        for field in ("wander", "shake"):
            check_range(field, (getattr(self, field),), 0, min(self.size) / 4)
        check_range("reach", (self.reach,), 0, max(self.size))
        # A walk out of the frame and in again takes a dozen frames, and the first one shows all.
        check_range("num_frames", self.num_frames, 16, 10_000, ascending=True)
        self.of_frames(self.num_frames[0])  # checks the fields that are common

    def of_frames(self, num_frames: int) -> RenderOptions:
        """Return the options that generated video has too, for a sequence of so many frames."""
        return RenderOptions(
            size=self.size,
            num_frames=num_frames,
            classes=self.textures,
            object_size=self.object_size,
            kinds=self.kinds,
            strength=self.strength,
            deteriorated=self.deteriorated,
        )

    def fingerprint(self, seed: int) -> str:
        """Return a short name for the sequences of these options, a seed and this renderer."""
        text = json.dumps([TRACKING_VERSION, seed, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
