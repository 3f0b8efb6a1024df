"""The sections of a report that show frames, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from stpn_tasks.report.attention import draw_attention, has_attention
from stpn_tasks.report.page import Html, Section, element, paragraph, text
from stpn_tasks.report.pictures import Pictures
from stpn_tasks.report.strips import (
    RankedFrame,
    Strip,
    choose_strips,
    draw_ranked,
    draw_strip,
    pick,
    rank_frames,
)
from stpn_tasks.report.words import ABOUT_F1, ABOUT_MAPS, spoken
from stpn_tasks.results import Results
from stpn_tasks.tables import write_json

_NUM_ATTENTION = 2  # frames whose attention is shown


def picture_sections(results: Results, pictures: Pictures) -> list[Section]:
    """Return the sections that show frames.

    Raises:
        KeyError: if pictures are of a model that the results lack.
    """
    labels = {name: results.model(name).label for name in pictures.detections}
    strips = choose_strips(pictures.dataset)
    return [
        _strips(strips, pictures, labels),
        _extremes(pictures, labels) if len(labels) == 1 else _differences(pictures, labels),
        _attention(strips[:_NUM_ATTENTION], pictures),
    ]


def save_sections(path: Path, sections: Sequence[Section]) -> None:
    """Keep rendered sections in a json file."""
    write_json(path, {"sections": [asdict(section) for section in sections]})


def load_sections(path: Path) -> list[Section]:
    """Read the sections that `save_sections` kept.

    Raises:
        ValueError: if the file cannot be used; names it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return [
            Section(section["title"], tuple(map(Html, section["body"])))
            for section in values["sections"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a file of pictures: {error}") from error


def _strips(strips: Sequence[Strip], pictures: Pictures, labels: Mapping[str, str]) -> Section:
    of_set = f" of test set “{spoken(pictures.test_set)}”" if pictures.test_set else ""
    reading = (
        f"Frames{of_set}, chosen by their conditions, without looking at any model. Boxes with a "
        "score below 0.3 are not drawn. The colour of a box is its class."
    )
    figures = (draw_strip(strip, pictures, labels) for strip in strips)
    return Section("Consecutive frames", (_say(reading), *figures))


def _differences(pictures: Pictures, labels: Mapping[str, str]) -> Section:
    """Show where the second model does better and worse than the first."""
    first, second = labels.values()
    ranked = rank_frames(pictures)
    better = [one for one in ranked if one.lead > 0]
    worse = [one for one in _reversed(ranked) if one.lead < 0]
    counts = (
        f"Of {len(ranked)} key frames, {second} has a higher F1 than {first} on {len(better)}, a "
        f"lower one on {len(worse)}, and the same on {len(ranked) - len(better) - len(worse)}. "
        "Here are those where the two differ most, from different videos where there are enough, "
        "and in the order of the data set where they differ by the same."
    )
    body = [_say(counts), _say(ABOUT_F1)]
    for title, frames in ((f"Where {second} helps most", better), ("Where it hurts most", worse)):
        body.append(element("h3", text(title)))
        picked = pick(frames, len(pictures.dataset.videos))
        leads = ", ".join(f"{one.lead:+.2f}".replace("-", "−") for one in picked)
        caption = f"F1 of {second} minus F1 of {first}, frame by frame: {leads}."
        body.append(
            draw_ranked(picked, pictures, labels, caption)
            if picked
            else _say("There is no such frame.")
        )
    return Section("Best and worst frames", tuple(body))


def _extremes(pictures: Pictures, labels: Mapping[str, str]) -> Section:
    """Show where a single model does best and worst."""
    ranked = rank_frames(pictures)
    body = [
        _say(
            "The key frames of highest and of lowest F1, from different videos where there are "
            "enough, and in the order of the data set where F1 is the same."
        ),
        _say(ABOUT_F1),
    ]
    for title, frames in (("Best", ranked), ("Worst", _reversed(ranked))):
        picked = pick(frames, len(pictures.dataset.videos))
        scores = ", ".join(f"{one.lead:.2f}" for one in picked)
        body.append(element("h3", text(title)))
        body.append(draw_ranked(picked, pictures, labels, f"F1, frame by frame: {scores}."))
    return Section("Best and worst frames", tuple(body))


def _reversed(ranked: Sequence[RankedFrame]) -> list[RankedFrame]:
    """Return a ranking from its end, where equal in the order of the data set all the same."""
    return sorted(ranked, key=lambda one: (one.lead, one.video, one.frame))


def _attention(strips: Sequence[Strip], pictures: Pictures) -> Section:
    title = "Where the prompts look"
    if pictures.inference is None or not has_attention(pictures.inference):
        nothing = (
            "Nothing to show here: only prompts that a transformer or attention predictor makes "
            "look at single tokens of the support frames."
        )
        return Section(title, (_say(nothing),))
    figures = (draw_attention(pictures, strip.video, strip.centre) for strip in strips)
    return Section(title, (_say(ABOUT_MAPS), *figures))


def _say(what: str) -> Html:
    return paragraph(text(what))
