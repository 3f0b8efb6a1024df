"""Controls of a tracker's support: what they change, and that they change nothing else."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from stpn_data.sampling import CausalSampler
from stpn_tasks.tracking.options import TrackerOptions
from stpn_tasks.tracking.run import track_sequence
from stpn_tasks.tracking.support_controls import BorrowedSupport, NotedSupport, PromptsOff
from stpn_tasks.tracking.tracker import OnlineTracker

OPTIONS = TrackerOptions(
    template_size=16, search_size=32, update_interval=None, support=CausalSampler(2, 2)
)


@pytest.fixture
def track(tiny_tracking):
    return partial(_track, tiny_tracking.MovingTargets((9, 9)))


@pytest.fixture
def prompted(tiny_tracking):
    return tiny_tracking.ToyNetwork(prompted=True)


def _track(data, network, sequence=0):
    tracker = OnlineTracker(network, OPTIONS)
    box = data.sequences[sequence].boxes_xywh[0].tolist()
    return track_sequence(tracker, data.frames(sequence), box).boxes_xywh


def test_noting_changes_no_box_and_keeps_every_support_crop(track, prompted):
    noted = NotedSupport(prompted)
    assert (track(noted) == track(prompted)).all()
    assert [tuple(crop.shape) for crop in noted.crops] == [(1, 3, 32, 32)] * 5  # 0, 2, 4, 6, 8


def test_a_sequence_that_borrows_its_own_support_is_tracked_as_without(track, prompted):
    noted = NotedSupport(prompted)
    own = track(noted)
    assert (track(BorrowedSupport(prompted, noted.crops)) == own).all()


def test_support_of_another_sequence_moves_boxes_through_the_prompts_alone(track, prompted):
    noted = NotedSupport(prompted)
    track(noted, sequence=1)
    own = track(prompted)
    borrowed = track(BorrowedSupport(prompted, noted.crops))
    assert (borrowed[1:] != own[1:]).any()
    fewer = track(BorrowedSupport(prompted, noted.crops[:1]))
    assert (fewer[1:3] == borrowed[1:3]).all()  # supported by frame 0 alone
    assert (fewer[5:] != borrowed[5:]).any()


def test_without_prompts_it_is_the_plain_tracker(tiny_tracking, track, prompted):
    plain = tiny_tracking.ToyNetwork(prompted=False)
    plain.load_state_dict(prompted.state_dict(), strict=False)
    assert (track(PromptsOff(prompted)) == track(plain)).all()
    assert prompted.predictions == 0


def test_borrowing_nothing_is_refused(prompted):
    with pytest.raises(ValueError, match="no support crops"):
        BorrowedSupport(prompted, [])


def test_templates_and_scores_pass_through(tiny_tracking, prompted):
    data = tiny_tracking.MovingTargets((9, 9))
    tracker = OnlineTracker(NotedSupport(prompted), OPTIONS)
    tracker.init(data.frame(0, 0), data.sequences[0].boxes_xywh[0].tolist())
    assert tracker.track(data.frame(0, 1)).score is not None
    assert torch.equal(prompted.encoded[0][0, 0], tracker.state.template[0])
