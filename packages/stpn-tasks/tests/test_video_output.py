"""What a video and a stream say of their tracks: MinVIS' scores and masks, however they are fed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from stpn_kernels.testing import as_tensors, load_golden
from stpn_tasks.segmentation import mask_store
from stpn_tasks.segmentation.association import Associator
from stpn_tasks.segmentation.mask_resize import FrameSizes, encode
from stpn_tasks.segmentation.mask_store import MaskStore
from stpn_tasks.segmentation.stream_output import StreamOutput
from stpn_tasks.segmentation.video_output import VideoOutput

CASES = [0, 1, 2, 3, 5, 7, 9]
SIZES = FrameSizes(image=(30, 45), padded=(32, 64), output=(53, 41))


def random_video(seed, num_frames=5, num_queries=4, num_classes=3):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((num_classes + 1,), (8, 16), (6,))
    return tuple(
        torch.randn(num_frames, num_queries, *shape, generator=generator) for shape in shapes
    )


def decoded(prediction):
    return coco_mask.decode(list(prediction.masks)).transpose(2, 0, 1)


@pytest.mark.parametrize("case", CASES)
def test_scores_classes_and_masks_are_those_of_minvis(case):
    arrays = load_golden(f"minvis_association/case_{case}.npz")
    golden = as_tensors({name: a for name, a in arrays.items() if "packed" not in name})
    sizes = FrameSizes(
        *(tuple(golden[f"{name}_size"].tolist()) for name in ("image", "padded", "output"))
    )
    output = VideoOutput(sizes)
    permutations = output.push(golden["logits"], golden["mask_logits"], golden["embds"])
    assert torch.equal(permutations, golden["perms"])
    torch.testing.assert_close(output.mean_logits(), golden["video_logits"], rtol=0, atol=1e-5)
    best = output.best()
    scores = torch.tensor([one.score for one in best])
    torch.testing.assert_close(scores, golden["scores"], rtol=0, atol=1e-5)
    assert [one.label for one in best] == golden["labels"].tolist()
    assert [one.track for one in best] == golden["query_index"].tolist()
    shape = arrays["masks_shape"]
    expected = np.unpackbits(arrays["masks_packed"])[: shape.prod()].reshape(shape)
    masks = np.stack([decoded(one) for one in best])
    assert masks.shape == expected.shape
    assert (masks != expected).mean() <= 1e-3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sets(st.integers(1, 4)))
def test_windows_give_what_the_whole_video_gives(seed, cuts):
    video = random_video(seed)
    whole, in_windows = VideoOutput(SIZES), VideoOutput(SIZES)
    whole.push(*video)
    for window in zip(*(tensor.tensor_split(sorted(cuts)) for tensor in video), strict=True):
        in_windows.push(*window)
    assert torch.equal(whole.mean_logits(), in_windows.mean_logits())
    assert whole.best() == in_windows.best()
    assert whole.best_of_each_track() == in_windows.best_of_each_track()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([{}, {"mask_weight": 0.5}, {"momentum": 0.5}]))
def test_a_stream_follows_the_tracks_of_the_whole_video(seed, options):
    logits, masks, embeddings = random_video(seed)
    whole = VideoOutput(SIZES, Associator(**options))
    whole.push(logits, masks, embeddings)
    tracks = {one.track: one for one in whole.best_of_each_track()}
    stream = StreamOutput(SIZES, 0.0, Associator(**options))
    for t in range(len(logits)):
        (frame,) = stream.push(logits[t : t + 1], masks[t : t + 1], embeddings[t : t + 1])
        assert frame.ids.tolist() == [0, 1, 2, 3]
        for track, mask in zip(frame.ids.tolist(), frame.masks, strict=True):
            np.testing.assert_array_equal(mask.numpy(), decoded(tracks[track])[t])
    for track, label, score in zip(frame.ids, frame.labels, frame.scores, strict=True):
        assert (label, score) == (tracks[int(track)].label, tracks[int(track)].score)
    windows = StreamOutput(SIZES, 0.0, Associator(**options)).push(logits, masks, embeddings)
    assert torch.equal(windows[-1].masks, frame.masks)
    assert torch.equal(windows[-1].scores, frame.scores)


def test_a_stream_tells_of_tracks_above_the_threshold_only():
    logits, masks, embeddings = random_video(0)
    logits[:, :, -1] = 3.0  # no object
    logits[:, 1, 2] = 9.0
    embeddings[:] = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    for frame in StreamOutput(SIZES, 0.5).push(logits, masks, embeddings):
        assert (frame.ids.tolist(), frame.labels.tolist()) == ([1], [2])
        assert frame.masks.shape == (1, 53, 41)
    nothing = StreamOutput(SIZES, 1.0).push(logits[:1], masks[:1], embeddings[:1])
    assert nothing[0].masks.shape == (0, 53, 41)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    stride=st.integers(1, 4),
    crop=st.tuples(st.floats(0.3, 1), st.floats(0.3, 1)),
    output=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    smooth=st.booleans(),
)
def test_masks_from_the_store_are_those_of_the_logits(seed, grid, stride, crop, output, smooth):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randn(3, *grid, generator=generator)
    if smooth:
        masks = masks.cumsum(1).cumsum(2)
    masks[0, 0, 0] = 0.0
    padded = (grid[0] * stride, grid[1] * stride)
    image = tuple(max(1, int(side * part)) for side, part in zip(padded, crop, strict=True))
    sizes = FrameSizes(image, padded, output)
    store = MaskStore()
    store.append(-masks)
    store.append(masks)
    for tracks in ([0, 1, 2], [2, 0], []):
        assert torch.equal(sizes.masks(store.read(1, tracks)), sizes.masks(masks[tracks]))


def test_a_store_of_objects_is_a_fraction_of_their_logits_and_lies_on_disk_when_large(monkeypatch):
    monkeypatch.setattr(mask_store, "MEMORY_BYTES", 10_000)
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    masks = 10 - ((x - 30) ** 2 + (y - torch.arange(4.0)[:, None, None] * 10) ** 2).sqrt()
    store = MaskStore()
    for frame in range(4):
        store.append(masks + frame)
    assert store.num_bytes < 4 * masks.numel() * 4 / 5
    assert store._file._rolled
    for frame in range(4):
        assert torch.equal(store.read(frame, [1, 3]) > 0, masks[[1, 3]] + frame > 0)


def test_fewer_pairs_than_asked_for_are_all_there():
    output = VideoOutput(SIZES)
    output.push(*random_video(0, num_queries=2))
    best = output.best()
    assert len({(one.track, one.label) for one in best}) == len(best) == 6
    assert [one.score for one in best] == sorted((one.score for one in best), reverse=True)
    assert len(output.best(4)) == 4
    per_track = output.best_of_each_track()
    assert {one.track for one in per_track} == {0, 1}
    assert per_track[0] == best[0]


def test_a_record_is_as_the_server_takes_it():
    logits, masks, embeddings = random_video(0)
    masks[3] = -1.0
    output = VideoOutput(SIZES)
    output.push(logits, masks, embeddings)
    best = output.best(1)[0]
    record = best.record(17, category_ids=[5, 6, 9])
    assert record["video_id"] == 17
    assert record["category_id"] == [5, 6, 9][best.label]
    assert len(record["segmentations"]) == 5
    assert all(rle["size"] == [53, 41] for rle in record["segmentations"])
    assert record["segmentations"][3] == encode(torch.zeros(1, 53, 41).bool())[0]


@pytest.mark.without_shape_checks
def test_what_does_not_fit_is_refused():
    logits, masks, embeddings = random_video(0)
    output = VideoOutput(SIZES)
    with pytest.raises(ValueError, match="without frames"):
        output.best()
    output.push(logits, masks, embeddings)
    with pytest.raises(ValueError, match=r"frame 5: masks \(4, 8, 15\), before \(4, 8, 16\)"):
        output.push(logits, masks[..., :15], embeddings)
    with pytest.raises(ValueError, match="padded"):
        FrameSizes((33, 40), (32, 64), (10, 10))
    with pytest.raises(ValueError, match=r"\(1, 40, 16\)"):
        SIZES.masks(torch.zeros(1, 40, 16))
    with pytest.raises(IndexError, match="empty"):
        MaskStore().read(0, [0])


@pytest.mark.without_shape_checks
@pytest.mark.parametrize(("part", "name"), [(0, "class"), (1, "mask")])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused_with_their_frame(part, name, wrong):
    video = random_video(0)
    video[part][3, 1].view(-1)[0] = wrong
    for output in (VideoOutput(SIZES), StreamOutput(SIZES, 0.5)):
        output.push(*(tensor[:2] for tensor in video))
        with pytest.raises(ValueError, match=f"a {name} logit of frame 3 is not finite"):
            output.push(*(tensor[2:] for tensor in video))
