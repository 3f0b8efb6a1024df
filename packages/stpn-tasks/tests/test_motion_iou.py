import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpn_data.deteriorated.motion import motion_iou as motion_iou_of_one_object
from stpn_kernels.testing import shared_path
from stpn_tasks.metrics import motion_iou


def motion(*rows):
    """Rows are frame, track, x1, y1, x2, y2."""
    rows = np.array(rows, np.float64).reshape(-1, 6)
    return motion_iou(rows[:, 2:], rows[:, 0].astype(int), rows[:, 1].astype(int))


def test_neighbours_are_averaged_and_corners_are_inclusive():
    # 10 x 10 pixels, moved by 5: they share 50 of 150. The same place again: all of it.
    still, moved = (0, 0, 9, 9), (5, 0, 14, 9)
    found = motion((0, 0, *still), (1, 0, *moved), (2, 0, *still))
    np.testing.assert_allclose(found, [(1 / 3 + 1) / 2, 1 / 3, (1 / 3 + 1) / 2])


def test_ten_frames_on_each_side_count_and_no_more():
    apart = (100, 100, 109, 109)
    rows = [(0, 0, *apart)] + [(t, 0, 0, 0, 9, 9) for t in range(1, 13)]
    found = motion(*rows)
    assert found[0] == 0  # frames 1 to 10
    np.testing.assert_allclose(found[1:11], [10 / 11] + [11 / 12] * 9)  # one of them is frame 0
    assert found[11] == found[12] == 1  # frame 0 is out of reach


def test_gaps_are_skipped_and_an_object_without_neighbours_did_not_move():
    box, far = (0, 0, 9, 9), (50, 50, 59, 59)
    assert motion((0, 0, *box), (11, 0, *far), (0, 1, *far)).tolist() == [1, 1, 1]
    assert motion((0, 0, *box), (10, 0, *far)).tolist() == [0, 0]
    assert motion().shape == (0,)


def tracks(seed):
    """Return the boxes of a video, in a random order."""
    rng = np.random.default_rng(seed)
    rows = [
        (frame, track, *corner, *(corner + rng.integers(0, 20, 2)))
        for track in rng.permutation(4)
        for frame in np.flatnonzero(rng.random(rng.integers(1, 40)) < rng.random())
        for corner in [rng.integers(0, 12, 2)]
    ]
    return np.array(rows, np.float64).reshape(-1, 6)[rng.permutation(len(rows))]


def plain_motion_iou(rows):
    """Follow the definition object by object."""
    result = []
    for frame, track, *box in rows:
        overlaps = []
        for other_frame, other_track, *other in rows:
            if other_track != track or other_frame == frame or abs(other_frame - frame) > 10:
                continue
            width = min(box[2], other[2]) - max(box[0], other[0]) + 1
            height = min(box[3], other[3]) - max(box[1], other[1]) + 1
            shared = max(width, 0) * max(height, 0)
            areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, other)]
            overlaps.append(shared / (sum(areas) - shared))
        result.append(np.mean(overlaps) if overlaps else 1.0)
    return np.array(result)


@settings(max_examples=30)
@given(st.integers(0, 2**31))
def test_the_definition_is_followed(seed):
    rows = tracks(seed)
    found = motion(*rows)
    np.testing.assert_allclose(found, plain_motion_iou(rows), atol=1e-12)
    assert ((found >= 0) & (found <= 1)).all()


@settings(max_examples=20)
@given(st.integers(0, 2**31))
def test_generated_video_names_its_speeds_by_the_same_number(seed):
    # Its boxes end one pixel later.
    rows = tracks(seed)
    rows = rows[rows[:, 1] == 0]
    rows = rows[np.argsort(rows[:, 0])]
    frames = rows[:, 0].astype(int)
    boxes, present = np.zeros((41, 4)), np.zeros(41, np.bool_)
    boxes[frames], present[frames] = rows[:, 2:] + [0, 0, 1, 1], True
    expected = motion_iou_of_one_object(boxes, present)[frames]
    np.testing.assert_allclose(motion(*rows), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("boxes", "frames", "ids", "message"),
    [
        (
            np.zeros((2, 4)),
            np.zeros(2),
            np.zeros(3),
            r"boxes \(2, 4\), frames \(2,\) and track ids",
        ),
        (np.zeros((2, 3)), np.zeros(2), np.zeros(2), r"boxes \(2, 3\)"),
        (np.zeros((3, 4)), np.array([4, 7, 7]), np.array([1, 2, 2]), "track 2 .* in frame 7"),
    ],
)
def test_impossible_tracks_are_named(boxes, frames, ids, message):
    with pytest.raises(ValueError, match=message):
        motion_iou(boxes, frames, ids)


def test_real_objects_move_as_the_official_table_says():
    values = json.loads(shared_path("golden/vid_motion_iou_real/motion_iou.json").read_text())
    compared = 0
    for video in values["videos"]:
        frames = video["frames"]
        numbers = np.concatenate([[i] * len(f["boxes"]) for i, f in enumerate(frames)]).astype(int)
        found = motion_iou(
            np.array([box for f in frames for box in f["boxes"]], np.float32),
            numbers,
            np.array([track for f in frames for track in f["trackid"]]),
        )
        # Elsewhere neighbours are cut off the golden clip.
        reaches_the_end = video["name"].endswith(("00007006", "00000001"))
        whole = (numbers < 90) | reaches_the_end
        whole &= (numbers >= 10) | (frames[0]["frame"] == 0)
        expected = np.array([value for f in frames for value in f["motion_iou"]])
        np.testing.assert_allclose(found[whole], expected[whole], rtol=0, atol=1e-9)
        compared += whole.sum()
    assert compared == 2898


def test_the_real_clips_move_as_computed_with_them():
    vod = shared_path("real/vod/annotations")
    expected = json.loads((vod / "motion_iou.json").read_text())["motion_iou"]
    values = json.loads((vod / "imagenet_vid_val.json").read_text())
    frame_of = {image["id"]: image["frame_id"] for image in values["images"]}
    for video in values["videos"]:
        own = [a for a in values["annotations"] if a["video_id"] == video["id"]]
        boxes = np.array([a["bbox"] for a in own], np.float64)
        boxes[:, 2:] += boxes[:, :2]
        frames = np.array([frame_of[a["image_id"]] for a in own])
        found = motion_iou(boxes, frames, np.array([a["instance_id"] for a in own]))
        flat = [value for frame in expected[video["name"]] for value in frame]
        np.testing.assert_allclose(found[np.argsort(frames, kind="stable")], flat, atol=1e-9)
