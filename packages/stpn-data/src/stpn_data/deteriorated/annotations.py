"""The annotations of a clip, made from its geometry alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpn_data.deteriorated.deterioration import Deterioration
from stpn_data.deteriorated.motion import motion_iou, speed_of
from stpn_data.deteriorated.options import Kind, RenderOptions
from stpn_data.deteriorated.scene import Scene
from stpn_data.videos import FrameObjects


@dataclass(frozen=True)
class Annotations:
    """Hold the objects of a clip, one row for each object in each frame in which it is seen.

    Attributes:
        size: (H, W) of the frames.
        kinds: (T,) deterioration of each frame, None for clean ones.
        frames: (n,) int64, ascending.
        track_ids: (n,) int64, ascending within a frame.
        labels: (n,) int64.
        boxes_xyxy: (n, 4) float32, the tightest around the masks; right and bottom exclusive.
        packed_masks: (n, ceil(H W / 8)) uint8, bits of the masks as `numpy.packbits` packs them.
        motion: (n,) float64, motion IoU.
    """

    size: tuple[int, int]
    kinds: tuple[Kind | None, ...]
    frames: NDArray[np.int64]
    track_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes_xyxy: NDArray[np.float32]
    packed_masks: NDArray[np.uint8]
    motion: NDArray[np.float64]

    def objects(self, frame: int) -> FrameObjects:
        """Return the objects that are seen in a frame."""
        rows = self._rows(frame)
        height, width = self.size
        masks = np.unpackbits(self.packed_masks[rows], axis=1, count=height * width)
        return FrameObjects(
            boxes_xyxy=self.boxes_xyxy[rows],
            labels=self.labels[rows],
            track_ids=self.track_ids[rows],
            is_crowd=np.zeros(rows.stop - rows.start, np.bool_),
            masks=masks.reshape(-1, height, width).view(np.bool_),
        )

    def conditions(self, frame: int) -> frozenset[str]:
        """Name what is special about a frame.

        "clean", or "deteriorated" and the kind; "slow", "medium" or "fast" by the mean motion IoU
        of its objects, if there are any; "mixed_class" if the objects of the clip differ in class,
        else "same_class".
        """
        kind = self.kinds[frame]
        names: set[str] = {"clean"} if kind is None else {"deteriorated", kind}
        motion = self.motion[self._rows(frame)]
        if len(motion):
            names.add(speed_of(float(motion.mean())))
        names.add("mixed_class" if len(set(self.labels.tolist())) > 1 else "same_class")
        return frozenset(names)

    def _rows(self, frame: int) -> slice:
        first, last = np.searchsorted(self.frames, [frame, frame + 1])
        return slice(int(first), int(last))


def annotate(
    scene: Scene, schedule: list[Deterioration | None], options: RenderOptions
) -> Annotations:
    """Make the annotations of a clip; equal on all machines."""
    masks = np.stack(
        [scene.visible_masks(t, *options.size) for t in range(options.num_frames)]
    )  # (T, objects, H, W)
    seen = np.asarray(masks.any(axis=(2, 3)))  # (T, objects)
    boxes = tight_boxes(masks)  # (T, objects, 4)
    motion = np.stack(
        [motion_iou(boxes[:, i], seen[:, i]) for i in range(len(scene.tracks))], axis=1
    )  # (T, objects)
    frames, track_ids = np.nonzero(seen)
    labels = np.array([track.label for track in scene.tracks], np.int64)
    return Annotations(
        size=options.size,
        kinds=tuple(None if item is None else item.kind for item in schedule),
        frames=frames,
        track_ids=track_ids,
        labels=labels[track_ids],
        boxes_xyxy=boxes[seen].astype(np.float32),
        packed_masks=np.packbits(masks[seen].reshape(len(frames), -1), axis=1),
        motion=motion[seen],
    )


def tight_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the tightest boxes around masks (..., H, W) as (..., 4); zeros for empty ones."""
    edges = []
    for axis in (-2, -1):  # over rows: columns in use; over columns: rows in use
        used = np.asarray(masks.any(axis=axis))
        first = used.argmax(axis=-1)
        last = used.shape[-1] - used[..., ::-1].argmax(axis=-1)
        edges.append((first, np.where(used.any(axis=-1), last, 0)))
    (left, right), (top, bottom) = edges
    return np.stack([left, top, right, bottom], axis=-1).astype(np.float64)
