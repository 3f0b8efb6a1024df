import itertools

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors

from stpn_data import (
    Clip,
    Compose,
    PadToLargest,
    RandomChoice,
    RandomCrop,
    RandomHorizontalFlip,
    ResizeShortestEdge,
    SanitizeBoxes,
    paper_test_transform,
    paper_training_transforms,
    random_resize_crop,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make_clip(height=50, width=70, support=2, masks=True):
    """A noise clip whose three objects are rectangles, with masks equal to their boxes."""
    rng = np.random.default_rng(0)
    images = [
        tv_tensors.Image(torch.from_numpy(rng.integers(0, 256, (3, height, width), np.uint8)))
        for _ in range(support + 1)
    ]
    boxes = [[0, 0, 9, 8], [20, 10, 40, 30], [width - 12, height - 10, width, height]]
    mask = torch.zeros(3, height, width, dtype=torch.bool)
    for i, (left, top, right, bottom) in enumerate(boxes):
        mask[i, top:bottom, left:right] = True
    return Clip(
        frame=images[0],
        support=tuple(images[1:]),
        boxes=tv_tensors.BoundingBoxes(
            torch.tensor(boxes, dtype=torch.float32), format="XYXY", canvas_size=(height, width)
        ),
        labels=torch.tensor([4, 5, 6]),
        track_ids=torch.tensor([14, 15, 16]),
        masks=tv_tensors.Mask(mask) if masks else None,
        video=1,
        index=2,
        original_size=(height, width),
    )


def box_of(mask):
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return [columns.min().item(), rows.min().item(), columns.max().item() + 1,
            rows.max().item() + 1]  # fmt: skip


ALL = [
    RandomHorizontalFlip(1.0),
    ResizeShortestEdge((30, 40), 60),
    RandomCrop(20, 40),
    PadToLargest(),
    SanitizeBoxes(),
    random_resize_crop(),
    paper_training_transforms(),
    paper_test_transform(),
]


@pytest.mark.parametrize("transform", ALL, ids=lambda transform: type(transform).__name__)
@pytest.mark.parametrize("masks", [True, False])
def test_the_clip_given_stays_as_it_was(transform, masks):
    clip, untouched = make_clip(masks=masks), make_clip(masks=masks)
    result = transform(clip, generator())
    assert torch.equal(clip.frame, untouched.frame)
    assert all(map(torch.equal, clip.support, untouched.support))
    assert torch.equal(clip.boxes, untouched.boxes)
    assert result.frame.dtype == torch.uint8
    assert tuple(result.boxes.canvas_size) == result.size
    assert (result.video, result.index, result.original_size) == (1, 2, (50, 70))
    if masks:
        assert torch.equal(clip.masks, untouched.masks)
        assert tuple(result.masks.shape[-2:]) == result.size
    else:
        assert result.masks is None


def test_flip_mirrors_everything_together():
    clip = make_clip()
    flipped = RandomHorizontalFlip(1.0)(clip, generator())
    assert torch.equal(flipped.frame, clip.frame.flip(-1))
    assert torch.equal(flipped.support[1], clip.support[1].flip(-1))
    assert flipped.boxes.tolist() == [[61, 0, 70, 8], [30, 10, 50, 30], [0, 40, 12, 50]]
    assert [box_of(mask) for mask in flipped.masks] == flipped.boxes.tolist()
    assert torch.equal(flipped.track_ids, clip.track_ids)


def test_flip_happens_with_its_probability():
    clip = make_clip(8, 80, support=0)
    shared = generator()
    flips = [RandomHorizontalFlip(0.25)(clip, shared) is not clip for _ in range(400)]
    assert 60 < sum(flips) < 140
    assert RandomHorizontalFlip(0.0)(clip, shared) is clip


@pytest.mark.parametrize(
    ("size", "sizes", "max_size", "expected"),
    [
        ((720, 1280), (600,), 1000, (563, 1000)),  # the long side is capped: 562.5 rounds up
        ((480, 640), (600,), 1000, (600, 800)),
        ((640, 480), (600,), 1000, (800, 600)),
        ((360, 640), (600,), 1000, (563, 1000)),
        ((101, 103), (50,), 1000, (50, 51)),
    ],
)
def test_resized_sides_round_as_in_mmdetection(size, sizes, max_size, expected):
    clip = make_clip(*size, support=1)
    resized = ResizeShortestEdge(sizes, max_size)(clip, generator())
    assert resized.size == expected
    assert resized.support[0].shape[-2:] == expected
    scale = torch.tensor([expected[1] / size[1], expected[0] / size[0]]).repeat(2)
    torch.testing.assert_close(resized.boxes.as_subclass(torch.Tensor), clip.boxes * scale)


def test_resized_pixels_are_those_of_opencv():
    clip = make_clip()
    resized = ResizeShortestEdge((37,), 1000)(clip, generator())
    expected = cv2.resize(clip.frame.permute(1, 2, 0).numpy(), (52, 37))
    np.testing.assert_array_equal(resized.frame.permute(1, 2, 0).numpy(), expected)


def test_all_frames_of_a_clip_draw_one_size():
    resize = ResizeShortestEdge((20, 30, 40), 100)
    seen = set()
    for seed in range(20):
        clip = resize(make_clip(), generator(seed))
        assert all(image.shape[-2:] == clip.size for image in clip.support)
        seen.add(clip.size[0])
    assert seen == {20, 30, 40}


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_boxes_follow_their_masks_through_a_crop(seed):
    clip = make_clip()
    cropped = SanitizeBoxes()(RandomCrop(20, 40)(clip, generator(seed)), generator())
    assert all(20 <= side <= 40 for side in cropped.size)
    assert [box_of(mask) for mask in cropped.masks] == cropped.boxes.tolist()
    assert len(cropped.labels) == len(cropped.track_ids) == len(cropped.boxes)
    assert torch.equal(cropped.track_ids, cropped.labels + 10)


def test_crops_are_drawn_for_each_frame_on_its_own():
    cropped = RandomCrop(20, 40)(make_clip(), generator(3))
    sizes = {tuple(image.shape[-2:]) for image in (cropped.frame, *cropped.support)}
    assert len(sizes) == 3


def test_a_crop_is_a_part_of_the_frame_and_covers_all_places():
    pixels = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 4).expand(3, 3, 4)
    clip = make_clip(3, 4, support=0, masks=False)
    clip = Clip(**(vars(clip) | {"frame": tv_tensors.Image(pixels)}))
    seen = set()
    for seed in range(200):
        crop = RandomCrop(2, 3)(clip, generator(seed)).frame[0]
        top, left = divmod(int(crop[0, 0]), 4)
        height, width = crop.shape
        assert torch.equal(crop, pixels[0, top : top + height, left : left + width])
        seen.add((height, width, top, left))
    sides = {(h, w) for h, w in itertools.product((2, 3), (2, 3))}
    assert seen == {
        (h, w, top, left) for h, w in sides for top in range(4 - h) for left in range(5 - w)
    }


def test_a_small_frame_is_not_cropped():
    assert RandomCrop(384, 600)(make_clip(), generator()).size == (50, 70)


def test_padding_reaches_the_largest_sides():
    clip = RandomCrop(20, 40)(make_clip(), generator(1))
    padded = PadToLargest()(clip, generator())
    images = (clip.frame, *clip.support)
    expected = tuple(max(image.shape[axis] for image in images) for axis in (-2, -1))
    for before, after in zip(images, (padded.frame, *padded.support), strict=True):
        height, width = before.shape[-2:]
        assert tuple(after.shape[-2:]) == expected
        assert torch.equal(after[:, :height, :width], before)
        assert after[:, height:].sum() == after[:, :, width:].sum() == 0
    assert torch.equal(padded.boxes, clip.boxes)


def test_sanitize_clips_and_drops_with_everything_that_belongs_together():
    clip = make_clip()
    boxes = torch.tensor([[-5.0, -5, 3, 4], [10, 10, 10, 20], [60, 40, 90, 80]])
    clip = Clip(**(vars(clip) | {"boxes": tv_tensors.wrap(boxes, like=clip.boxes), "masks": None}))
    kept = SanitizeBoxes()(clip, generator())
    assert kept.boxes.tolist() == [[0, 0, 3, 4], [60, 40, 70, 50]]
    assert (kept.labels.tolist(), kept.track_ids.tolist()) == ([4, 6], [14, 16])


def test_sanitize_drops_an_object_with_an_empty_mask():
    clip = make_clip()
    clip.masks[1] = False
    kept = SanitizeBoxes()(clip, generator())
    assert kept.track_ids.tolist() == [14, 16]
    assert kept.masks.shape == (2, 50, 70)


@pytest.mark.parametrize("transform", ALL, ids=lambda transform: type(transform).__name__)
def test_a_clip_without_objects_and_support_is_fine(transform):
    clip = make_clip(support=0)
    empty = {"boxes": tv_tensors.wrap(clip.boxes[:0], like=clip.boxes), "labels": clip.labels[:0],
             "track_ids": clip.track_ids[:0], "masks": tv_tensors.Mask(clip.masks[:0])}  # fmt: skip
    result = transform(Clip(**(vars(clip) | empty)), generator())
    assert result.boxes.shape == (0, 4)
    assert result.support == ()


def test_the_choice_is_even_and_composition_in_order():
    small, large = ResizeShortestEdge((10,), 99), ResizeShortestEdge((20,), 99)
    choice = RandomChoice((small, large))
    heights = [choice(make_clip(support=0), generator(seed)).size[0] for seed in range(200)]
    assert 70 < heights.count(10) < 130
    assert Compose((small, large))(make_clip(), generator()).size == (20, 28)


def test_paper_policies_give_the_published_sizes():
    clip = make_clip(288, 512)
    shared = generator()
    for _ in range(12):
        result = paper_training_transforms()(clip, shared)
        short, long = sorted(result.size)
        assert long <= 1333
        assert short in range(480, 801, 32) or long == 1333
        assert all(image.shape == result.frame.shape for image in result.support)
    assert paper_test_transform()(clip, shared).size == (563, 1000)


def test_the_same_generator_state_gives_the_same_clip():
    first, second = (paper_training_transforms()(make_clip(), generator(5)) for _ in range(2))
    assert torch.equal(first.frame, second.frame)
    assert all(map(torch.equal, first.support, second.support))
    assert torch.equal(first.boxes, second.boxes)


def test_a_very_thin_frame_keeps_one_pixel():
    clip = make_clip(2000, 12, support=1)
    assert ResizeShortestEdge((10,), 50)(clip, generator()).size == (50, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomHorizontalFlip(1.5), "p must"),
        (lambda: ResizeShortestEdge((), 100), "sizes must"),
        (lambda: ResizeShortestEdge((0, 50), 100), "sizes must"),
        (lambda: ResizeShortestEdge((200,), 100), "max_size=100"),
        (lambda: RandomCrop(0, 5), "min_size"),
        (lambda: RandomCrop(6, 5), "max_size"),
        (lambda: RandomChoice(()), "at least one"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
