"""Single steps from the true place: what is searched with, and that all rows search the same."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stpn_data.deteriorated import DeterioratedTracking, TrackingOptions
from stpn_data.sampling import CausalSampler
from stpn_data.videos import DataError
from stpn_tasks.engine import make_accelerator
from stpn_tasks.tracking.comparison.testing import CONDITIONS, summary
from stpn_tasks.tracking.mixformer import create_mixformer
from stpn_tasks.tracking.one_step import FrameOverlaps, OneStepOptions, one_step
from stpn_tasks.tracking.pretraining import ObjectPairs, PairMatcher, collate_pairs
from stpn_tasks.tracking.samples import CropOptions

CROPS = CropOptions(
    template_size=16, search_size=32, centre_jitter=3.0, support=CausalSampler(2, 3)
)


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    options = TrackingOptions(num_frames=(20, 24))
    cache = tmp_path_factory.mktemp("sequences")
    return DeterioratedTracking(
        cache, split="test", num_sequences=3, options=options, num_workers=0, progress=False
    )


class Watched:
    """Notes what it is given; says that the target is in the middle, as large as its median."""

    def __init__(self):
        self.templates, self.online, self.searched, self.support = [], [], [], []

    def encode_templates(self, template, online):
        self.templates += list(template)
        self.online += list(online[:, 0])
        return None

    def embed_support_crops(self, crops, templates):
        self.support += list(crops)
        return crops

    def predict_prompts(self, embeddings):
        return [embeddings]

    def track(self, search, templates, prompts=None):
        self.searched += list(search)
        boxes = torch.tensor([0.5, 0.5, 0.2, 0.2]).expand(len(search), 4)
        return SimpleNamespace(boxes_cxcywh=boxes)


def watch(sequences, **options):
    network = Watched()
    found = one_step(
        network,
        sequences,
        CROPS,
        OneStepOptions(**options),
        accelerator=make_accelerator("cpu"),
        batch_size=5,
        progress=False,
    )
    return network, found


def equal(one, other):
    return [torch.equal(a, b) for a, b in zip(one, other, strict=True)]


@pytest.mark.without_shape_checks
def test_every_third_frame_is_searched_and_told_with_its_conditions(sequences):
    network, found = watch(sequences, support="off")
    frames = [
        t for n, one in enumerate(sequences.sequences) for t in range(1 + n % 3, one.num_frames, 3)
    ]
    assert len(network.searched) == len(found.overlaps) == len(frames)
    assert not network.support
    told = [sequences.conditions(int(n), t) for n, t in zip(found.sequences, frames, strict=True)]
    assert list(found.conditions) == told
    assert (found.overlaps <= 1).all()
    assert found.overlaps.max() > 0


@pytest.mark.without_shape_checks
def test_all_options_search_in_the_same_crops(sequences):
    plain, _ = watch(sequences, support="off")
    others = [{"support": "own"}, {"support": "other"}, {"template": "other"}, {"online": "recent"}]
    for options in others:
        assert all(equal(watch(sequences, **options)[0].searched, plain.searched))


@pytest.mark.without_shape_checks
def test_templates_are_of_whom_they_are_asked_for(sequences):
    own, _ = watch(sequences, support="off")
    recent, _ = watch(sequences, support="off", online="recent")
    other, _ = watch(sequences, support="off", template="other")
    assert all(equal(own.templates, own.online))
    assert all(equal(own.templates, recent.templates))
    assert not all(equal(own.online, recent.online))
    assert not any(equal(own.templates, other.templates))


@pytest.mark.without_shape_checks
def test_support_is_of_whom_it_is_asked_for(sequences):
    own, _ = watch(sequences, support="own")
    other, _ = watch(sequences, support="other")
    assert own.support[0].shape == (2, 3, 32, 32)
    assert not any(equal(own.support, other.support))


def test_a_summary_splits_frames_by_condition():
    conditions = ({"clean", "first_look"}, {"deteriorated", "new_look"}, {"deteriorated"})
    found = FrameOverlaps(
        np.array([0.8, 0.6, 0.1]), np.array([0, 0, 1]), tuple(map(frozenset, conditions))
    )
    numbers = summary(found)
    assert set(numbers) == set(CONDITIONS)
    assert numbers["all"] == {"ao": 50.0, "sr50": 66.67, "sr75": 33.33, "frames": 3}
    assert numbers["deteriorated"] == {"ao": 35.0, "sr50": 50.0, "sr75": 0.0, "frames": 2}
    assert numbers["new_look"]["frames"] == 1


def test_pairs_show_one_object_twice_and_are_learned(sequences):
    pairs = ObjectPairs(sequences, 16, 2.0, 40, seed=0)
    again = ObjectPairs(sequences, 16, 2.0, 40, seed=0)
    for (a, b), (c, d) in zip(pairs[3], again[3], strict=True):
        assert np.array_equal(a, c)
        assert np.array_equal(b, d)
    batch = collate_pairs([pairs[i] for i in range(2)])
    assert batch.first.shape == batch.second.shape
    assert batch.first.shape[1:] == (3, 16, 16)
    torch.manual_seed(0)
    matcher = PairMatcher(create_mixformer("small", score=False).backbone)
    optimiser = torch.optim.Adam(matcher.parameters(), lr=2e-3)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        losses.append(matcher(batch).total)
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.6 * losses[0]


def test_a_batch_without_objects_is_refused_and_an_item_without_is_not(sequences):
    (pair, *_) = ObjectPairs(sequences, 16, 2.0, 40, seed=0)[3]
    assert len(collate_pairs([[], [pair]]).first) == 1
    with pytest.raises(DataError, match="no object is in view in both frames of any of the 2"):
        collate_pairs([[], []])
