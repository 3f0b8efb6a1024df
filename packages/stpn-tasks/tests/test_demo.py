import json

import cv2
import pytest

from stpn_tasks.demo import run_demo
from stpn_tasks.detection.checkpoint import load_detector
from stpn_tasks.recipes import DemoOptions


@pytest.mark.slow
def test_the_demo_trains_both_detectors_and_tells_what_it_found(tmp_path, capsys):
    options = DemoOptions(
        output=tmp_path / "demo", size="smoke", device="cpu", cache=tmp_path / "cache"
    )
    path = run_demo(options)

    results = json.loads(path.read_text())
    assert results["command"] == "stpn demo --size smoke --seed 0"
    assert results["scale"]["finetune_steps"] == options.scale.finetune_steps
    for model in ("baseline", "STPN"):
        assert {"all", "deteriorated", "clean"} <= results["models"][model].keys()
        assert results["models"][model]["all"]["ap50"] is not None
    pictures = sorted((tmp_path / "demo" / "pictures").iterdir())
    assert len(pictures) == options.scale.num_pictures
    height, width, _ = cv2.imread(str(pictures[0])).shape
    assert width > 3 * (height - 24)  # truth, baseline and STPN
    text = capsys.readouterr().out
    assert "baseline" in text
    assert "STPN" in text

    stages = {
        name: load_detector(tmp_path / "demo" / name / "model.safetensors")
        for name in ("single-frame", "baseline", "stpn")
    }
    has_predictor = {
        name: saved.detector.encoder.predictor is not None for name, saved in stages.items()
    }
    assert has_predictor == {"single-frame": False, "baseline": False, "stpn": True}
