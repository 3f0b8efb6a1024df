"""Damaged recipes, results and weights: read as they are or refused in words, never a hang."""

import json
import math
import struct
from random import Random

import pytest

from stpn_data.testing import damage_bytes, damage_json, read_or_refuse
from stpn_tasks.detection.checkpoint import load_detector, save_detector
from stpn_tasks.metrics import AveragePrecision, VidPrecision
from stpn_tasks.recipe_json import from_json, to_json
from stpn_tasks.recipes import DetectionRecipe, small
from stpn_tasks.results import Model, Results, Run, load_results, save_results

TOKENS = (b"[", b"NaN", b"1e999", b"9" * 5000, b"[" * 20_000, b"\x00", b"\xff")


def damage(text, random):
    by_value = random.random() < 0.5
    return damage_json(text, random) if by_value else damage_bytes(text.encode(), random, TOKENS)


def check_each(seeds, damage_file, read, names):
    """Damage and read a file once per seed; returns how many were refused."""
    refused = 0
    for seed in range(seeds):
        try:
            damage_file(Random(seed))
            refused += read_or_refuse(read, names)[0] is None
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    assert refused > seeds / 10


def test_a_damaged_recipe_is_read_or_refused_in_words(tmp_path):
    path = tmp_path / "recipe.json"

    def damage_file(random):
        path.write_bytes(damage(to_json(small()), random))

    def read():
        recipe = from_json(
            path.read_text(encoding="utf-8", errors="replace"), str(path), DetectionRecipe
        )
        assert isinstance(recipe, DetectionRecipe)
        return recipe

    check_each(2000, damage_file, read, str(path))


def test_damaged_results_are_read_or_refused_in_words(tmp_path):
    path = tmp_path / "results.json"
    precision = AveragePrecision(0.5, 0.7, 0.4, math.nan, 0.5, 0.6, curve50=(0.9, 0.5))
    vid = {"clips": {"all": VidPrecision(0.5, {"cat": 0.5}, {"cat": 3}, 0.0)}}
    runs = tuple(Run(seed, {"clips": {"all": precision}}, 10, 1.5, vid) for seed in range(2))
    save_results(path, Results("title", {"commit": "abc"}, (Model("a", "A", "about", runs),)))
    text = path.read_text()

    def damage_file(random):
        path.write_bytes(damage(text, random))

    check_each(2000, damage_file, lambda: load_results(path), str(path))


@pytest.mark.parametrize("part", ["header", "recipe", "classes"])
def test_damaged_weights_are_read_or_refused_in_words(tiny, tmp_path, part):
    path, recipe = tmp_path / "model.safetensors", tiny.recipe()
    save_detector(path, tiny.detector(recipe), recipe, ("bright", "dark"))
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header = data[8:end].decode()

    def damage_file(random):
        if part == "header":
            changed = damage(header, random)
        else:
            values = json.loads(header)
            text = damage(values["__metadata__"][part], random)
            values["__metadata__"][part] = text.decode(errors="replace")
            changed = json.dumps(values).encode()
        path.write_bytes(struct.pack("<Q", len(changed)) + changed + data[end:])

    check_each(200, damage_file, lambda: load_detector(path), str(path))
