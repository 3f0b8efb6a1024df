"""Generated tracking needs identity: place tells little, and the first look misleads in the end."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from stpn_data import TrackingOptions

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "tracking_identity.py"


def test_the_right_template_decides_and_a_recent_one_is_better() -> None:
    spec = importlib.util.spec_from_file_location("tracking_identity", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script
    spec.loader.exec_module(script)
    shares = script.measure(TrackingOptions(), num_sequences=16)["all"]
    assert abs(shares["another's template"] - shares["chance"]) < 8
    # Over half of the frames show another look than the first template, which few networks find
    # at random as often as this matcher does: it must choose an object.
    assert shares["first template"] > shares["another's template"] + 20
    assert shares["recent template"] > shares["first template"] + 8
    assert shares["middle of frame"] < shares["chance"] + 10
    assert shares["middle of crop"] < 45
