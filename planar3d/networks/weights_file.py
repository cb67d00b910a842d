"""A network's weights in one file that says which network and recipe they belong to."""

import json
from pathlib import Path
from typing import Any

import h5py
import keras

from planar3d.errors import RecipeError, WeightsError
from planar3d.files import written_beside
from planar3d.networks.planar_resunet import recipe_network
from planar3d.recipes import PAPER, Recipe
from planar3d.transfer.published_models import find_model

_ATTRIBUTE = "planar3d_recipe"


def save_weights(network: keras.Model, path: str | Path, recipe: Recipe) -> Path:
    """Write a Keras `.weights.h5` that carries its recipe as JSON, whole or not at all."""
    path = Path(path)
    if not path.name.endswith(".weights.h5"):
        raise WeightsError(f"{path}: weights are written as .weights.h5; choose such a name.")
    with written_beside(path) as temporary:
        network.save_weights(temporary, overwrite=True)
        with h5py.File(temporary, "a") as file:
            file.attrs[_ATTRIBUTE] = json.dumps(recipe.to_json())
    return path


def read_recipe(path: str | Path) -> Recipe | None:
    """The recipe that a weights file or published model carries, or None for a file of another origin."""
    path = find_model(path)
    content = read_attribute(path, _ATTRIBUTE)
    try:
        return None if content is None else Recipe.from_json(content, source=str(path))
    except RecipeError as error:
        raise WeightsError(f"{path} is damaged: its recipe cannot be read ({error}).") from None


def read_attribute(path: str | Path, name: str) -> Any:
    """What a weights file carries as JSON under `name`, or None if it carries nothing there."""
    if not h5py.is_hdf5(path):
        return None
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get(name)
        return None if text is None else json.loads(text)
    except (OSError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path} is damaged: its {name} cannot be read ({error}).") from None


def load_network(path: str | Path, recipe: Recipe | None = None) -> tuple[keras.Model, Recipe]:
    """Build the planar res-u-net that a weights file belongs to, and fill it.

    Args:
        path: a file of this package or of the original release, or the name of a published model.
        recipe: overrides the one the file carries; `PAPER` if neither is there.

    Raises:
        WeightsError: the file is missing, damaged, or of another network.
    """
    path = find_model(path)
    recipe = recipe or read_recipe(path) or PAPER
    return recipe_network(recipe, weights=path), recipe
