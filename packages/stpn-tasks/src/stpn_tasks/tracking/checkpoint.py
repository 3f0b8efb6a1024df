"""Trackers in files: weights and recipe in one ``.safetensors``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stpn_tasks.files import write_text
from stpn_tasks.recipe_json import from_json, to_json
from stpn_tasks.tracking.build import build_network
from stpn_tasks.tracking.mixformer import MixFormer
from stpn_tasks.tracking.recipes import TrackingRecipe
from stpn_tasks.weights_file import fit_weights, read_weights, save_weights


@dataclass(frozen=True)
class SavedTracker:
    """A tracker read from a file.

    Attributes:
        network: in eval mode.
        recipe: what it was made by.
    """

    network: MixFormer
    recipe: TrackingRecipe


def save_tracker(path: Path, network: MixFormer, recipe: TrackingRecipe) -> None:
    """Write a tracker atomically, and its recipe as ``recipe.json`` beside it."""
    save_weights(path, network, {"tracking_recipe": to_json(recipe)})
    write_text(path.with_name("recipe.json"), to_json(recipe))


def load_tracker(path: Path) -> SavedTracker:
    """Read a tracker that ``save_tracker`` wrote.

    Raises:
        ValueError: if the file is missing, damaged, or not a tracker of this project; names it.
    """
    tensors, metadata = read_weights(path)
    if "tracking_recipe" not in metadata:
        raise ValueError(f"{path} is not a tracker: it has no tracking recipe in its metadata")
    recipe = from_json(metadata["tracking_recipe"], f"the recipe in {path}", TrackingRecipe)
    try:
        network = build_network(recipe, score=recipe.has_score, load_weights=False)
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise ValueError(f"no tracker can be built by the recipe in {path}: {error}") from error
    fit_weights(network, tensors, path)
    return SavedTracker(network.eval(), recipe)
