"""Rendered clips on disk: each is rendered once, verified when first read, and repaired."""

from __future__ import annotations

import json
import os
import uuid
import warnings
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, ClassVar, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from stpn_data.deteriorated.annotations import Annotations
from stpn_data.deteriorated.options import KINDS, Kind, RenderOptions, Split
from stpn_data.deteriorated.render import render_clip
from stpn_data.deteriorated.tracking_options import TrackingOptions

_CLIPS_PER_TASK = 8
_DAMAGE = (OSError, ValueError, KeyError, EOFError, IndexError, zipfile.BadZipFile, zlib.error)
_CLEAN = -1

A = TypeVar("A")


def default_cache_dir() -> Path:
    """Return the user's cache folder for this project: `$XDG_CACHE_HOME/stpn`, `~/.cache/stpn`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "stpn"


@dataclass(frozen=True)
class RenderedFiles(ABC, Generic[A]):
    """Keep the clips of one split as `NNNNNN.npy` (frames) and `NNNNNN.npz` (annotations).

    What a clip is and how its annotations become arrays is left to `ClipStore` and
    `SequenceStore`.

    Several processes may use one folder: files appear whole or not at all, and all processes
    write the same.

    Attributes:
        cache_dir: folder of all data sets; this one has a folder in it, named after the options.
        options: what the clips show.
        seed: seed of the data set.
        split: split of the data set.
        data_name: name of the data set's folder in `cache_dir`.
    """

    cache_dir: Path
    options: RenderOptions | TrackingOptions
    seed: int
    split: Split

    data_name: ClassVar[str]

    @abstractmethod
    def _rendered(self, index: int) -> tuple[NDArray[np.uint8], A]:
        """Render the frames of a clip, (T, H, W, 3), and its annotations."""

    @abstractmethod
    def _to_arrays(self, annotations: A) -> dict[str, NDArray[np.generic]]:
        """Take annotations apart."""

    @abstractmethod
    def _from_arrays(self, arrays: dict[str, NDArray[np.generic]]) -> A:
        """Put annotations together."""

    @property
    def folder(self) -> Path:
        """Folder of the clips."""
        return self.cache_dir / self.data_name / self.options.fingerprint(self.seed) / self.split

    def frames_path(self, index: int) -> Path:
        """Return the file of the frames of a clip, (T, H, W, 3) RGB uint8."""
        return self.folder / f"{index:06d}.npy"

    def annotations_path(self, index: int) -> Path:
        """Return the file of the annotations of a clip."""
        return self.folder / f"{index:06d}.npz"

    def render_missing(self, num_clips: int, *, num_workers: int, progress: bool) -> None:
        """Render the clips 0 .. num_clips - 1 that are not there yet.

        Args:
            num_clips: how many clips there shall be.
            num_workers: processes to render in; 0 or 1 for this one.
            progress: show a progress bar if there is anything to render.
        """
        there = {path.name for path in self.folder.glob("*.np[yz]")}
        missing = [i for i in range(num_clips) if not {f"{i:06d}.npy", f"{i:06d}.npz"} <= there]
        if not missing:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"seed": self.seed, "options": asdict(self.options)}, indent=2)
        write_atomically(self.folder.parent / "options.json", lambda f: f.write(text.encode()))
        bar = partial(
            tqdm,
            total=len(missing),
            desc=f"rendering {self.split} clips",
            unit="clip",
            mininterval=0.5,
            disable=not progress,
        )
        if num_workers <= 1 or len(missing) <= _CLIPS_PER_TASK:
            _exhaust(bar(map(self.render, missing)))
            return
        with ProcessPoolExecutor(num_workers) as pool:
            _exhaust(bar(pool.map(self.render, missing, chunksize=_CLIPS_PER_TASK)))

    def render(self, index: int) -> None:
        """Render a clip and write its files; annotations last, they vouch for the frames."""
        pixels, annotations = self._rendered(index)
        buffer = BytesIO()
        np.save(buffer, pixels)
        frames = buffer.getbuffer()
        arrays = self._to_arrays(annotations)
        arrays["checksum"] = np.array(zlib.crc32(frames), np.uint32)
        write_atomically(self.frames_path(index), lambda f: f.write(frames))
        write_atomically(
            self.annotations_path(index),
            lambda f: np.savez_compressed(f, allow_pickle=False, **arrays),
        )

    def annotations(self, index: int, *, with_frames: bool = True) -> A:
        """Read the annotations of a clip and verify its frames; render it again if damaged.

        Args:
            index: number of the clip.
            with_frames: verify the frames too, which reads all of them.

        Warns:
            UserWarning: a file of the clip is damaged; it names the file and the damage.
        """
        try:
            return self._verified(index, with_frames)
        except _DAMAGE as damage:
            warnings.warn(
                f"{self.annotations_path(index)} or its frames are damaged ({damage}): "
                f"rendering clip {index} again",
                stacklevel=2,
            )
        self.render(index)
        return self._verified(index, with_frames)

    def frame(self, index: int, frame: int) -> NDArray[np.uint8]:
        """Read one frame of a clip, (H, W, 3)."""
        frames = np.load(self.frames_path(index), mmap_mode="r")
        return np.array(frames[frame])

    def _verified(self, index: int, with_frames: bool) -> A:
        with np.load(self.annotations_path(index), allow_pickle=False) as arrays:
            checksum = int(arrays["checksum"])
            annotations = self._from_arrays({name: arrays[name] for name in arrays})
        if with_frames and zlib.crc32(self.frames_path(index).read_bytes()) != checksum:
            raise ValueError(f"{self.frames_path(index).name} has another checksum")
        return annotations


@dataclass(frozen=True)
class ClipStore(RenderedFiles[Annotations]):
    """Keep the clips of `DeterioratedVideo`."""

    options: RenderOptions

    data_name = "deteriorated"

    def _rendered(self, index: int) -> tuple[NDArray[np.uint8], Annotations]:
        clip = render_clip(self.options, self.seed, self.split, index)
        return clip.frames, clip.annotations

    def _to_arrays(self, annotations: Annotations) -> dict[str, NDArray[np.generic]]:
        return {
            "kinds": pack_kinds(annotations.kinds),
            "frames": annotations.frames,
            "track_ids": annotations.track_ids,
            "labels": annotations.labels,
            "boxes_xyxy": annotations.boxes_xyxy,
            "packed_masks": annotations.packed_masks,
            "motion": annotations.motion,
        }

    def _from_arrays(self, arrays: dict[str, NDArray[np.generic]]) -> Annotations:
        return Annotations(
            size=self.options.size,
            kinds=unpack_kinds(arrays["kinds"]),
            frames=arrays["frames"].astype(np.int64),
            track_ids=arrays["track_ids"].astype(np.int64),
            labels=arrays["labels"].astype(np.int64),
            boxes_xyxy=arrays["boxes_xyxy"].astype(np.float32),
            packed_masks=arrays["packed_masks"].astype(np.uint8),
            motion=arrays["motion"].astype(np.float64),
        )


def pack_kinds(kinds: tuple[Kind | None, ...]) -> NDArray[np.int8]:
    """Number the deteriorations of frames, (T,); clean ones have -1."""
    return np.array([_CLEAN if kind is None else KINDS.index(kind) for kind in kinds], np.int8)


def unpack_kinds(numbers: NDArray[np.generic]) -> tuple[Kind | None, ...]:
    """Name the deteriorations of frames again."""
    kinds = cast(list[int], numbers.tolist())
    return tuple(None if kind == _CLEAN else KINDS[kind] for kind in kinds)


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside its place and move it there, so that nobody sees half of it."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            write(file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _exhaust(items: Iterable[object]) -> None:
    for _ in items:
        pass
