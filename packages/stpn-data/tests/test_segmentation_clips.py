"""Masks, boxes, labels and identities stay together through transforms and into batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from stpn_data import BilateralRandomSampler, ClipDataset, Compose, RandomCrop, SanitizeBoxes
from stpn_data.batch import collate
from stpn_data.deteriorated import DeterioratedSegmentation, SegmentationOptions
from stpn_data.transforms import segmentation_training_transforms

OPTIONS = SegmentationOptions(
    size=(48, 64), num_frames=6, object_size=(16.0, 22.0), num_objects=(2, 3), same_class=0.0
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    cache = tmp_path_factory.mktemp("clips")
    return DeterioratedSegmentation(
        cache, num_videos=4, options=OPTIONS, num_workers=0, progress=False
    )


def clips_of(videos, transform=None, frames=2):
    return ClipDataset(videos, BilateralRandomSampler(3, frames), transform, seed=5)


def tight(mask):
    rows, columns = torch.nonzero(mask, as_tuple=True)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_masks_boxes_and_identities_stay_together(videos, data):
    """Identities keep their labels; boxes enclose their masks, tightly unless detail is lost."""
    sides = data.draw(st.lists(st.integers(24, 150), min_size=1, max_size=2))
    transform = segmentation_training_transforms(tuple(sides))
    if cropped := data.draw(st.booleans()):
        transform = Compose((RandomCrop(12, 40), transform))
    clip_number = data.draw(st.integers(0, 23))
    original = clips_of(videos)[clip_number]
    clips = clips_of(videos, transform)
    clips.set_epoch(data.draw(st.integers(0, 9)))
    clip = clips[clip_number]
    labels = dict(zip(original.track_ids.tolist(), original.labels.tolist(), strict=True))
    count = len(clip.track_ids)
    assert clip.masks.shape == (count, *clip.size)
    assert len(clip.boxes) == len(clip.labels) == count
    for mask, box, label, track_id in zip(
        clip.masks, clip.boxes, clip.labels, clip.track_ids, strict=True
    ):
        assert labels[int(track_id)] == int(label)
        assert mask.any()
        inner = torch.tensor(tight(mask))
        assert (box[:2] <= inner[:2] + 0.51).all()
        assert (box[2:] >= inner[2:] - 0.51).all()
        if not cropped and min(sides) >= 48:
            assert (box - inner).abs().max() <= 0.51


def test_a_resized_mask_keeps_its_centre(videos):
    """Half size looks between pixels on both sides alike."""
    clip = clips_of(videos)[0]
    mask = torch.zeros(1, 48, 64, dtype=torch.bool)
    mask[0, 10:30, 20:44] = True
    box = torch.tensor([[20.0, 10, 44, 30]])
    whole = replace(
        clip,
        boxes=tv_tensors.BoundingBoxes(box, format="XYXY", canvas_size=(48, 64)),
        labels=clip.labels[:1],
        track_ids=clip.track_ids[:1],
        masks=tv_tensors.Mask(mask),
    )
    for side in (16, 24, 96, 144):
        resized = segmentation_training_transforms((side,))(whole, torch.Generator())
        assert tight(resized.masks[0]) == pytest.approx(resized.boxes[0].tolist(), abs=0.51)


def test_what_vanishes_is_dropped_with_box_label_and_identity(videos):
    clip = clips_of(videos)[0]
    assert len(set(clip.labels.tolist())) >= 2
    masks = clip.masks.clone()
    masks[0] = False
    kept = SanitizeBoxes()(replace(clip, masks=tv_tensors.Mask(masks)), torch.Generator())
    assert torch.equal(kept.track_ids, clip.track_ids[1:])
    assert torch.equal(kept.labels, clip.labels[1:])
    assert torch.equal(kept.boxes, clip.boxes[1:])
    assert len(kept.masks) == len(clip.masks) - 1


def test_batches_hold_masks_on_the_padded_frames(videos):
    clips = clips_of(videos, segmentation_training_transforms((40, 56)))
    items = [clips[i] for i in range(6)]
    assert len({clip.size for clip in items}) > 1
    batch = collate(items, with_masks=True)
    assert batch.frames.shape == (6, 3, 64, 96)
    assert batch.support.shape == (6, 2, 3, 64, 96)
    for clip, targets in zip(items, batch.targets, strict=True):
        height, width = clip.size
        assert targets.masks.shape == (len(targets.labels), 64, 96)
        assert targets.masks.dtype == torch.bool
        assert torch.equal(targets.masks[:, :height, :width], clip.masks)
        assert targets.masks.sum() == clip.masks.sum()
    assert batch.to("cpu").targets[0].masks is not None
    assert collate(items).targets[0].masks is None


def test_frames_without_objects_have_no_masks_in_batches(videos):
    clip = clips_of(videos)[0]
    empty = replace(
        clip,
        boxes=tv_tensors.wrap(clip.boxes[:0], like=clip.boxes),
        labels=clip.labels[:0],
        track_ids=clip.track_ids[:0],
        masks=tv_tensors.Mask(clip.masks[:0]),
    )
    resized = segmentation_training_transforms((50,))(empty, torch.Generator())
    assert resized.masks.shape == (0, 50, 67)
    assert collate([resized], with_masks=True).targets[0].masks.shape == (0, 64, 96)


def test_masks_that_are_not_there_cannot_be_asked_for(videos):
    clip = replace(clips_of(videos)[7], masks=None)
    with pytest.raises(ValueError, match="frame 1 of video 1 comes without masks"):
        collate([clip], with_masks=True)


def test_epochs_are_the_same_whoever_reads_them(videos):
    clips = clips_of(videos, segmentation_training_transforms((40, 56)))
    clips.set_epoch(3)
    here = [collate([clips[i]], with_masks=True) for i in range(6)]
    loader = DataLoader(
        torch.utils.data.Subset(clips, range(6)),
        collate_fn=lambda items: collate(items, with_masks=True),
        num_workers=1,
    )
    for one, other in zip(here, loader, strict=True):
        assert torch.equal(one.frames, other.frames)
        assert torch.equal(one.support, other.support)
        assert torch.equal(one.targets[0].masks, other.targets[0].masks)
    clips.set_epoch(4)
    assert not all(
        np.array_equal(batch.support, collate([clips[i]]).support) for i, batch in enumerate(here)
    )
