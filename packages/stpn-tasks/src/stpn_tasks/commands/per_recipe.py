"""One command per recipe, whose every value can be overridden."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

from tyro.extras import SubcommandApp

Recipe = TypeVar("Recipe")


def per_recipe(
    recipes: Mapping[str, Callable[[], Recipe]], make: Callable[[Recipe], Callable[..., None]]
) -> SubcommandApp:
    """Return an app with a command for each recipe, which explains itself as the recipe does.

    Args:
        recipes: functions that return a recipe, by name; their docstrings say what it is.
        make: returns the command of a recipe; its docstring says what its arguments are.
    """
    app = SubcommandApp()
    for name, recipe in recipes.items():
        command = make(recipe())
        arguments = inspect.cleandoc(command.__doc__ or "").partition("\n")[2]
        command.__doc__ = f"{inspect.cleandoc(recipe.__doc__ or '')}\n{arguments}"
        app.command(name=name)(command)
    return app
