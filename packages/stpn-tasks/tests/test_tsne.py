"""t-SNE of objects, and cluster quality against scikit-learn and against what is known."""

import numpy as np
import pytest
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier

from stpn_tasks.analysis.object_features import ObjectFeatures
from stpn_tasks.analysis.tsne import cluster_quality, project
from stpn_tasks.report.analyses import numbers_json

SPEEDS = ("slow", "medium", "fast")


def objects(distance, number=60, channels=8, num_videos=6, seed=0):
    """Three Gaussian classes; the centres lie as many standard deviations from the origin."""
    random = np.random.default_rng(seed)
    labels = np.arange(number) % 3
    centres = distance * np.eye(3, channels)
    features = (centres[labels] + random.normal(size=(number, channels))).astype(np.float32)
    videos = np.arange(number) // 3 % num_videos
    speeds = tuple(SPEEDS[i % 3] for i in np.arange(number) // 3)
    conditions = (frozenset({"clean"}), frozenset({"deteriorated"})) * (number // 2)
    return ObjectFeatures(features, labels, videos, speeds, conditions[:number])


def test_the_same_seed_gives_the_same_picture():
    one, again, other = (project(objects(5), seed) for seed in (0, 0, 1))
    assert one.shape == (60, 2)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_separated_classes_stay_apart_in_the_picture():
    places = project(objects(20), 0)
    assert silhouette_score(places, objects(20).labels) > 0.5


def test_few_objects_are_projected_too():
    assert np.isfinite(project(objects(5, number=10), 0)).all()


def test_quality_is_what_scikit_learn_says_of_each_group():
    found = objects(2)
    quality = cluster_quality(found)
    assert list(quality) == ["all", "slow", "medium", "fast", "deteriorated", "clean"]
    for name, chosen in found.groups().items():
        expected = silhouette_score(found.features[chosen], found.labels[chosen])
        assert quality[name].silhouette == pytest.approx(expected)
        assert quality[name].num_objects == chosen.sum()
        assert quality[name].num_classes == 3


def test_neighbours_vote_from_all_other_videos():
    found = objects(1)
    right = np.zeros(60, np.bool_)
    for video in range(6):
        own = found.videos == video
        classifier = KNeighborsClassifier(5).fit(found.features[~own], found.labels[~own])
        right[own] = classifier.predict(found.features[own]) == found.labels[own]
    quality = cluster_quality(found)
    assert 0 < right.mean() < 1
    for name, chosen in found.groups().items():
        assert quality[name].neighbours == pytest.approx(right[chosen].mean())


def test_an_objects_own_video_does_not_name_its_class():
    """Frames of a video look alike; here they are the same, and nothing else is known."""
    videos = np.repeat(np.arange(6), 10)
    features = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)[videos]
    one = objects(0)
    found = ObjectFeatures(
        features, np.repeat(np.arange(6), 10), videos, one.speeds, one.conditions
    )
    quality = cluster_quality(found)["all"]
    assert quality.silhouette == pytest.approx(1)
    assert quality.neighbours == 0


def test_separated_classes_score_high_and_mixed_ones_do_not():
    apart, mixed = cluster_quality(objects(20))["all"], cluster_quality(objects(0))["all"]
    assert apart.silhouette > 0.7
    assert apart.neighbours == 1
    assert abs(mixed.silhouette) < 0.1
    assert mixed.neighbours < 0.6
    assert mixed.commonest == pytest.approx(1 / 3)


def test_quality_does_not_depend_on_the_scale_of_the_features():
    one = objects(2)
    large = ObjectFeatures(1000 * one.features, one.labels, one.videos, one.speeds, one.conditions)
    mine, theirs = cluster_quality(large)["fast"], cluster_quality(one)["fast"]
    assert mine.silhouette == pytest.approx(theirs.silhouette, abs=1e-4)
    assert mine.neighbours == theirs.neighbours


def test_what_is_not_defined_is_null():
    one = objects(5)
    speeds = tuple("slow" if label == 0 else "fast" for label in one.labels)
    single = ObjectFeatures(one.features, one.labels, 0 * one.videos, speeds, one.conditions)
    quality = cluster_quality(single)
    assert quality["slow"].num_classes == 1
    assert numbers_json(quality["slow"]) == {
        **{"num_objects": 20, "num_classes": 1, "commonest": 1.0},
        **{"silhouette": None, "neighbours": None},
    }
    assert numbers_json(quality["all"])["neighbours"] is None
    assert numbers_json(quality["all"])["silhouette"] == pytest.approx(
        quality["all"].silhouette, abs=1e-5
    )


def test_too_few_objects_one_class_and_nan_are_refused():
    one = objects(5)
    with pytest.raises(ValueError, match="needs 10 objects at least, the frames have 9"):
        project(objects(5, number=9), 0)
    same = ObjectFeatures(one.features, 0 * one.labels, one.videos, one.speeds, one.conditions)
    with pytest.raises(ValueError, match="all 60 objects are of one"):
        cluster_quality(same)
    features = one.features.copy()
    features[7, 2] = np.nan
    broken = ObjectFeatures(features, one.labels, one.videos, one.speeds, one.conditions)
    for function in (cluster_quality, lambda objects: project(objects, 0)):
        with pytest.raises(ValueError, match="object 7 are not finite"):
            function(broken)
