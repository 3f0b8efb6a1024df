import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from stpn_core import TransformerPredictor
from stpn_data import CausalSampler, CausalTrackSampler, DataError, TrackSamples
from stpn_data.sequences import TrackingSequence
from stpn_data.track_sampling import DrawnFrames
from stpn_tasks.tracking.batch import collate_tracks
from stpn_tasks.tracking.crops import CropWindow, to_input
from stpn_tasks.tracking.losses import box_losses, score_losses
from stpn_tasks.tracking.mixformer import create_mixformer
from stpn_tasks.tracking.samples import CropOptions, TrainingCrops, jitter

LENGTH, SIZE = 30, (60, 80)
SMALL = CropOptions(template_size=32, search_size=64)
STILL = replace(
    SMALL, scale_jitter=0.0, centre_jitter=0.0, grey=0.0, joint_flip=0.0, flip=0.0, brightness=0.0
)


class Drawn:
    """Sequences whose frames a function paints."""

    def __init__(self, paint, boxes, seen=None):
        self.paint = paint
        seen = np.ones((len(boxes), LENGTH), bool) if seen is None else seen
        self.sequences = [
            TrackingSequence(f"s{n}", SIZE, np.array(rows, float), visible, visible)
            for n, (rows, visible) in enumerate(zip(boxes, seen, strict=True))
        ]

    def frame(self, sequence, index):
        return self.paint(self.sequences[sequence], sequence, index)

    def frames(self, sequence):
        return (self.frame(sequence, t) for t in range(LENGTH))


def moving(number=0):
    return [(20.0 + t, 10.0 + number + t // 2, 12.0, 9.0) for t in range(LENGTH)]


def square(sequence, number, index):
    """White on black, nothing else."""
    pixels = np.zeros((*SIZE, 3), np.uint8)
    x, y, w, h = sequence.boxes_xywh[index].astype(int)
    pixels[y : y + h, x : x + w] = 255
    return pixels


def named(sequence, number, index):
    """One colour, which tells sequence and frame."""
    return np.full((*SIZE, 3), (100 + number, 50 + index, 200), np.uint8)


def ramp(sequence, number, index):
    """Lighter from left to right."""
    columns = np.arange(SIZE[1], dtype=np.uint8) * 2 + 40
    return np.repeat(np.tile(columns, (SIZE[0], 1))[..., None], 3, 2)


def noise(sequence, number, index):
    return np.random.default_rng([number, index]).integers(0, 256, (*SIZE, 3)).astype(np.uint8)


def training_crops(paint, options, *, boxes=None, seen=None, sampler=None, count=12, seed=0):
    dataset = Drawn(paint, [moving()] if boxes is None else boxes, seen)
    samples = TrackSamples(dataset, sampler or CausalTrackSampler(8), count, seed)
    return TrainingCrops(samples, options)


def all_crops(item):
    return [item.template, item.online, item.search, *item.support]


def same(one, other):
    pairs = zip(all_crops(one), all_crops(other), strict=True)
    return one.box_xyxy == other.box_xyxy and all(np.array_equal(a, b) for a, b in pairs)


def test_an_item_is_a_function_of_seed_epoch_and_number():
    options = replace(SMALL, support=CausalSampler(2, 3))
    ours, others = (training_crops(noise, options) for _ in range(2))
    forward = [ours[i] for i in range(4)]
    backward = [others[i] for i in reversed(range(4))][::-1]
    assert all(map(same, forward, backward))
    assert not same(forward[0], forward[1])
    others.set_epoch(1)
    assert not same(others[0], ours[0])
    ours.set_epoch(1)
    assert same(others[0], ours[0])
    assert not same(training_crops(noise, options, seed=1)[0], forward[0])


def test_crops_of_the_same_frames_are_other_ones_in_another_epoch():
    items = training_crops(noise, replace(STILL, centre_jitter=4.5), sampler=Fixed(20))
    first = items[0]
    items.set_epoch(1)
    assert items.samples[0].search.index == 20
    assert not same(items[0], first)


def test_the_box_is_where_the_target_is_whatever_was_drawn():
    items = training_crops(square, SMALL, count=40)
    centres = []
    for i in range(len(items)):
        item = items[i]
        edges = np.array(item.box_xyxy) * SMALL.search_size
        if edges.min() < 1 or edges.max() > SMALL.search_size - 1:
            continue
        rows, columns = np.nonzero(item.search[..., 0] > 90)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(edges, found, atol=2.5)
        centres.append((edges[0] + edges[2]) / 2)
    assert len(centres) > 15
    assert np.ptp(centres) > 0.4 * SMALL.search_size  # it was jittered


def test_without_jitter_and_augmentation_crops_are_cut_around_their_boxes():
    items = training_crops(noise, STILL)
    sample, item = items.samples[3], items[3]
    for frame, crop, factor, size in (
        (sample.template, item.template, 2.0, 32),
        (sample.online_template, item.online, 2.0, 32),
        (sample.search, item.search, 5.0, 64),
    ):
        window = CropWindow.around(frame.box_xywh, factor, size)
        np.testing.assert_array_equal(crop, window.cut(frame.pixels))
    assert item.is_positive
    assert item.box_xyxy == window.to_crop(sample.search.box_xywh)


def test_all_crops_of_a_sample_are_grey_or_none():
    options = replace(SMALL, support=CausalSampler(2, 3), grey=0.5)
    items = training_crops(noise, options, count=20)
    grey = [
        {bool((crop[..., 0] == crop[..., 2]).all()) for crop in all_crops(items[i])}
        for i in range(20)
    ]
    assert all(len(kinds) == 1 for kinds in grey)
    assert 3 < sum(kinds == {True} for kinds in grey) < 17


def is_flipped(crop):
    seen = crop[crop.shape[0] // 2, :, 0].astype(int)
    return bool(np.polyfit(np.flatnonzero(seen), seen[seen > 0], 1)[0] < 0)


@pytest.mark.parametrize(
    ("joint", "each", "kinds"),
    [
        (0.5, 0.0, {(0, 0), (1, 1)}),
        (0.5, 0.5, {(0, 0), (0, 1), (1, 0), (1, 1)}),
        (1.0, 1.0, {(0, 0)}),
    ],
)
def test_flips_are_of_all_crops_and_of_each(joint, each, kinds):
    items = training_crops(ramp, replace(STILL, joint_flip=joint, flip=each), count=24)
    drawn = [items[i] for i in range(24)]
    assert {(is_flipped(item.template), is_flipped(item.search)) for item in drawn} == kinds


def test_brightness_is_drawn_for_each_crop():
    items = training_crops(named, replace(STILL, brightness=0.2), count=24)
    factors = np.array(
        [[crop[..., 2].max() / 200 for crop in all_crops(items[i])] for i in range(24)]
    )
    assert factors.min() >= 0.795
    assert factors.max() <= 1.205
    assert factors.std(axis=1).min() > 0
    assert np.ptp(factors) > 0.3


BESIDE = [(-50.0, 10.0, 51.0, 10.0)] * LENGTH  # a pixel is on the frame, the centre is not


def test_samples_that_show_nothing_are_replaced():
    items = training_crops(named, SMALL, boxes=[BESIDE, moving()], count=16)
    numbers = {items.samples[i].template.sequence for i in range(16)}
    assert numbers == {0, 1}
    for i in range(16):
        assert all(crop.any() for crop in all_crops(items[i]))


def test_boxes_that_all_lie_beside_their_frames_are_named():
    with pytest.raises(DataError, match="sample 1: 100 samples in a row"):
        training_crops(named, SMALL, boxes=[BESIDE])[1]


class Fixed:
    """Draw the same frames always; a negative from another sequence if no search frame is given."""

    def __init__(self, search, online=8):
        self.search, self.online = search, online

    def __call__(self, visible, random):
        return DrawnFrames(9, self.online, self.search, is_positive=self.search is not None)


def frame_of(crop):
    sequence, index = crop.reshape(-1, 3).max(0)[:2].astype(int) - (100, 50)
    return int(sequence), int(index)


@pytest.mark.parametrize(("search", "expected"), [(20, [10, 15]), (21, [15, 20]), (4, [0, 0])])
def test_support_is_that_of_the_tracker(search, expected):
    options = replace(STILL, support=CausalSampler(2, 5))
    item = training_crops(named, options, sampler=Fixed(search))[0]
    assert frame_of(item.search) == (0, search)
    assert [frame_of(crop) for crop in item.support] == [(0, index) for index in expected]


class Either(Fixed):
    """Draw the first frame or a later one to search in."""

    def __call__(self, visible, random):
        self.search = random.choice([0, 12])
        return super().__call__(visible, random)


@pytest.mark.parametrize("support", [CausalSampler(2, 5), None])
def test_the_first_frame_is_not_searched_with_support_for_there_is_none_before_it(support):
    items = training_crops(named, replace(STILL, support=support), sampler=Either(0), count=30)
    searched = {frame_of(item.search)[1] for item in items}
    assert searched == ({0, 12} if support is None else {12})
    alone = training_crops(named, replace(STILL, support=support), sampler=Fixed(0), count=2)
    if support is None:
        assert frame_of(alone[0].search) == (0, 0)
    else:
        with pytest.raises(DataError, match="no frame before the search frame"):
            alone[0]


def test_support_crops_lie_around_their_own_boxes_with_a_jitter_of_their_own():
    options = replace(STILL, support=CausalSampler(2, 5))
    items = training_crops(square, options, sampler=Fixed(20))
    for crop, index in zip(items[0].support, (10, 15), strict=True):
        frame = items.samples.dataset.frame(0, index)
        window = CropWindow.around(moving()[index], 5.0, 64)
        np.testing.assert_array_equal(crop, window.cut(frame))
    jittered = replace(options, centre_jitter=4.5)
    item = training_crops(square, jittered, sampler=Fixed(20))[0]
    places = [np.argwhere(crop[..., 0] > 90).mean(0) for crop in (item.search, *item.support)]
    assert np.abs(np.diff(places, axis=0)).max() > 3


def test_support_crops_of_the_target_show_it_in_the_middle_at_the_scale_of_search_crops():
    options = replace(STILL, support=CausalSampler(2, 5), centre_jitter=4.5, support_crop="target")
    items = training_crops(square, options, sampler=Fixed(20))
    sides = []
    for i in range(8):
        item = items[i]
        sides.append(math.sqrt((item.search[..., 0] > 127).sum()))
        for crop in item.support:
            assert crop.shape == (32, 32, 3)
            shown = crop[..., 0] > 127
            sides.append(math.sqrt(shown.sum()))
            # Off by at most a quarter of its own side, which is 64 / 5 pixels.
            assert np.abs(np.argwhere(shown).mean(0) - 15.5).max() < 64 / 5 / 4 + 1
    assert np.ptp(sides) < 1.5
    batch = collate_tracks([items[0], items[1]])
    assert batch.support.shape == (2, 2, 3, 32, 32)


def test_a_support_frame_that_is_taken_twice_is_one_crop():
    options = replace(SMALL, support=CausalSampler(3, 5))
    item = training_crops(noise, options, sampler=Fixed(7))[0]
    first, again, last = item.support
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, last)


def test_support_without_a_box_lies_around_the_latest_one_before_or_the_first_one():
    boxes, seen = np.array(moving()), np.ones(LENGTH, bool)
    for gone in (0, 1, 2, 10, 11):
        boxes[gone], seen[gone] = np.nan, False
    options = replace(STILL, support=CausalSampler(3, 5))
    items = training_crops(noise, options, boxes=[boxes], seen=[seen], sampler=Fixed(12))
    found = items[0].support
    for crop, index, around in zip(found, (0, 5, 10), (3, 5, 9), strict=True):
        window = CropWindow.around(boxes[around].tolist(), 5.0, 64)
        np.testing.assert_array_equal(crop, window.cut(noise(None, 0, index)))


@pytest.mark.parametrize(("template", "supported"), [(8, [3, 6]), (LENGTH - 1, [24, 27])])
def test_support_of_a_negative_is_of_its_target_up_to_the_second_template(template, supported):
    options = replace(STILL, support=CausalSampler(2, 3))
    boxes = [moving(), moving(1)]
    items = training_crops(named, options, boxes=boxes, sampler=Fixed(None, template), count=8)
    for i in range(8):
        item = items[i]
        target, of_template = frame_of(item.online)
        assert not item.is_positive
        assert target != frame_of(item.search)[0]
        assert of_template == template
        assert [frame_of(crop) for crop in item.support] == [(target, s) for s in supported]


sides = st.floats(1.0, 50.0)


@given(st.tuples(st.floats(-20, 80), st.floats(-20, 80), sides, sides), st.integers(0, 99))
def test_a_jittered_crop_has_the_centre_of_the_target_in_it(box, seed):
    window = CropWindow.around(jitter(box, 0.5, 4.5, Random(seed)), 5.0, 320)
    left, top, right, bottom = window.to_crop(box)
    assert 0 < (left + right) / 2 < 1
    assert 0 < (top + bottom) / 2 < 1


def test_jitter_is_as_wide_as_asked():
    random = Random(0)
    drawn = np.array([jitter((10.0, 20.0, 8.0, 2.0), 0.5, 4.5, random) for _ in range(2000)])
    logs = np.log(drawn[:, 2:] / (8.0, 2.0))
    np.testing.assert_allclose(logs.mean(0), 0.0, atol=0.05)
    np.testing.assert_allclose(logs.std(0), 0.5, atol=0.03)
    offsets = drawn[:, :2] + drawn[:, 2:] / 2 - (14.0, 21.0)
    shares = offsets / np.sqrt(drawn[:, 2] * drawn[:, 3])[:, None]
    assert np.abs(shares).max() <= 2.25
    np.testing.assert_allclose(shares.std(0), 4.5 / math.sqrt(12), atol=0.06)


def test_a_batch_has_every_sample_in_its_place():
    items = training_crops(noise, replace(SMALL, support=CausalSampler(2, 3)))
    samples = [items[0], replace(items[1], is_positive=False), items[2]]
    batch = collate_tracks(samples)
    assert len(batch) == 3
    assert batch.template.shape == (3, 3, 32, 32)
    assert batch.online.shape == (3, 1, 3, 32, 32)
    assert batch.search.shape == (3, 3, 64, 64)
    assert batch.support.shape == (3, 2, 3, 64, 64)
    for number, sample in enumerate(samples):
        assert_close(batch.template[number], to_input([sample.template])[0])
        assert_close(batch.online[number, 0], to_input([sample.online])[0])
        assert_close(batch.support[number], to_input(sample.support))
        assert batch.boxes_xyxy[number].tolist() == pytest.approx(sample.box_xyxy)
    assert batch.is_positive.tolist() == [True, False, True]
    moved = batch.to("meta")
    assert {value.device.type for value in vars(moved).values()} == {"meta"}


def test_a_batch_without_support_has_none():
    items = training_crops(noise, SMALL)
    assert collate_tracks([items[0], items[1]]).to("cpu").support is None
    with_support = training_crops(noise, replace(SMALL, support=CausalSampler(2, 3)))
    with pytest.raises(ValueError, match=r"as many support frames, got \[0, 2\]"):
        collate_tracks([items[0], with_support[0]])
    with pytest.raises(ValueError, match="at least one sample"):
        collate_tracks([])


def test_the_network_learns_from_a_batch():
    torch.manual_seed(0)
    network = create_mixformer("small", predictor=TransformerPredictor, num_prompts=4)
    options = replace(SMALL, template_size=64, support=CausalSampler(2, 3))
    items = training_crops(noise, options)
    batch = collate_tracks([items[0], items[1]])
    templates = network.encode_templates(batch.template, batch.online)
    prompts = network.predict_prompts(network.embed_support_crops(batch.support, templates))
    found = network.track(batch.search, templates, prompts)
    losses = box_losses(found.boxes_cxcywh, batch.boxes_xyxy)
    (losses.total + score_losses(found.scores, batch.is_positive).total).backward()
    for name, parameter in network.predictor.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


def test_templates_and_search_crop_are_the_same_whatever_supports_them():
    boxes = [moving(), moving(), moving()]
    support = CausalSampler(2, 3)
    plain, own, other = (
        training_crops(noise, options, boxes=boxes)
        for options in (
            SMALL,
            replace(SMALL, support=support),
            replace(SMALL, support=support, support_video="other"),
        )
    )
    for i in range(6):
        assert not plain[i].support
        for items in (own, other):
            assert np.array_equal(items[i].template, plain[i].template)
            assert np.array_equal(items[i].online, plain[i].online)
            assert np.array_equal(items[i].search, plain[i].search)
            assert items[i].box_xyxy == plain[i].box_xyxy


def test_support_of_another_video_shows_another_sequence():
    options = replace(STILL, support=CausalSampler(2, 3), brightness=0.0, support_video="other")
    items = training_crops(named, options, boxes=[moving(), moving(), moving()])
    for i in range(len(items)):
        sequence = items.samples[i].search.sequence
        shown = {int(crop.max(axis=(0, 1))[0]) - 100 for crop in items[i].support}
        assert len(shown) == 1
        assert sequence not in shown


def test_support_of_another_video_needs_one():
    options = replace(SMALL, support=CausalSampler(2, 3), support_video="other")
    with pytest.raises(DataError, match="no other sequence"):
        training_crops(noise, options)[0]
