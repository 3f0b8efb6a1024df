"""Objects of any data set as YouTube-VIS's json has them."""

import json

import numpy as np
import pytest

from stpn_data.deteriorated import DeterioratedSegmentation, SegmentationOptions
from stpn_data.rle import decode_mask
from stpn_data.videos import FrameObjects
from stpn_data.youtube_vis_json import to_youtube_vis


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    cache = tmp_path_factory.mktemp("clips")
    options = SegmentationOptions(size=(48, 64), num_frames=6, object_size=(16.0, 22.0))
    return DeterioratedSegmentation(
        cache, num_videos=6, options=options, num_workers=0, progress=False
    )


def test_every_object_of_every_frame_is_there_once(videos):
    data = json.loads(json.dumps(to_youtube_vis(videos)))
    assert [one["id"] for one in data["annotations"]] == [*range(1, 1 + len(data["annotations"]))]
    assert [one["name"] for one in data["categories"]] == list(videos.classes)
    assert [(one["id"], one["length"]) for one in data["videos"]] == [(i, 6) for i in range(1, 7)]
    seen = 0
    for v in range(6):
        records = [one for one in data["annotations"] if one["video_id"] == v + 1]
        for t in range(6):
            objects = videos.objects(v, t)
            there = [one for one in records if one["segmentations"][t] is not None]
            assert len(there) == len(objects)
            seen += len(objects)
            for i, one in enumerate(there):
                assert one["category_id"] == objects.labels[i] + 1
                mask = decode_mask(one["segmentations"][t], (48, 64), "m")
                assert np.array_equal(mask, objects.masks[i])
                assert one["areas"][t] == mask.sum()
                left, top, width, height = one["bboxes"][t]
                box = [left, top, left + width, top + height]
                assert box == objects.boxes_xyxy[i].tolist()
            for one in records:
                if one not in there:
                    assert one["bboxes"][t] is one["areas"][t] is None
    assert seen > 30
    assert any(None in one["segmentations"] for one in data["annotations"])


class Changed:
    """One object of a video, whose objects a function changes."""

    def __init__(self, videos, change):
        self._videos, self._change = videos, change
        self.videos, self.classes = videos.videos[:1], videos.classes

    def objects(self, video, index):
        objects = self._videos.objects(video, index)
        return FrameObjects(**(vars(objects) | self._change(objects, index)))


def test_a_crowd_stays_one(videos):
    crowd = Changed(videos, lambda one, t: {"is_crowd": np.ones(len(one), np.bool_)})
    assert all(one["iscrowd"] == 1 for one in to_youtube_vis(crowd)["annotations"])


def test_what_is_no_segmentation_is_refused(videos):
    with pytest.raises(ValueError, match="train-000000 frame 0 has no masks"):
        to_youtube_vis(Changed(videos, lambda one, t: {"masks": None}))
    with pytest.raises(ValueError, match="track 0 changes its class"):
        to_youtube_vis(Changed(videos, lambda one, t: {"labels": np.full(len(one), t)}))
