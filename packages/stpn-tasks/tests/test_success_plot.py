import math
import re

import matplotlib as mpl
import numpy as np
import pytest

from stpn_tasks.metrics.got10k import THRESHOLDS, TrackingSuccess
from stpn_tasks.tracking.success_plot import write_success_plot


def success(ao):
    curve = tuple(float(threshold < ao) for threshold in THRESHOLDS)
    return TrackingSuccess(ao, curve[50], curve[75], curve, 10)


def legend(text):
    """What the comments of an SVG say is written in it, trackers only."""
    return re.findall(r"<!-- (.*?: AO .*?) -->", text)


def test_trackers_are_listed_best_first(tmp_path):
    path = tmp_path / "plots" / "success.svg"
    write_success_plot(path, {"Worse": success(0.4), "Best": success(0.7071)})
    text = path.read_text()
    assert legend(text) == ["Best: AO 0.707", "Worse: AO 0.400"]
    assert "<!-- GOT-10k -->" in text


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_drawing_is_repeatable_and_leaves_matplotlib_as_it_was(tmp_path, suffix):
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    with mpl.rc_context({"font.size": 13, "text.parse_math": True}):
        before = dict(mpl.rcParams)
        for path in paths:
            write_success_plot(path, {r"$\foo$": success(0.5)})
        assert dict(mpl.rcParams) == before
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_curve_is_drawn_where_its_success_is(tmp_path):
    path = tmp_path / "success.svg"
    write_success_plot(path, {"One": success(0.505)})  # 1 up to the threshold 0.50, then 0
    curve, _ = re.findall(
        r'<path d="([^"]+)"[^>]* style="fill: none; stroke: #4477aa', path.read_text()
    )
    x, y = np.array(re.findall(r"[ML] (\S+) (\S+)", curve), float).T
    share = (x - x[0]) / (x[-1] - x[0])
    np.testing.assert_allclose(share[y < y.mean()].max(), 0.50, atol=0.001)
    np.testing.assert_allclose(share[y > y.mean()].min(), 0.51, atol=0.001)


def test_many_trackers_are_told_apart(tmp_path):
    path = tmp_path / "success.svg"
    write_success_plot(path, {f"T{number}": success(number / 20) for number in range(20)})
    text = path.read_text()
    assert len(legend(text)) == 20
    strokes = re.findall(
        r'style="fill: none; (?:stroke-dasharray: ([^;]+);[^"]*?)?stroke: (#\w+)', text
    )
    lines = re.findall(r'fill: none; ([^"]*?stroke: #[^"]*stroke-width: 1.7[^"]*)"', text)
    assert len(set(lines)) == 20, strokes


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"success\.gif: a plot is written as"):
        write_success_plot(tmp_path / "success.gif", {"One": success(0.5)})
    with pytest.raises(ValueError, match="no tracker"):
        write_success_plot(tmp_path / "success.png", {})
    with pytest.raises(ValueError, match="One: no frame counted"):
        write_success_plot(tmp_path / "success.png", {"One": success(math.nan)})
    assert not list(tmp_path.iterdir())
