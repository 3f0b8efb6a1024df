"""What a reader of one format of annotated videos offers, whatever its files look like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from stpn_data.annotations import AnnotatedBox
from stpn_data.videos import Video


class Layout(Protocol):
    """Tell where the frames of some videos are, and what is annotated in each."""

    @property
    def videos(self) -> Sequence[Video]:
        """All videos, in a fixed order."""
        ...

    def image_path(self, video: int, index: int) -> Path:
        """Name the file of a frame."""
        ...

    def image_size(self, video: int, index: int) -> tuple[int, int]:
        """Return the (height, width) that the annotations give a frame."""
        ...

    def boxes(self, video: int, index: int) -> list[AnnotatedBox]:
        """Return the objects of a frame, before any check."""
        ...
