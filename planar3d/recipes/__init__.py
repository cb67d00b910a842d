"""Recipes by name, one file per paper. `PAPER` follows Kolarik 2020, `RELEASED` the authors' released code."""

from pathlib import Path

from planar3d.errors import RecipeError
from planar3d.files import parse_json
from planar3d.recipes import messaoudi2020, messaoudi2023, wacker2019
from planar3d.recipes.kolarik2020 import DEMO, INFLATED, MODERN, PAPER, RELEASED
from planar3d.recipes.recipe import Recipe
from planar3d.sections import meant

# All recipes of the other papers' files.
_OTHERS = [made for paper in (wacker2019, messaoudi2020, messaoudi2023) for made in vars(paper).values()]
RECIPES = {
    recipe.name: recipe for recipe in (PAPER, RELEASED, MODERN, DEMO, *INFLATED, *_OTHERS) if isinstance(recipe, Recipe)
}

__all__ = ["DEMO", "INFLATED", "MODERN", "PAPER", "RECIPES", "RELEASED", "Recipe", "find_recipe"]


def find_recipe(name_or_file: str) -> Recipe:
    """Find a recipe by its name, one of `RECIPES`, or read it from a JSON file.

    A hand-written file needs only its name and the fields that differ from the recipe of that name, or else from
    `paper`. A file written by this package has its format number and keeps its meaning.

    Raises:
        RecipeError: neither a name nor a file, or the file is not a recipe.
    """
    if name_or_file in RECIPES:
        return RECIPES[name_or_file]
    path = Path(name_or_file)
    if not path.is_file():
        near = meant(name_or_file, RECIPES)
        raise RecipeError(f"Recipe {name_or_file!r} is neither a file nor one of: {', '.join(RECIPES)}.{near}")
    try:
        content = parse_json(path)
    except ValueError as error:
        raise RecipeError(f"{path} is not a recipe: it is not JSON ({error}).") from None
    if not isinstance(content, dict) or "name" not in content or "format" in content:
        return Recipe.from_json(content, str(path))
    try:
        return RECIPES.get(str(content["name"]), PAPER).changed(**content)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None
