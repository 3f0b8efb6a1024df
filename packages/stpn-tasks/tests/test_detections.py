import pytest
import torch

from stpn_tasks.detection.detections import Detections, load_detections, save_detections


def make(count, generator):
    return Detections(
        torch.rand(count, 4, generator=generator),
        torch.rand(count, generator=generator),
        torch.randint(0, 5, (count,), generator=generator),
    )


def test_detections_come_back_from_their_file(tmp_path):
    generator = torch.Generator().manual_seed(0)
    detections = {
        video: [make(count, generator) for count in counts]
        for video, counts in {3: (2, 0, 5), 0: (1,)}.items()
    }
    path = tmp_path / "folder" / "detections.npz"
    save_detections(path, detections)
    loaded = load_detections(path)
    assert list(loaded) == [3, 0]
    for video, frames in detections.items():
        assert len(loaded[video]) == len(frames)
        for mine, theirs in zip(loaded[video], frames, strict=True):
            assert torch.equal(mine.boxes_xyxy, theirs.boxes_xyxy)
            assert torch.equal(mine.scores, theirs.scores)
            assert torch.equal(mine.labels, theirs.labels)


def test_a_damaged_or_missing_file_is_named(tmp_path):
    path = tmp_path / "detections.npz"
    with pytest.raises(ValueError, match="detections.npz is not a whole file"):
        load_detections(path)
    save_detections(path, {0: [make(3, torch.Generator())]})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="detections.npz is not a whole file"):
        load_detections(path)
