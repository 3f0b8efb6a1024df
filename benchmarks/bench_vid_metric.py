"""Time the detection metrics at the size of ImageNet VID's validation set.

    python benchmarks/bench_vid_metric.py [--quick] [--output FOLDER]

Prints processor seconds and the peak memory of the whole process, imports and detections included,
for motion IoU from tracks, AP50 of ImageNet VID with its motion groups, and COCO AP. The set is
generated: 555 videos, 176,126 frames, 273,505 objects, 100 detections a frame, half of them near
an object and mostly of its class, the others anywhere, of any of 30 classes.
"""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from typing import Any

import numpy as np

from stpn_kernels.timing import (
    BenchmarkOptions,
    describe_machine,
    parse_benchmark_options,
    write_record,
)
from stpn_tasks.metrics import (
    FrameDetections,
    FrameTruth,
    coco_average_precision,
    motion_iou,
    vid_average_precision,
)

VIDEOS, FRAMES, OBJECTS, DETECTIONS = 555, 176_126, 273_505, 100
CLASSES = tuple(f"class {i}" for i in range(30))
WIDTH, HEIGHT = 1280, 720


class GeneratedSet:
    """Objects that drift through videos, and detections around them.

    Args:
        part: of the videos, of the frames and of the objects to generate.
    """

    def __init__(self, part: float) -> None:
        rng = np.random.default_rng(0)
        num_videos, self.num_frames = int(VIDEOS * part), int(FRAMES * part)
        self.video_of_frame = np.sort(rng.integers(0, num_videos, self.num_frames))
        self._make_objects(rng, num_videos, int(OBJECTS * part))
        self._make_detections(rng)

    def _make_objects(self, rng: np.random.Generator, num_videos: int, number: int) -> None:
        """Give each video up to five tracks of one or two classes, as many boxes as asked for."""
        tracks = rng.choice([1, 2, 3, 5], num_videos, p=[0.45, 0.25, 0.2, 0.1])
        frames = np.repeat(np.arange(self.num_frames), tracks[self.video_of_frame])
        first = np.searchsorted(frames, frames)
        track_ids = np.arange(len(frames)) - first
        kept = np.sort(rng.permutation(len(frames))[:number])
        self.object_frames, self.track_ids = frames[kept], track_ids[kept]
        tracked = 5 * self.video_of_frame[self.object_frames] + self.track_ids
        size = rng.uniform(30, 350, (5 * num_videos, 2))[tracked]
        speed = rng.normal(0, 1, (5 * num_videos, 2))[tracked] ** 3
        start = rng.uniform(0, (WIDTH, HEIGHT), (5 * num_videos, 2))[tracked]
        corner = (start + speed * self.object_frames[:, None]) % (WIDTH, HEIGHT)
        self.objects = np.concatenate((corner, corner + size), axis=1).round().astype(np.float32)
        of_video = rng.integers(0, len(CLASSES), (num_videos, 2))
        self.labels = of_video[self.video_of_frame[self.object_frames], self.track_ids // 3]

    def _make_detections(self, rng: np.random.Generator) -> None:
        """Put half of the detections of a frame around its objects, if it has any."""
        shape = (self.num_frames, DETECTIONS)
        corner = rng.uniform(0, (WIDTH, HEIGHT), (*shape, 2)).astype(np.float32)
        size = rng.uniform(10, 400, (*shape, 2)).astype(np.float32)
        self.found = np.concatenate((corner, corner + size), axis=2)  # (F, 100, 4)
        self.found_labels = rng.integers(0, len(CLASSES), shape)
        self.scores = rng.random(shape, np.float32) ** 4
        counts = np.bincount(self.object_frames, minlength=self.num_frames)
        first = np.cumsum(counts) - counts
        for place in range(DETECTIONS // 2):
            frames = np.flatnonzero(counts)
            near = first[frames] + rng.integers(0, counts[frames])
            jitter = rng.normal(0, 0.02 * (1 + place), (len(frames), 4))
            sides = np.tile(self.objects[near, 2:] - self.objects[near, :2], 2)
            self.found[frames, place] = self.objects[near] + jitter * sides
            same = rng.random(len(frames)) < 0.8
            self.found_labels[frames[same], place] = self.labels[near[same]]

    def motion(self) -> list[np.ndarray]:
        """Return the motion IoU of the objects of each frame."""
        video_of_object = self.video_of_frame[self.object_frames]
        ends = np.cumsum(np.bincount(video_of_object))[:-1]
        columns = (np.split(a, ends) for a in (self.objects, self.object_frames, self.track_ids))
        motion = np.concatenate([motion_iou(*video) for video in zip(*columns, strict=True)])
        return self._by_frame(motion)

    def frames(self) -> tuple[list[FrameTruth], list[FrameDetections]]:
        """Return objects and detections as an evaluation has them."""
        objects = zip(self._by_frame(self.objects), self._by_frame(self.labels), strict=True)
        truth = [FrameTruth(*one, np.zeros(len(one[0]), np.bool_)) for one in objects]
        columns = zip(self.found, self.scores, self.found_labels, strict=True)
        return truth, [FrameDetections(*one) for one in columns]

    def _by_frame(self, values: np.ndarray) -> list[np.ndarray]:
        counts = np.bincount(self.object_frames, minlength=self.num_frames)
        return np.split(values, np.cumsum(counts)[:-1])


def measure(run: Callable[[], str], options: BenchmarkOptions) -> dict[str, Any]:
    """Run in a process of its own, which inherits the set; return result, seconds and memory."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        results: list[str] = []
        seconds = options.seconds(lambda: results.append(run()))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
        sender.send({"seconds": round(seconds, 1), "peak_gib": round(peak / 2**20, 2)})
        sender.send(results[0])

    process = context.Process(target=child)
    process.start()
    sender.close()
    row: dict[str, Any] = receiver.recv()
    row["result"] = receiver.recv()
    process.join()
    return row


def main() -> None:
    options = parse_benchmark_options(__doc__ or "")
    generated = GeneratedSet(0.02 if options.quick else 1.0)
    truth, found = generated.frames()
    motion = generated.motion()
    size = {
        "frames": len(truth),
        "objects": len(generated.objects),
        "detections": generated.scores.size,
    }
    print(f"{describe_machine(options)}\n{size}")

    def vid() -> str:
        result = vid_average_precision(truth, found, CLASSES, motion)
        return ", ".join(f"{name} {100 * one.ap50:.2f}" for name, one in result.items())

    def coco() -> str:
        result = coco_average_precision(truth, found, CLASSES)
        return f"AP {100 * result.ap:.2f}, AP50 {100 * result.ap50:.2f}"

    runs: dict[str, Callable[[], str]] = {
        "motion IoU from tracks": lambda: f"{len(generated.motion())} frames",
        "AP50 of ImageNet VID, four motion groups": vid,
        "COCO AP, six numbers": coco,
    }
    rows = []
    for name, run in runs.items():
        row = {"metric": name, **size, **measure(run, options)}
        rows.append(row)
        print(f"{name:42s} {row['seconds']:7.1f} s {row['peak_gib']:6.2f} GiB  {row['result']}")
    write_record(options, rows)


if __name__ == "__main__":
    main()
