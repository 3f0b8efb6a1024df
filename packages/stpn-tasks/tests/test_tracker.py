import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from stpn_core import TransformerPredictor
from stpn_data import CausalSampler
from stpn_tasks.tracking.crops import CropWindow, to_input
from stpn_tasks.tracking.mixformer import create_mixformer
from stpn_tasks.tracking.options import TrackerOptions, mixformer_22k, mixformer_unlisted
from stpn_tasks.tracking.tracker import OnlineTracker

LENGTH, SIZE, BOX = 14, (40, 50), (18.0, 12.0, 12.0, 10.0)
OPTIONS = TrackerOptions(
    template_size=16,
    search_size=32,
    online_size=2,
    update_interval=4,
    update_score=0.0,
    support=CausalSampler(num_frames=2, stride=3),
)


@pytest.fixture(scope="session")
def toy_network(tiny_tracking):
    return tiny_tracking.ToyNetwork


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (LENGTH, *SIZE, 3)).astype(np.uint8)


def follow(tracker, frames):
    """Track; return the results, and the states before each frame."""
    tracker.init(frames[0], BOX)
    results, states = [], []
    for frame in frames[1:]:
        states.append(copy.deepcopy(tracker.state))
        results.append(tracker.track(frame))
    return results, states


class Noted:
    """A network, and the prompts of its passes."""

    def __init__(self, network):
        self.network, self.prompts = network, []
        self.predictor = network.predictor

    def __getattr__(self, name):
        return getattr(self.network, name)

    def track(self, search, templates, prompts=None):
        self.prompts.append(prompts)
        return self.network.track(search, templates, prompts)


def make_mixformer():
    torch.manual_seed(0)
    return create_mixformer("small", predictor=TransformerPredictor, num_prompts=4)


@pytest.mark.parametrize("crop", ["searched", "target"])
@pytest.mark.parametrize(("kind", "length"), [("toy", LENGTH), ("mixformer", 6)])
@torch.no_grad()
def test_prompts_of_a_stream_are_those_of_the_offline_definition(
    toy_network, frames, kind, length, crop
):
    options = replace(OPTIONS, search_size=64, support_crop=crop)
    network = toy_network(prompted=True) if kind == "toy" else make_mixformer()
    noted = Noted(network.eval())
    tracker = OnlineTracker(noted, options)
    _, states = follow(tracker, frames[:length])
    searched = [BOX, *[state.box for state in states]]  # by frame: around which it was searched
    found = [*[state.box for state in states], tracker.state.box]
    boxes, factor, size = (found, 2.275, 32) if crop == "target" else (searched, 4.55, 64)
    online = [[states[0].template], *[state.online for state in states]]
    prompted = [prompts for prompts in noted.prompts if prompts is not None]
    assert len(prompted) == length - 1
    for t, prompts in enumerate(prompted, start=1):
        embeddings = []
        for s in options.support(t, length):
            templates = network.encode_templates(states[0].template, torch.stack(online[s], 1))
            window = CropWindow.around(boxes[s], factor, size)
            tokens = network.track(to_input([window.cut(frames[s])]), templates).search_tokens
            embeddings.append(network.embed_support(tokens))
        expected = network.predictor.predict(torch.stack(embeddings, 1))
        assert_close(prompts, expected)
    # The prompts do come from the support frames: those of different ones differ.
    assert (prompted[0][0] - prompted[-1][0]).abs().max() > 1e-3


def test_frames_off_the_grid_cost_one_pass_and_no_prediction(toy_network, frames):
    network = toy_network(prompted=True).eval()
    follow(OnlineTracker(network, OPTIONS), frames)
    plain = sum(prompts is None for prompts in network.passes)
    assert plain == len(range(0, LENGTH, OPTIONS.support.stride)) == 5
    assert len(network.passes) == LENGTH - 1 + plain
    # Frames 1-3 are supported by 0, 4-6 by 0 and 3, 7-9 by 3 and 6, 10-12, 13.
    assert network.predictions == 5


def test_without_a_predictor_it_is_the_plain_tracker(toy_network, frames):
    network = toy_network(prompted=False).eval()
    tracker = OnlineTracker(network, OPTIONS)
    follow(tracker, frames)
    assert network.passes == [None] * (LENGTH - 1)
    assert tracker.state.memory is None


def test_nothing_later_than_a_frame_changes_it(toy_network, frames):
    tracker = OnlineTracker(toy_network(prompted=True).eval(), OPTIONS)
    results, _ = follow(tracker, frames)
    changed = frames.copy()
    changed[9:] = 255 - changed[9:]
    others, _ = follow(tracker, changed)
    assert others[:8] == results[:8]
    assert others[8:] != results[8:]


def test_a_new_target_forgets_the_old_one(toy_network, frames):
    tracker = OnlineTracker(toy_network(prompted=True).eval(), OPTIONS)
    results, _ = follow(tracker, frames)
    follow(tracker, 255 - frames)
    assert follow(tracker, frames)[0] == results


def test_a_snapshot_goes_on_where_it_was_taken(toy_network, frames):
    tracker = OnlineTracker(toy_network(prompted=True).eval(), OPTIONS)
    results, states = follow(tracker, frames)
    tracker.state = states[6]
    assert [tracker.track(frame) for frame in frames[7:]] == results[6:]


def test_without_a_score_the_last_frame_of_an_interval_becomes_a_template(toy_network, frames):
    network = toy_network(prompted=False, scored=False).eval()
    tracker = OnlineTracker(network, OPTIONS)
    results, _ = follow(tracker, frames)
    assert [result.score for result in results] == [None] * (LENGTH - 1)
    assert not any(result.is_lost for result in results)
    assert [len(online[0]) for online in network.encoded] == [1, 2, 2, 2]
    for online, frame in zip(network.encoded[1:], (4, 8, 12), strict=True):
        window = CropWindow.around(results[frame - 1].box_xywh, 2.0, 16)
        slot = {4: 1, 8: 0, 12: 1}[frame]
        assert_close(online[0, slot], to_input([window.cut(frames[frame])])[0])


def test_a_single_template_is_never_renewed(toy_network, frames):
    network = toy_network(prompted=False).eval()
    options = TrackerOptions(
        template_size=16, search_size=32, update_interval=None, update_score=0.0
    )
    follow(OnlineTracker(network, options), frames)
    assert len(network.encoded) == 1


@pytest.mark.parametrize(("least", "lost"), [(0.0, False), (1.0, True)])
def test_a_low_score_marks_the_target_as_lost_and_still_gives_a_box(
    toy_network, frames, least, lost
):
    options = TrackerOptions(template_size=16, search_size=32, lost_score=least)
    results, _ = follow(OnlineTracker(toy_network(prompted=False).eval(), options), frames)
    assert [result.is_lost for result in results] == [lost] * (LENGTH - 1)
    assert all(min(result.box_xywh[2:]) >= options.clip_margin for result in results)


class Scored:
    """Score the frames as written; the target stays in the middle."""

    predictor = None

    def __init__(self, scores):
        self.logits = iter(torch.tensor(scores).logit())
        self.encoded = []

    def encode_templates(self, template, online):
        self.encoded.append(online[0])

    def track(self, search, templates, prompts=None):
        boxes = torch.tensor([[0.5, 0.5, 0.25, 0.25]])
        return SimpleNamespace(
            boxes_cxcywh=boxes, scores=next(self.logits)[None], search_tokens=boxes[None]
        )

    def embed_support(self, search_tokens):
        raise AssertionError("no predictor asks for this")

    predict_prompts = embed_support


@pytest.mark.parametrize(
    ("scores", "decay", "chosen"),
    [
        ([0.6, 0.9, 0.8], 1.0, [2]),  # the best one
        ([0.6, 0.9, 0.8], 0.8, [3]),  # 0.9 * 0.8 < 0.8
        ([0.6, 0.9, 0.7], 0.8, [2]),
        ([0.9, 0.6, 0.6, 0.7, 0.4, 0.4], 1.0, [1, 4]),  # the first interval's score is forgotten
        ([0.9, 0.6, 0.6, 0.5, 0.4, 0.4], 1.0, [1, 0]),  # nothing above 0.5: the initial template
    ],
)
def test_the_best_frame_of_an_interval_becomes_the_template(frames, scores, decay, chosen):
    network = Scored(scores)
    options = TrackerOptions(
        template_size=16, search_size=32, online_size=1, update_interval=3, score_decay=decay
    )
    tracker = OnlineTracker(network, options)
    tracker.init(frames[0], BOX)
    boxes = [BOX, *[tracker.track(frame).box_xywh for frame in frames[1 : len(scores) + 1]]]
    assert len(network.encoded) == len(chosen) + 1
    for online, frame in zip(network.encoded[1:], chosen, strict=True):
        window = CropWindow.around(boxes[frame], 2.0, 16)
        assert_close(online, to_input([window.cut(frames[frame])]))


@pytest.mark.without_shape_checks
def test_misuse_is_named(toy_network, frames):
    tracker = OnlineTracker(toy_network(prompted=False).eval(), OPTIONS)
    with pytest.raises(ValueError, match="call init"):
        tracker.track(frames[0])
    for box in ((60.0, 0.0, 5.0, 5.0), (0.0, 0.0, 0.0, 5.0), (0.0, np.nan, 5.0, 5.0)):
        with pytest.raises(ValueError, match="no area on a frame"):
            tracker.init(frames[0], box)
    with pytest.raises(ValueError, match="uint8 RGB"):
        tracker.init(frames[0] / 255, BOX)
    tracker.init(frames[0], BOX)
    with pytest.raises(ValueError, match=r"frame 1 is 50x39, the first one 50x40"):
        tracker.track(frames[1][:39])


@pytest.mark.parametrize(
    "box", [(0.0, 0.0, 1e-200, 1e-200), (0.0, 0.0, 1e200, 1e200), (0.0, 0.0, 6e6, 6e6)]
)
def test_a_target_that_no_crop_fits_is_refused_and_the_old_one_kept(toy_network, frames, box):
    tracker = OnlineTracker(toy_network(prompted=True).eval(), OPTIONS)
    expected = follow(tracker, frames)[0]
    tracker.init(frames[0], BOX)
    with pytest.raises(ValueError, match="a crop needs a side"):
        tracker.init(frames[5], box)
    assert [tracker.track(frame) for frame in frames[1:]] == expected


def test_frames_of_one_row_are_tracked_in(toy_network):
    tracker = OnlineTracker(toy_network(prompted=True).eval(), OPTIONS)
    frame = np.full((1, 50, 3), 200, np.uint8)
    tracker.init(frame, (0.0, 0.0, 9e3, 9e3))
    assert tracker.track(frame).box_xywh[3] == 1


@pytest.mark.parametrize("part", ["box", "score"])
def test_numbers_that_are_not_finite_are_refused_and_leave_the_state(toy_network, frames, part):
    tracker = OnlineTracker(toy_network(prompted=True).eval(), OPTIONS)
    expected, states = follow(tracker, frames)
    tracker.state = states[3]
    bias = getattr(tracker.network, part).bias
    kept = bias.data.clone()
    bias.data.fill_(torch.nan)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"{part} in frame 4 is not finite"):
            tracker.track(frames[4])
    bias.data.copy_(kept)
    assert [tracker.track(frame) for frame in frames[4:]] == expected[3:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search_size": 0}, "search_size must be at least 1"),
        ({"update_interval": 0}, "update_interval"),
        ({"search_factor": 0.0}, "search_factor must be positive"),
        ({"lost_score": 1.5}, r"lost_score must be in 0 \.\. 1"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        TrackerOptions(**options)


@pytest.mark.without_shape_checks  # which refuse it themselves
def test_another_support_crop_is_refused():
    with pytest.raises(ValueError, match=r"support_crop must be one of .*'target'\), got 'all'"):
        TrackerOptions(support_crop="all")


def test_defaults_are_those_of_the_published_test_and_not_of_the_fallback():
    assert mixformer_22k() == TrackerOptions()
    assert (mixformer_unlisted().online_size, mixformer_unlisted().update_interval) == (3, 200)
