"""Time the evaluation of YouTube-VIS at the size of its validation split.

    python benchmarks/ytvis_evaluation.py [--quick] [--part P] [--output FOLDER]

Prints processor seconds, the median of three turns, of ours and of the official evaluator's
algorithm, and their ratio: below 1 ours is faster. Both have to give the same numbers. The boxes
that the official code makes of every mask, and does not use, are left out. The set is generated:
302 videos of 720x1280 with 27 frames on average, 1 to 4 objects of 40 categories, 100 predictions a
video, half of them near an object and mostly of its category, the others anywhere, of any category.
How many meet an object of their category decides about the ratio, so there is a second row, where
all predictions are of categories that are in their video.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from ytvis_pair_by_pair import pair_by_pair

from stpn_kernels.timing import (
    BenchmarkOptions,
    benchmark_parser,
    describe_machine,
    median_seconds,
    write_record,
)
from stpn_tasks.metrics import (
    VideoObject,
    VideoPrediction,
    VideoTruth,
    YtvisCurves,
    ytvis_curves,
)

VIDEOS, FRAMES, PREDICTIONS = 302, (18, 36), 100
SIZE = (720, 1280)
CATEGORIES = {i: f"category {i}" for i in range(1, 41)}
# What predictions are drawn from, of each video: tracks near each object, and tracks anywhere.
NEAR, ANYWHERE = 6, 10
CORNERS = 60  # of an outline
TURNS = 3

Predictions = list[list[VideoPrediction]]


class GeneratedSet:
    """Blobs that drift through videos, and predictions around them.

    Args:
        part: of the videos to generate.
    """

    def __init__(self, part: float) -> None:
        self._rng = np.random.default_rng(0)
        self.videos: list[VideoTruth] = []
        self.predictions: Predictions = []
        for number in range(max(1, round(VIDEOS * part))):
            self._add_video(number)

    def of_present_categories(self) -> Predictions:
        """Return the predictions, each of the category of one of the objects of its video."""
        return [
            [
                replace(one, category=video.objects[i % len(video.objects)].category)
                for i, one in enumerate(found)
            ]
            for video, found in zip(self.videos, self.predictions, strict=True)
        ]

    def size(self, predictions: Predictions) -> dict[str, int]:
        objects = [len(video.objects) for video in self.videos]
        masks = [len(one.masks) for found in predictions for one in found]
        pairs = sum(
            thing.category == one.category
            for video, found in zip(self.videos, predictions, strict=True)
            for thing in video.objects
            for one in found
        )
        return {
            "videos": len(self.videos),
            "frames": sum(video.length for video in self.videos),
            "objects": sum(objects),
            "predictions": len(masks),
            "predicted_masks": sum(masks),
            "pairs_of_a_category": pairs,
        }

    def _add_video(self, number: int) -> None:
        rng = self._rng
        length = int(rng.integers(FRAMES[0], FRAMES[1] + 1))
        paths = [
            self._path(length) for _ in range(rng.choice([1, 2, 3, 4], p=[0.5, 0.3, 0.1, 0.1]))
        ]
        own = rng.choice(list(CATEGORIES), len(paths))
        objects = [
            VideoObject(int(category), self._masks(path, 0.0))
            for category, path in zip(own, paths, strict=True)
        ]
        near = [[self._masks(path, 0.08 * i) for i in range(NEAR)] for path in paths]
        anywhere = [self._masks(self._path(length), 0.0) for _ in range(ANYWHERE)]
        found = []
        for place in range(PREDICTIONS):
            category = int(rng.choice(list(CATEGORIES)))
            masks = anywhere[rng.integers(ANYWHERE)]
            if place < PREDICTIONS // 2:
                i = rng.integers(len(paths))
                masks = near[i][rng.integers(NEAR)]
                category = int(own[i]) if rng.random() < 0.8 else category
            found.append(VideoPrediction(category, float(rng.random()), masks))
        self.videos.append(VideoTruth(str(number), SIZE, length, objects))
        self.predictions.append(found)

    def _path(self, length: int) -> np.ndarray:
        """Return the corners (T, CORNERS, 2) of a blob that drifts and changes its outline."""
        rng = self._rng
        angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
        waves = np.arange(1, 6)[:, None]
        phases = rng.uniform(0, 2 * np.pi, (1, 5, 1)) + rng.normal(0, 0.1, (length, 5, 1)).cumsum(0)
        radii = 1 + (0.12 * np.cos(waves * angles + phases)).sum(1)  # (T, CORNERS)
        start, speed = rng.uniform(0.2, 0.8, 2) * SIZE[::-1], rng.normal(0, 8, 2)
        centres = start + speed * np.arange(length)[:, None]  # (T, 2)
        outline = np.stack((np.cos(angles), np.sin(angles)), axis=1) * rng.uniform(40, 250)
        return centres[:, None] + radii[..., None] * outline

    def _masks(self, path: np.ndarray, jitter: float) -> list[dict[str, Any] | None]:
        """Return the masks of a path, moved and scaled by a part of its size in each frame."""
        rng = self._rng
        centres = path.mean(axis=1, keepdims=True)
        around = path - centres
        extent = np.abs(around).max()
        around = around * (1 + jitter * rng.normal(0, 1, (len(path), 1, 1)))
        moved = centres + around + jitter * extent * rng.normal(0, 0.5, (len(path), 1, 2))
        polygons = [[frame.ravel().tolist()] for frame in moved]
        seen = rng.random(len(path)) < 0.95
        return [
            coco_mask.frPyObjects(polygon, *SIZE)[0] if there else None
            for polygon, there in zip(polygons, seen, strict=True)
        ]


def compare(
    generated: GeneratedSet, predictions: Predictions, options: BenchmarkOptions
) -> dict[str, Any]:
    """Time both in turns, and see that they agree."""
    arguments = (generated.videos, predictions, CATEGORIES)
    mine: list[YtvisCurves] = []
    theirs: list[tuple[np.ndarray, np.ndarray]] = []
    runs: dict[str, Callable[[], None]] = {
        "ours": lambda: mine.append(ytvis_curves(*arguments)["all"]),
        "pair by pair": lambda: theirs.append(pair_by_pair(*arguments)),
    }
    seconds = median_seconds(runs, options, at_least=TURNS, budget=0.0, warm_up=False)
    for values, expected in zip((mine[0].precision, mine[0].recall), theirs[0], strict=True):
        np.testing.assert_allclose(np.nan_to_num(values, nan=-1), expected, rtol=0, atol=1e-12)
    return {
        **generated.size(predictions),
        "ap": mine[0].summary().ap,
        "seconds": seconds,
        "ratio": seconds["ours"] / seconds["pair by pair"],
    }


def main() -> None:
    parser = benchmark_parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--part", type=float, default=1.0, help="of the videos (default: 1)")
    arguments = parser.parse_args()
    options = BenchmarkOptions.of(arguments)
    print(describe_machine(options))
    generated = GeneratedSet(0.03 if options.quick else arguments.part)
    rows = []
    for name, predictions in {
        "half near an object": generated.predictions,
        "all of categories that are there": generated.of_present_categories(),
    }.items():
        row = {"predictions_are": name, **compare(generated, predictions, options)}
        rows.append(row)
        print(*(f"{key:20s} {value}" for key, value in row.items()), sep="\n", end="\n\n")
    write_record(options, rows)


if __name__ == "__main__":
    main()
