"""Evaluation of queries that are known, from perfect ones to such as fail in one respect."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from stpn_data import to_youtube_vis, windows_without_clean_frame
from stpn_tasks.engine import make_accelerator
from stpn_tasks.segmentation.association import AssociationOptions
from stpn_tasks.segmentation.command import evaluation_json, evaluation_table
from stpn_tasks.segmentation.data import open_truth
from stpn_tasks.segmentation.evaluation import evaluate_segmenter, on_frames, truth_of_videos
from stpn_tasks.segmentation.findings import Finder, Questions, object_masks
from stpn_tasks.segmentation.inference import QueriesOfFrame
from stpn_tasks.segmentation.mask_resize import FrameSizes
from stpn_tasks.segmentation.truth_file import parse_truth

Q = 4


class KnownQueries:
    """Queries that see the objects as they are, in a new order in every frame.

    Args:
        classes_fail: in deteriorated frames each object seems a little to be of the next class.
        embeddings_fail: they say nothing of who is who.
    """

    def __init__(self, *, classes_fail=False, embeddings_fail=False):
        self.classes_fail, self.embeddings_fail = classes_fail, embeddings_fail

    def videos(self, dataset, numbers):
        for t in range(dataset.videos[numbers[0]].num_frames):
            parts = [self._frame(dataset, number, t) for number in numbers]
            sizes = FrameSizes(image=(48, 64), padded=(48, 64), output=(48, 64))
            yield QueriesOfFrame(t, *map(torch.stack, zip(*parts, strict=True)), sizes)

    def _frame(self, dataset, number, t):
        objects, num_classes = dataset.objects(number, t), len(dataset.classes)
        fails = self.classes_fail and "deteriorated" in dataset.conditions(number, t)
        logits, masks = torch.zeros(Q, num_classes + 1), torch.full((Q, 48, 64), -9.0)
        embeddings = torch.eye(Q)
        logits[:, -1] = 10.0
        for track, label, mask in zip(
            objects.track_ids, objects.labels, objects.masks, strict=True
        ):
            logits[track, -1] = 0.0
            logits[track, (label + fails) % num_classes] = 2.0 if fails else 20.0
            masks[track] = torch.where(torch.from_numpy(mask), 9.0, -9.0)
        order = np.random.default_rng((number, t)).permutation(Q)
        embeddings = torch.ones(Q, Q) if self.embeddings_fail else embeddings[order]
        return logits[order], masks[order], embeddings


@pytest.fixture(scope="module")
def videos(tiny_segmentation, tmp_path_factory):
    return tiny_segmentation.videos(tmp_path_factory.mktemp("cache"), num_videos=4)


def evaluate(videos, queries, **options):
    return evaluate_segmenter(
        queries,
        videos,
        open_truth("generated", videos),
        accelerator=make_accelerator("cpu"),
        progress=False,
        **options,
    )


@pytest.mark.without_shape_checks
@pytest.mark.parametrize("batch_size", [1, 3])
def test_perfect_queries_are_perfect_in_every_respect(videos, batch_size):
    found = evaluate(videos, KnownQueries(), headroom=True, batch_size=batch_size)
    assert found.video.ap == 1
    assert {name: one.ap for name, one in found.frames.items()} == dict.fromkeys(found.frames, 1)
    assert {"all", "clean", "deteriorated"} <= found.frames.keys()
    assert found.num_windows == len(windows_without_clean_frame(videos)) >= 4
    assert found.windows.ap == 1
    assert {one.ap for one in found.headroom.values()} == {1}


@pytest.mark.without_shape_checks
def test_classes_that_fail_in_deteriorated_frames_are_told_where_no_mean_can_help(videos):
    found = evaluate(videos, KnownQueries(classes_fail=True), headroom=True)
    assert found.video.ap == 1  # the clean frames say the class
    assert found.frames["clean"].ap == 1
    assert found.frames["deteriorated"].ap50 < 0.5
    assert found.windows.ap50 < 0.5
    assert found.headroom["deteriorated frames, no classes"].ap == 1


@pytest.mark.without_shape_checks
def test_tracks_by_annotations_show_what_association_costs(videos):
    found = evaluate(videos, KnownQueries(embeddings_fail=True), headroom=True)
    assert found.video.ap < 0.5
    assert found.frames["all"].ap == 1
    assert found.headroom["oracle"].ap == 1
    assert found.headroom["video, no classes"].ap < 0.5


@pytest.mark.without_shape_checks
def test_masks_follow_objects_whose_embeddings_say_nothing(videos):
    queries = KnownQueries(embeddings_fail=True)
    by_masks = evaluate(videos, queries, association=AssociationOptions(mask_weight=1.0))
    assert by_masks.video.ap50 > evaluate(videos, queries).video.ap50 + 0.2


@pytest.mark.without_shape_checks
def test_without_headroom_nothing_is_said_of_it(videos):
    found = evaluate(videos, KnownQueries())
    assert found.headroom == {}
    assert "annotations" not in [*evaluation_table(found).columns[0].cells]
    assert json.loads(json.dumps(evaluation_json(found)))["video"]["ap"] == 100


@pytest.mark.without_shape_checks
def test_a_mask_that_is_not_finite_is_named_with_video_and_frame(videos):
    class Broken(KnownQueries):
        def videos(self, dataset, numbers):
            for frame in super().videos(dataset, numbers):
                if frame.index == 5 and numbers == [2]:
                    frame.masks[0, 0] = torch.nan
                yield frame

    name = videos.videos[2].name
    with pytest.raises(ValueError, match=f"{name}: a mask logit of frame 5 is not finite"):
        evaluate(videos, Broken())


@pytest.mark.without_shape_checks
def test_only_key_frames_are_compared(videos):
    class Sparse(type(videos)):
        def __init__(self):
            self.__dict__ |= vars(videos)
            self.videos = [replace(video, key_frames=(1, 4)) for video in videos.videos]

    class LostBetween(KnownQueries):
        def videos(self, dataset, numbers):
            for frame in super().videos(dataset, numbers):
                seen = frame.index in (1, 4)
                yield frame if seen else replace(frame, masks=torch.full_like(frame.masks, -9.0))

    assert evaluate(Sparse(), LostBetween()).video.ap == 1
    assert evaluate(videos, LostBetween()).video.ap50 == 0


@pytest.mark.without_shape_checks
def test_tracks_by_annotations_are_those_of_annotated_frames(videos):
    class Sparse(type(videos)):
        def __init__(self):
            self.__dict__ |= vars(videos)
            self.videos = [replace(video, key_frames=(1, 4)) for video in videos.videos]

        def objects(self, number, index):
            found = super().objects(number, index)
            return found if index in (1, 4) else without(found, np.ones(len(found), bool))

    class OfAllFrames(KnownQueries):
        def _frame(self, dataset, number, t):
            return super()._frame(videos, number, t)

    found = evaluate(Sparse(), OfAllFrames(embeddings_fail=True), headroom=True)
    assert found.headroom["oracle"].ap == 1


def without(objects, left_out):
    names = ("boxes_xyxy", "labels", "track_ids", "is_crowd", "masks")
    return type(objects)(**{name: getattr(objects, name)[~left_out] for name in names})


def test_masks_of_objects_are_those_of_key_frames_and_not_of_crowds(videos):
    class WithCrowd(type(videos)):
        def __init__(self):
            self.__dict__ |= vars(videos)
            self.videos = [replace(video, key_frames=(1, 4)) for video in videos.videos]

        def objects(self, number, index):
            found = super().objects(number, index)
            return replace(found, is_crowd=found.track_ids == found.track_ids.min())

    masks, whole = object_masks(WithCrowd(), 0), object_masks(videos, 0)
    assert torch.equal(masks, whole[[1, 4]][:, 1:])


@pytest.mark.without_shape_checks
def test_objects_beyond_the_number_of_queries_have_no_track(videos):
    sizes = FrameSizes(image=(48, 64), padded=(48, 64), output=(48, 64))
    objects = object_masks(videos, 0)
    seldom = torch.zeros(8, Q, 48, 64, dtype=torch.bool)
    seldom[0] = True
    keys, found = tuple(range(8)), []
    for of_video in (objects, torch.cat([seldom, objects], 1)):
        finder = Finder(sizes, range(1, 7), Questions(objects=of_video, key_frames=keys))
        for frame in KnownQueries().videos(videos, [0]):
            finder.push(frame.index, frame.logits[0], frame.masks[0], frame.embeddings[0])
        found.append(finder.findings().oracle[:2])
    few, many = ({(one.category, one.masks[3]["counts"]) for one in best} for best in found)
    assert few == many


def test_frames_of_a_truth_lose_the_objects_that_are_not_seen_there(videos):
    truth = parse_truth(to_youtube_vis(videos), "test").videos[1]
    one = truth.objects[0]
    hidden = replace(one, masks=[None] * 4 + list(one.masks[4:]))
    video = replace(truth, objects=[hidden, one])
    assert on_frames(video, (0, 2)).objects[0].masks == [one.masks[0], one.masks[2]]
    assert len(on_frames(video, (0, 2)).objects) == 1
    assert len(on_frames(video, (0, 5)).objects) == 2


def test_a_truth_of_other_videos_is_refused(videos, tiny_segmentation, tmp_path):
    truth = open_truth("generated", tiny_segmentation.videos(tmp_path, num_videos=1))
    with pytest.raises(ValueError, match="the truth has no video 2 of 8 frames"):
        truth_of_videos(videos, truth)


def test_headroom_of_a_video_without_objects_is_found(videos):
    sizes = FrameSizes(image=(48, 64), padded=(48, 64), output=(48, 64))
    nothing = torch.zeros(8, 0, 48, 64, dtype=torch.bool)
    questions = Questions(objects=nothing, key_frames=tuple(range(8)))
    finder = Finder(sizes, range(1, 7), questions)
    for frame in KnownQueries().videos(videos, [0]):
        finder.push(frame.index, frame.logits[0], frame.masks[0], frame.embeddings[0])
    assert len(finder.findings().oracle) == 10


def test_what_is_asked_for_alone_is_found(videos):
    sizes = FrameSizes(image=(48, 64), padded=(48, 64), output=(48, 64))
    finder = Finder(sizes, range(1, 7), Questions())
    for frame in KnownQueries().videos(videos, [0]):
        finder.push(frame.index, frame.logits[0], frame.masks[0], frame.embeddings[0])
    found = finder.findings()
    assert len(found.video) == 10
    assert not any((found.frames, found.windows, found.tracks, found.frame_queries, found.oracle))


def test_masks_of_objects_are_where_the_data_set_says(videos):
    masks = object_masks(videos, 0)
    objects = videos.objects(0, 3)
    assert masks.shape == (8, 2, 48, 64)
    for track, mask in zip(objects.track_ids, objects.masks, strict=True):
        assert np.array_equal(masks[3, track].numpy(), mask)
