"""Objects in a plane by t-SNE, and how well their classes cluster before any projection."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from stpn_tasks.analysis.object_features import ObjectFeatures

MIN_OBJECTS = 10
NUM_NEIGHBOURS = 5
_PERPLEXITY = 30.0  # scikit-learn's default; less for few objects, as it must be below their number


@dataclass(frozen=True)
class ClusterQuality:
    """How well the classes of a group of objects cluster in the space of their features.

    Attributes:
        num_objects: of the group.
        num_classes: that occur in it.
        silhouette: mean silhouette coefficient of the classes, Euclidean, from -1 to 1 (Rousseeuw
            1987); NaN with less than two classes, or no class with two objects.
        neighbours: share of the objects whose class a vote of the 5 nearest objects of other
            videos names, from 0 to 1; NaN with a single video.
        commonest: share of the commonest class: what naming it always would give.
    """

    num_objects: int
    num_classes: int
    silhouette: float
    neighbours: float
    commonest: float


def check_objects(objects: ObjectFeatures) -> None:
    """Raise ValueError unless there is enough to project, of two classes at least."""
    number, classes = len(objects.labels), len(np.unique(objects.labels))
    if number < MIN_OBJECTS:
        raise ValueError(f"t-SNE needs {MIN_OBJECTS} objects at least, the frames have {number}")
    if classes < 2:
        raise ValueError(f"clusters need two classes at least, all {number} objects are of one")
    if not np.isfinite(objects.features).all():
        place = int(np.flatnonzero(~np.isfinite(objects.features).all(axis=1))[0])
        raise ValueError(f"features of object {place} are not finite")


def project(objects: ObjectFeatures, seed: int) -> Float32[np.ndarray, "n 2"]:
    """Return the objects in a plane by t-SNE (van der Maaten and Hinton 2008).

    Args:
        objects: with finite features.
        seed: of the places that it starts from; the same one gives the same picture, another one
            shows what of it is chance.

    Raises:
        ValueError: as `check_objects`.
    """
    check_objects(objects)
    perplexity = min(_PERPLEXITY, (len(objects.labels) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="random", random_state=seed)
    projected: Float32[np.ndarray, "n 2"] = tsne.fit_transform(objects.features).astype(np.float32)
    return projected


def cluster_quality(objects: ObjectFeatures) -> dict[str, ClusterQuality]:
    """Return how well classes cluster among all objects, those of each speed and condition.

    Neighbours are looked for among the objects of all groups, but not in an object's own video:
    there they are the same object a few frames before.

    Raises:
        ValueError: as `check_objects`.
    """
    check_objects(objects)
    right = _named_by_neighbours(objects)
    qualities = {}
    for name, chosen in objects.groups().items():
        features, labels = objects.features[chosen], objects.labels[chosen]
        _, counts = np.unique(labels, return_counts=True)
        is_defined = 2 <= len(counts) < len(labels)
        qualities[name] = ClusterQuality(
            len(labels),
            len(counts),
            float(silhouette_score(features, labels)) if is_defined else math.nan,
            math.nan if right is None else float(right[chosen].mean()),
            float(counts.max() / len(labels)),
        )
    return qualities


def _named_by_neighbours(objects: ObjectFeatures) -> np.ndarray | None:
    """Tell of which objects a vote of the nearest ones in other videos names the class."""
    _, counts = np.unique(objects.videos, return_counts=True)
    if len(counts) < 2:
        return None
    others = len(objects.labels) - int(counts.max())  # the fewest there are to look among
    named = cross_val_predict(
        KNeighborsClassifier(min(NUM_NEIGHBOURS, others)),
        objects.features,
        objects.labels,
        groups=objects.videos,
        cv=LeaveOneGroupOut(),
    )
    right: np.ndarray = named == objects.labels
    return right
