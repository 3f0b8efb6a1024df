import functools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from stpn_data import (
    BilateralRandomSampler,
    CausalSampler,
    ClipDataset,
    Compose,
    FrameObjects,
    RandomHorizontalFlip,
    ResizeShortestEdge,
    Video,
    VideoUniformSampler,
    collate,
    pad_images,
)


class CountingVideos:
    """Two videos whose frame t has the value 10 * video + t everywhere."""

    classes = ("square", "crowd")
    videos = (Video("a", 9, 20, 30, (0, 4, 8)), Video("b", 3, 40, 24, (1,)))

    def __init__(self):
        self.read = []

    def frame(self, video, index):
        self.read.append((video, index))
        size = (self.videos[video].height, self.videos[video].width, 3)
        pixels = np.full(size, 10 * video + index, np.uint8)
        pixels.flags.writeable = False
        return pixels

    def objects(self, video, index):
        return FrameObjects(
            boxes_xyxy=np.array([[1, 2, 11, 12], [0, 0, 20, 20]], np.float32),
            labels=np.array([0, 1]),
            track_ids=np.array([3, 4]),
            is_crowd=np.array([False, True]),
        )

    def conditions(self, video, index):
        return frozenset()


def values(clip):
    return [int(image[0, 0, 0]) for image in (clip.frame, *clip.support)]


def test_clips_are_the_key_frames_of_all_videos():
    clips = ClipDataset(CountingVideos())
    assert len(clips) == 4
    assert [(clip.video, clip.index) for clip in clips] == [(0, 0), (0, 4), (0, 8), (1, 1)]
    assert clips[3].frame.shape == (3, 40, 24)
    assert clips[3].original_size == (40, 24)
    assert clips[3].support == ()


def test_support_frames_come_from_the_sampler_and_are_read_once():
    videos = CountingVideos()
    clips = ClipDataset(videos, CausalSampler(3, 2))
    assert values(clips[1]) == [4, 0, 0, 2]
    assert sorted(videos.read) == [(0, 0), (0, 2), (0, 4)]
    assert values(ClipDataset(videos, VideoUniformSampler(3))[3]) == [11, 10, 11, 12]


def test_crowds_are_left_out():
    clip = ClipDataset(CountingVideos())[0]
    assert clip.boxes.tolist() == [[1, 2, 11, 12]]
    assert (clip.labels.tolist(), clip.track_ids.tolist()) == ([0], [3])


def test_masks_stay_with_their_objects():
    class Masked(CountingVideos):
        def objects(self, video, index):
            objects = super().objects(video, index)
            masks = np.zeros((2, 20, 30), np.bool_)
            masks[0, 2:12, 1:11] = True
            return FrameObjects(**(vars(objects) | {"masks": masks}))

    masks = ClipDataset(Masked())[0].masks
    assert masks.shape == (1, 20, 30)
    assert masks.sum() == 100


def random_clips(seed=0):
    transform = Compose((RandomHorizontalFlip(), ResizeShortestEdge(tuple(range(10, 60)), 999)))
    return ClipDataset(CountingVideos(), BilateralRandomSampler(4), transform, seed)


def draws(clips, order=range(4)):
    found = {i: (values(clips[i]), clips[i].size, clips[i].boxes.tolist()) for i in order}
    return [found[i] for i in sorted(found)]


def test_draws_depend_on_seed_epoch_and_index_only():
    clips = random_clips()
    first = draws(clips)
    assert first == draws(clips) == draws(clips, (3, 1, 0, 2)) == draws(random_clips())
    assert first != draws(random_clips(seed=1))
    clips.set_epoch(1)
    second = draws(clips)
    assert second != first
    clips.set_epoch(0)
    assert draws(clips) == first


def test_workers_draw_the_same_and_see_the_next_epoch():
    clips = random_clips()
    loader = DataLoader(clips, batch_size=None, num_workers=2, persistent_workers=True)
    for epoch in (0, 1):
        clips.set_epoch(epoch)
        sizes = [clip.size for clip in loader]
        assert sizes == [clips[i].size for i in range(4)]


@pytest.mark.parametrize("index", [-1, 4])
def test_clips_outside_are_refused(index):
    with pytest.raises(IndexError, match=f"clip {index}"):
        random_clips()[index]


# Batches


def test_images_are_normalised_and_padded_with_zeros():
    images = [torch.full((3, 5, 33), 255, dtype=torch.uint8), torch.zeros(3, 7, 9).byte()]
    batch = pad_images(images, 16)
    assert batch.shape == (2, 3, 16, 48)
    assert batch.dtype == torch.float32
    torch.testing.assert_close(
        batch[0, :, 4, 32], torch.tensor([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225])
    )
    torch.testing.assert_close(
        batch[1, :, 0, 0], -torch.tensor([0.485 / 0.229, 0.456 / 0.224, 0.406 / 0.225])
    )
    assert batch[0, :, 5:].abs().sum() == batch[0, :, :, 33:].abs().sum() == 0


def test_clips_of_different_sizes_become_one_batch():
    clips = ClipDataset(CountingVideos(), CausalSampler(2, 1))
    batch = collate([clips[1], clips[3]])
    assert len(batch) == 2
    assert batch.frames.shape == (2, 3, 64, 32)
    assert batch.support.shape == (2, 2, 3, 64, 32)
    assert batch.image_sizes == batch.original_sizes == [(20, 30), (40, 24)]
    assert batch.support_sizes == [[(20, 30)] * 2, [(40, 24)] * 2]
    assert (batch.videos, batch.indices) == ([0, 1], [4, 1])
    for number, clip in enumerate((clips[1], clips[3])):
        alone = pad_images([clip.frame, *clip.support], 1)
        height, width = clip.size
        assert torch.equal(batch.frames[number, :, :height, :width], alone[0])
        assert torch.equal(batch.support[number, :, :, :height, :width], alone[1:])
        assert type(batch.targets[number].boxes_xyxy) is torch.Tensor
        assert batch.targets[number].boxes_xyxy.tolist() == [[1, 2, 11, 12]]
        assert batch.targets[number].labels.dtype == torch.int64


def test_no_support_frames_no_support_tensor():
    clips = ClipDataset(CountingVideos())
    assert collate([clips[0]]).support is None


def test_a_batch_moves_to_a_device():
    clips = ClipDataset(CountingVideos(), CausalSampler(2, 1))
    batch = collate([clips[0], clips[1]]).to("meta")
    assert batch.frames.device.type == batch.support.device.type == "meta"
    assert batch.targets[1].boxes_xyxy.device.type == "meta"
    assert batch.targets[1].labels.device.type == "meta"


def test_a_loader_makes_batches():
    clips = ClipDataset(CountingVideos(), CausalSampler(2, 1))
    loader = DataLoader(clips, 3, collate_fn=functools.partial(collate, size_divisor=16))
    assert [batch.frames.shape for batch in loader] == [(3, 3, 32, 32), (1, 3, 48, 32)]


def test_wrong_batches_are_refused():
    clips = ClipDataset(CountingVideos(), CausalSampler(2, 1))
    with pytest.raises(ValueError, match="at least one clip"):
        collate([])
    with pytest.raises(ValueError, match=r"\[2, 0\]"):
        collate([clips[0], ClipDataset(CountingVideos())[0]])
    with pytest.raises(ValueError, match="size_divisor"):
        collate([clips[0]], size_divisor=0)
    with pytest.raises(ValueError, match=r"\(1, 5, 5\)"):
        pad_images([torch.zeros(1, 5, 5).byte()])
    with pytest.raises(ValueError, match="float32"):
        pad_images([torch.zeros(3, 5, 5)])


def test_support_frames_of_another_video_never_come_from_the_own_one():
    videos = CountingVideos()
    clips = ClipDataset(videos, BilateralRandomSampler(2, 2), support_video="other")
    own = ClipDataset(videos, BilateralRandomSampler(2, 2))
    for i in range(4):
        frame, *support = values(clips[i])
        assert frame == values(own[i])[0]
        assert all((value >= 10) != (frame >= 10) for value in support)
    assert all(10 <= value <= 12 for value in values(clips[2])[1:])  # that video has three frames


def test_another_video_is_drawn_anew_in_every_epoch():
    class Many(CountingVideos):
        videos = tuple(Video(str(i), 3, 8, 8, (1,)) for i in range(20))

    clips = ClipDataset(Many(), CausalSampler(1, 1), support_video="other")
    drawn = set()
    for epoch in range(5):
        clips.set_epoch(epoch)
        drawn.add(values(clips[0])[1])
    assert len(drawn) > 1


def test_another_video_must_be_there():
    class One(CountingVideos):
        videos = CountingVideos.videos[:1]

    with pytest.raises(ValueError, match="at least two videos"):
        ClipDataset(One(), CausalSampler(1, 1), support_video="other")
