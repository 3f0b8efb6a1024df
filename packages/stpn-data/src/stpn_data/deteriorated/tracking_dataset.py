"""Generated tracking sequences: one target among equal distractors, from a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from stpn_data.deteriorated.cache import (
    RenderedFiles,
    default_cache_dir,
    pack_kinds,
    unpack_kinds,
)
from stpn_data.deteriorated.dataset import available_cores
from stpn_data.deteriorated.options import SPLITS, Split
from stpn_data.deteriorated.tracking_options import ATTRIBUTES, TrackingOptions
from stpn_data.deteriorated.tracking_render import TrackingAnnotations, render_sequence
from stpn_data.sequences import TrackingSequence, check_frame


@dataclass(frozen=True)
class SequenceStore(RenderedFiles[TrackingAnnotations]):
    """Keep the sequences of `DeterioratedTracking`."""

    options: TrackingOptions

    data_name = "deteriorated-tracking"

    def _rendered(self, index: int) -> tuple[NDArray[np.uint8], TrackingAnnotations]:
        sequence = render_sequence(self.options, self.seed, self.split, index)
        return sequence.frames, sequence.annotations

    def _to_arrays(self, annotations: TrackingAnnotations) -> dict[str, NDArray[np.generic]]:
        attribute = ATTRIBUTES.index(annotations.attribute)
        return {
            "numbers": np.array([annotations.target, annotations.decoy, attribute], np.int64),
            "kinds": pack_kinds(annotations.kinds),
            "new_look": annotations.new_look,
            "boxes_xyxy": annotations.boxes_xyxy,
        }

    def _from_arrays(self, arrays: dict[str, NDArray[np.generic]]) -> TrackingAnnotations:
        target, decoy, attribute = cast(list[int], arrays["numbers"].tolist())
        return TrackingAnnotations(
            target=target,
            decoy=decoy,
            attribute=ATTRIBUTES[attribute],
            kinds=unpack_kinds(arrays["kinds"]),
            new_look=arrays["new_look"].astype(np.float64),
            boxes_xyxy=arrays["boxes_xyxy"].astype(np.float64),
        )


class DeterioratedTracking:
    """Offer generated sequences as a `TrackingDataset`; nothing is downloaded.

    `TrackingOptions` says what they show. They are rendered once and kept in a cache folder, whose
    name in `cache_dir` follows from the options, the seed and the version of the renderer.
    Sequence `i` of a split is the same whatever `num_sequences` is, and none is in two splits.

    Args:
        cache_dir: where rendered sequences are kept (62 kB a frame at the default size, about
            3.4 GB for 1500 sequences); None for `$XDG_CACHE_HOME/stpn` or `~/.cache/stpn`.
        split: "train", "val" or "test".
        num_sequences: number of sequences.
        options: what the sequences show.
        seed: seed of all splits.
        num_workers: processes to render in; None for one per available core, 0 for this process.
            As with every use of `multiprocessing`, a script needs ``if __name__ == "__main__"``
            where processes are not forked.
        progress: show a progress bar while rendering.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        cache_dir: Path | str | None = None,
        *,
        split: Split = "train",
        num_sequences: int = 1500,
        options: TrackingOptions | None = None,
        seed: int = 0,
        num_workers: int | None = None,
        progress: bool = True,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
        if num_sequences < 1 or seed < 0:
            raise ValueError(
                "need num_sequences >= 1 and seed >= 0, got "
                f"num_sequences={num_sequences}, seed={seed}"
            )
        self.options = TrackingOptions() if options is None else options
        root = default_cache_dir() if cache_dir is None else Path(cache_dir)
        self.store = SequenceStore(root, self.options, seed, split)
        workers = available_cores() if num_workers is None else num_workers
        self.store.render_missing(num_sequences, num_workers=workers, progress=progress)
        self._annotations = [
            self.store.annotations(i, with_frames=False) for i in range(num_sequences)
        ]
        self._sequences = [
            _sequence(f"{split}-{i:06d}", self.options.size, one)
            for i, one in enumerate(self._annotations)
        ]
        self._verified: set[int] = set()

    @property
    def sequences(self) -> Sequence[TrackingSequence]:
        """All sequences, in a fixed order; the target is visible in the first frame of each.

        Where it is not in view, it has no box, and the frame is not counted.
        """
        return self._sequences

    def frame(self, sequence: int, index: int) -> NDArray[np.uint8]:
        """Read a frame, (H, W, 3) RGB uint8.

        Raises:
            IndexError: no such sequence or frame.
        """
        check_frame(self.sequences, sequence, index)
        if sequence not in self._verified:
            self.store.annotations(sequence)  # renders damaged frames again
            self._verified.add(sequence)
        return self.store.frame(sequence, index)

    def frames(self, sequence: int) -> Iterator[NDArray[np.uint8]]:
        """Read all frames of a sequence in their order.

        Raises:
            IndexError: no such sequence.
        """
        for index in range(self.annotations(sequence).boxes_xyxy.shape[0]):
            yield self.frame(sequence, index)

    def conditions(self, sequence: int, index: int) -> frozenset[str]:
        """Name what is special about a frame.

        "clean", or "deteriorated" and the kind; "first_look", "changing_look" or "new_look" of
        the target; "differ_in_colors" or "differ_in_period" after what the objects differ in.

        Raises:
            IndexError: no such sequence or frame.
        """
        check_frame(self.sequences, sequence, index)
        return self._annotations[sequence].conditions(index)

    def annotations(self, sequence: int) -> TrackingAnnotations:
        """Return what is known of a sequence, the boxes of the distractors too.

        Raises:
            IndexError: no such sequence.
        """
        check_frame(self.sequences, sequence, 0)
        return self._annotations[sequence]


def _sequence(
    name: str, size: tuple[int, int], annotations: TrackingAnnotations
) -> TrackingSequence:
    boxes = annotations.boxes_xyxy[:, annotations.target].copy()  # (T, 4)
    boxes[:, 2:] -= boxes[:, :2]
    visible = ~np.isnan(boxes[:, 0])
    return TrackingSequence(name, size, boxes, visible, visible)
