from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from stpn_data import DataError
from stpn_data.sequences import TrackingSequence
from stpn_data.track_samples import TrackSamples
from stpn_data.track_sampling import CausalTrackSampler, TridentTrackSampler

SIZE = (40, 80)
CENTRED = (35.0, 17.5, 10.0, 5.0)
seeds = st.integers(0, 2**32)
visibilities = st.lists(st.booleans(), min_size=1, max_size=60).map(np.array)


class Sequences:
    """Sequences whose frames and boxes tell where they are from."""

    def __init__(self, *visible, boxless=()):
        self.sequences = []
        for number, seen in enumerate(visible):
            seen = np.array(seen, np.bool_)
            boxes = np.array([(index % 70, number, 4.0, 3.0) for index in range(len(seen))])
            for place, index in boxless:
                if place == number:
                    boxes[index] = 0
            self.sequences.append(TrackingSequence(str(number), SIZE, boxes, seen, seen))

    def frame(self, sequence, index):
        return np.full((*SIZE, 3), (sequence, index, 0), np.uint8)

    def frames(self, sequence):
        raise AssertionError("training reads single frames")


def frames_of(sample):
    return sample.template, sample.online_template, sample.search


def frame_place(frame):
    return frame.sequence, frame.index


def drawn(sampler, visible, count=400):
    return [sampler(np.array(visible, np.bool_), Random(seed)) for seed in range(count)]


@given(visibilities.filter(lambda v: v.sum() >= 3), st.integers(1, 20), seeds)
def test_causal_frames_are_visible_and_in_order(visible, gap, seed):
    one = CausalTrackSampler(gap)(visible, Random(seed))
    assert one.online_template < one.template < one.search
    assert visible[[one.online_template, one.template, one.search]].all()
    assert one.is_positive


def test_causal_draws_every_frame_within_the_gap_and_no_other():
    samples = drawn(CausalTrackSampler(4), [True] * 30, 3000)
    assert {one.template for one in samples} == set(range(1, 29))
    assert {one.template - one.online_template for one in samples} == {1, 2, 3, 4}
    assert {one.search - one.template for one in samples} == {1, 2, 3}


def test_causal_widens_the_gap_in_steps_of_five_until_there_is_a_frame():
    # Only frames 0, 20 and 40: the gap has to reach 20 back, and 21 to search (20 is excluded).
    visible = np.zeros(41, np.bool_)
    visible[[0, 20, 40]] = True
    for one in drawn(CausalTrackSampler(1), visible, 20):
        assert (one.online_template, one.template, one.search) == (0, 20, 40)
    # Template 10 needs a gap of 10 back to frame 0, template 11 one of 50 on to frame 60: in small
    # steps template 10 is drawn before the gap is that wide, 255 times of 256.
    visible = np.zeros(62, np.bool_)
    visible[[0, 10, 11, 60]] = True
    samples = drawn(CausalTrackSampler(2), visible)
    assert np.mean([one.template == 10 for one in samples]) > 0.97


@given(visibilities.filter(lambda v: v.any()), st.integers(1, 20), seeds)
def test_trident_templates_lie_on_one_side_of_the_search_frame(visible, gap, seed):
    one = TridentTrackSampler(gap, positive_share=1.0)(visible, Random(seed))
    assert one.is_positive
    assert visible[[one.template, one.search]].all()
    if one.template >= one.search:
        assert one.search <= one.online_template < min(one.search + gap, len(visible))
    else:
        assert max(one.search - gap, 0) <= one.online_template < one.search


def test_trident_takes_any_order_and_an_online_template_that_is_not_visible():
    visible = [True, True, False] * 10
    samples = drawn(TridentTrackSampler(5, positive_share=1.0), visible, 3000)
    assert {np.sign(one.search - one.template) for one in samples} == {-1, 0, 1}
    assert {visible[one.online_template] for one in samples} == {True, False}
    seen = {
        (one.online_template - one.search) * np.sign(one.template - one.search) for one in samples
    }
    assert seen == {0, 1, 2, 3, 4, 5}


@given(visibilities.filter(lambda v: v.any()), seeds)
def test_a_trident_negative_is_a_frame_without_the_target_or_from_elsewhere(visible, seed):
    one = TridentTrackSampler(positive_share=0.0)(visible, Random(seed))
    assert not one.is_positive
    assert visible[one.template]
    assert one.search is None if visible.all() else not visible[one.search]


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_the_share_of_positives_is_as_asked(share):
    samples = drawn(TridentTrackSampler(positive_share=share), [True] * 30, 4000)
    assert np.mean([one.is_positive for one in samples]) == pytest.approx(share, abs=0.03)


def test_paper_defaults():
    assert CausalTrackSampler().max_gap == TridentTrackSampler().max_gap == 200
    assert TridentTrackSampler().positive_share == 0.5
    assert len(TrackSamples(Sequences([True] * 20), CausalTrackSampler())) == 60_000


def test_too_little_to_draw_from_is_an_error():
    with pytest.raises(ValueError, match="three visible"):
        CausalTrackSampler()(np.array([True, False, True]), Random(0))
    with pytest.raises(ValueError, match="a visible frame"):
        TridentTrackSampler()(np.zeros(5, np.bool_), Random(0))
    for sampler in (CausalTrackSampler, TridentTrackSampler):
        with pytest.raises(ValueError, match="max_gap must be at least 1"):
            sampler(0)
    with pytest.raises(ValueError, match="positive_share"):
        TridentTrackSampler(positive_share=1.5)
    with pytest.raises(ValueError, match="num_samples"):
        TrackSamples(Sequences([True] * 20), CausalTrackSampler(), num_samples=0)


def test_only_sequences_that_are_long_enough_and_seen_are_taken():
    data = Sequences(
        [True] * 19,
        [True] * 20,
        [True] * 6 + [False] * 30,
        [True] * 7 + [False] * 30,
    )
    samples = TrackSamples(data, CausalTrackSampler(), 100)
    assert {samples[i].template.sequence for i in range(100)} == {1, 3}
    with pytest.raises(DataError, match="none of 1 sequences has 20 frames and more than 6"):
        TrackSamples(Sequences([True] * 19), CausalTrackSampler())


def test_frames_come_with_their_pixels_and_boxes():
    samples = TrackSamples(Sequences([True] * 30, [True] * 40), CausalTrackSampler(), 50)
    for i in range(50):
        one = samples[i]
        for frame in frames_of(one):
            assert frame.pixels[0, 0].tolist() == [frame.sequence, frame.index, 0]
            assert frame.box_xywh == (frame.index, frame.sequence, 4.0, 3.0)
        assert one.template.sequence == one.search.sequence == one.online_template.sequence


def test_a_negative_of_the_same_sequence_has_a_made_up_box_in_the_centre():
    visible = [True] * 20 + [False] * 5
    samples = TrackSamples(Sequences(visible, visible), TridentTrackSampler(), 200)
    negatives = [one for one in map(samples.__getitem__, range(200)) if not one.is_positive]
    assert len(negatives) > 60
    for one in negatives:
        assert one.search.sequence == one.template.sequence
        assert one.search.index >= 20
        assert one.search.box_xywh == CENTRED


def test_a_negative_of_another_sequence_has_its_box():
    boxless = [(0, 3), (1, 4)]
    seen = [[index != missing for index in range(30)] for missing in (3, 4)]
    data = Sequences([True] * 30, [True] * 30)
    samples = TrackSamples(data, TridentTrackSampler(positive_share=0.0), 60)
    for i in range(60):
        one = samples[i]
        assert one.search.sequence == 1 - one.template.sequence
        assert one.search.box_xywh == (one.search.index, one.search.sequence, 4.0, 3.0)
    # A frame without a box is neither searched nor made a template.
    data = Sequences([True] * 30, seen[1], seen[0], boxless=[*boxless, (2, 3)][1:])
    samples = TrackSamples(data, TridentTrackSampler(), 400)
    for one in map(samples.__getitem__, range(400)):
        assert 0 not in (one.template.box_xywh[2], one.online_template.box_xywh[2])
        assert one.search.box_xywh[2] > 0


def test_a_negative_that_cannot_be_is_an_error():
    samples = TrackSamples(Sequences([True] * 30), TridentTrackSampler(positive_share=0.0))
    with pytest.raises(DataError, match="0: a negative needs frames without the target or another"):
        samples[0]


def test_a_sample_is_a_function_of_seed_epoch_and_index():
    data = Sequences(*([True] * 30 + [False] * 3 for _ in range(4)))

    def places(seed, epoch, order=range(40)):
        samples = TrackSamples(data, TridentTrackSampler(), 40, seed)
        samples.set_epoch(epoch)
        read = {i: samples[i] for i in order}
        return [
            [
                (f.sequence, f.index)
                for f in (read[i].template, read[i].online_template, read[i].search)
            ]
            for i in range(40)
        ]

    assert places(0, 0) == places(0, 0, reversed(range(40)))
    assert places(0, 0) != places(1, 0)
    assert places(0, 0) != places(0, 1)
    with pytest.raises(IndexError, match="sample 40 is not one of 40"):
        places(0, 0, [40])


def test_workers_that_stay_see_the_next_epoch():
    samples = TrackSamples(Sequences([True] * 60), CausalTrackSampler(), 20)
    loader = DataLoader(
        samples, batch_size=None, num_workers=1, persistent_workers=True, collate_fn=_template
    )
    epochs = []
    for epoch in range(2):
        samples.set_epoch(epoch)
        epochs.append(list(loader))
        assert epochs[-1] == [samples[i].template.index for i in range(20)]
    assert epochs[0] != epochs[1]


def _template(sample):
    return sample.template.index
