"""Recipes as JSON text and back, every field checked."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

Recipe = TypeVar("Recipe")


def to_json(recipe: Any) -> str:
    """Write a recipe, a dataclass of inert values, as JSON text."""
    return json.dumps(dataclasses.asdict(recipe), indent=2, default=str) + "\n"


def from_json(text: str, source: str, kind: type[Recipe]) -> Recipe:
    """Read a recipe from JSON text.

    Args:
        text: what ``to_json`` wrote.
        source: where the text is from, for error messages.
        kind: the dataclass of the recipe.

    Raises:
        ValueError: if it is not JSON, or a field is unknown or of a wrong type; names both.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source} is not JSON: {error}") from error
    try:
        return typing.cast(Recipe, _typed(values, kind, "recipe"))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _typed(value: Any, kind: Any, name: str) -> Any:
    """Turn what JSON can hold back into what a field of that type holds."""
    if dataclasses.is_dataclass(kind):
        return _typed_dataclass(value, kind, name)
    options, origin = typing.get_args(kind), typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):  # of one type and None
        return None if value is None else _typed(value, options[0], name)
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(item, options[0], name) for item in value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and type(value) is int and abs(value) < 2**63:
        return float(value)
    if value in options if origin is Literal else type(value) is kind:
        return value
    wanted = kind.__name__ if isinstance(kind, type) else str(kind).removeprefix("typing.")
    raise ValueError(f"{name} must be {wanted}, got {value!r}")


def _typed_dataclass(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be an object, got {value!r}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(value.keys() - hints.keys())
    if unknown:
        raise ValueError(f"{name} has unknown fields {unknown}; known: {sorted(hints)}")
    return kind(**{key: _typed(value[key], hints[key], f"{name}.{key}") for key in value})
