"""COCO average precision of boxes, of all frames and of the frames of each condition."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

ALL_FRAMES = "all"


@dataclass(frozen=True)
class FrameTruth:
    """Hold the objects of one frame.

    Attributes:
        boxes_xyxy: (n, 4) pixels of the original frame.
        labels: (n,) class indices from 0.
        is_crowd: (n,) bool; a crowd is neither missed nor found, what lies in it is no error.
        conditions: names of the splits that the frame belongs to.
    """

    boxes_xyxy: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray
    conditions: frozenset[str] = frozenset()


@dataclass(frozen=True)
class FrameDetections:
    """Hold the detections of one frame: boxes_xyxy (n, 4), scores (n,), labels (n,)."""

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class AveragePrecision:
    """Hold the six numbers of the COCO protocol, each in [0, 1], or NaN without an object.

    They are what the precision-recall curve at IoU 0.50 is summed up in, which comes along.

    Attributes:
        ap: mean over IoU thresholds 0.50, 0.55, ..., 0.95 and over the classes with objects.
        ap50: at IoU 0.50.
        ap75: at IoU 0.75.
        ap_small: of objects of at most 32² pixels (area of the box).
        ap_medium: of objects from 32² to 96² pixels.
        ap_large: of objects of at least 96² pixels.
        curve50: precision at IoU 0.50 at the 101 recalls 0, 0.01, ..., 1, mean over the classes
            with objects, whose mean in turn is ``ap50``; empty without an object.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    curve50: tuple[float, ...] = ()


def coco_average_precision(
    ground_truth: Sequence[FrameTruth],
    detections: Sequence[FrameDetections],
    classes: Sequence[str],
) -> AveragePrecision:
    """Return the COCO average precision of a set of frames.

    Of each frame and class the 100 best detections count.

    Args:
        ground_truth: objects of each frame.
        detections: detections of the same frames, in the same order.
        classes: names of the labels.

    Raises:
        ValueError: the two disagree in length, or a frame's arrays are not usable; the frame
            and the value are named.
    """
    return coco_average_precision_by_condition(ground_truth, detections, classes)[ALL_FRAMES]


def coco_average_precision_by_condition(
    ground_truth: Sequence[FrameTruth],
    detections: Sequence[FrameDetections],
    classes: Sequence[str],
) -> dict[str, AveragePrecision]:
    """Return the COCO average precision of ``"all"`` frames and of each condition's frames.

    The conditions are those that the frames name, sorted. Frames are matched once; only the
    precision is computed for each split. Arguments and errors as `coco_average_precision`.
    """
    if len(ground_truth) != len(detections):
        raise ValueError(f"{len(ground_truth)} frames of objects, {len(detections)} of detections")
    for index, (truth, found) in enumerate(zip(ground_truth, detections, strict=True)):
        _check_frame(index, truth, found, classes)
    conditions = sorted(set().union(*(truth.conditions for truth in ground_truth)))
    if ALL_FRAMES in conditions:
        raise ValueError(f"a condition is named {ALL_FRAMES!r}, which means every frame")

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluator = COCOeval(
            _coco(ground_truth, classes, _truth_annotations(ground_truth)),
            _coco(ground_truth, classes, _detection_annotations(detections)),
            "bbox",
        )
        evaluator.params.maxDets = [100]
        evaluator.evaluate()
        matches = evaluator.evalImgs
        results = {ALL_FRAMES: _precision(evaluator)}
        for condition in conditions:
            # None is how pycocotools marks a frame without objects and detections.
            evaluator.evalImgs = [
                match if match and condition in ground_truth[match["image_id"]].conditions else None
                for match in matches
            ]
            results[condition] = _precision(evaluator)
    return results


def _precision(evaluator: COCOeval) -> AveragePrecision:
    """Accumulate the matches that the evaluator holds."""
    evaluator.accumulate()
    precision = evaluator.eval["precision"][..., 0]  # (IoU, recall, class, area)
    thresholds = evaluator.params.iouThrs

    def mean(values: np.ndarray) -> float:
        present = values[values > -1]  # -1 marks a class without objects
        return float(present.mean()) if present.size else float("nan")

    at_50 = precision[np.isclose(thresholds, 0.5), ..., 0][0]  # (recall, class)
    known = at_50[:, (at_50 > -1).all(axis=0)]
    return AveragePrecision(
        ap=mean(precision[..., 0]),
        ap50=mean(at_50),
        ap75=mean(precision[np.isclose(thresholds, 0.75), ..., 0]),
        ap_small=mean(precision[..., 1]),
        ap_medium=mean(precision[..., 2]),
        ap_large=mean(precision[..., 3]),
        curve50=tuple(known.mean(axis=1).tolist()) if known.size else (),
    )


def _coco(
    ground_truth: Sequence[FrameTruth], classes: Sequence[str], annotations: list[dict[str, object]]
) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": index} for index in range(len(ground_truth))],
        "categories": [{"id": index, "name": name} for index, name in enumerate(classes)],
        # Matches are stored by annotation id, with 0 for none: ids begin with 1.
        "annotations": [{"id": i, **annotation} for i, annotation in enumerate(annotations, 1)],
    }
    coco.createIndex()
    return coco


def _truth_annotations(ground_truth: Sequence[FrameTruth]) -> list[dict[str, object]]:
    return [
        {**annotation, "iscrowd": crowd}
        for index, truth in enumerate(ground_truth)
        for annotation, crowd in zip(
            _annotations(index, truth.boxes_xyxy, truth.labels),
            truth.is_crowd.astype(int).tolist(),
            strict=True,
        )
    ]


def _detection_annotations(detections: Sequence[FrameDetections]) -> list[dict[str, object]]:
    return [
        {**annotation, "score": score}
        for index, found in enumerate(detections)
        for annotation, score in zip(
            _annotations(index, found.boxes_xyxy, found.labels), found.scores.tolist(), strict=True
        )
    ]


def _annotations(index: int, boxes_xyxy: np.ndarray, labels: np.ndarray) -> list[dict[str, object]]:
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    boxes_xywh = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)
    areas = boxes_xywh[:, 2] * boxes_xywh[:, 3]
    return [
        {"image_id": index, "category_id": label, "bbox": box, "area": area}
        for label, box, area in zip(
            labels.tolist(), boxes_xywh.tolist(), areas.tolist(), strict=True
        )
    ]


def _check_frame(
    index: int, truth: FrameTruth, found: FrameDetections, classes: Sequence[str]
) -> None:
    for kind, boxes, labels, other in (
        ("objects", truth.boxes_xyxy, truth.labels, truth.is_crowd),
        ("detections", found.boxes_xyxy, found.labels, found.scores),
    ):
        if boxes.shape != (len(labels), 4) or other.shape != labels.shape:
            raise ValueError(
                f"{kind} of frame {index}: boxes {boxes.shape}, labels {labels.shape} and "
                f"{'is_crowd' if kind == 'objects' else 'scores'} {other.shape} do not agree"
            )
        if not np.isfinite(boxes).all() or not np.isfinite(other).all():
            raise ValueError(f"{kind} of frame {index}: a box or score is not finite")
        wrong = labels[(labels < 0) | (labels >= len(classes))]
        if wrong.size:
            raise ValueError(
                f"{kind} of frame {index}: label {wrong[0]} is not in [0, {len(classes)})"
            )
