"""A network's weights in one file that says which network they belong to, and how it came about."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from planar3d.errors import RecipeError, WeightsError
from planar3d.files import require_room, written_beside
from planar3d.networks.architecture import weight_shapes
from planar3d.networks.card_content import filled_card
from planar3d.networks.fitting import refuse_misfit, refuse_other_sizes
from planar3d.networks.registry import describe_network, recipe_network
from planar3d.recipes import PAPER, Recipe
from planar3d.sections import UnknownFieldError
from planar3d.training.precision import built_with
from planar3d.transfer.array_files import read_directly
from planar3d.transfer.arrays import read_arrays
from planar3d.transfer.digests import file_sha256
from planar3d.transfer.metadata import CARD, NETWORK, RECIPE, plain_text, read_metadata, write_metadata
from planar3d.transfer.published_models import find_model
from planar3d.transfer.rehearsal import rehearse
from planar3d.transfer.transplant import transplant

_OVERHEAD = 2**20  # bytes of a weights file besides its arrays
# What any head scan is prepared to, generously; a file that asks for more is not honest.
_PLAUSIBLE = {
    "preparation.size": (16, 1024),
    "preparation.pixel_mm": (0.05, 20.0),
    "preparation.slice_mm": (0.2, 50.0),
    "tiles.depth": (1, 512),
    "tiles.shape": (0, 1024),
}


def save_weights(network: keras.Model, path: str | Path, recipe: Recipe, card: Mapping[str, Any] | None = None) -> Path:
    """Write a Keras `.weights.h5` that carries its recipe and its model card as JSON, whole or not at all.

    Args:
        network: of the recipe.
        path: ends with `.weights.h5`.
        recipe: what the network was trained by.
        card: what is known of it; the rest is filled in, with "not stated" for what nobody said.

    Raises:
        WeightsError: another suffix, no room on the disk, or a network that is not the recipe's, which could not be
            loaded again.
    """
    path = Path(path)
    if not path.name.endswith(".weights.h5"):
        raise WeightsError(f"{path}: weights are written as .weights.h5; choose such a name.")
    if weight_shapes(network) != _expected_shapes(recipe):
        raise WeightsError(
            f"{path}: {network.name} is not the network that the recipe {recipe.name} builds, so it could not be "
            f"loaded again and was not saved. Save it whole, network.save({path.name.split('.')[0]!r} + '.keras'), or "
            "give the recipe its sizes."
        )
    with written_beside(path) as temporary:
        require_room(path, sum(array.nbytes for array in network.get_weights()) + _OVERHEAD)
        network.save_weights(temporary, overwrite=True)
        filled = filled_card(network, recipe, read_directly(temporary), card or {})
        write_metadata(temporary, {RECIPE: recipe.to_json(), NETWORK: describe_network(recipe), CARD: filled})
    return path


@functools.lru_cache(maxsize=4)  # training saves its best weights again and again
def _expected_shapes(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    return weight_shapes(recipe_network(recipe))


def read_recipe(path: str | Path) -> Recipe | None:
    """The recipe that a weights file or published model carries, or None for a file of another origin.

    Raises:
        WeightsError: the file is missing or damaged, or its recipe is of another version or absurd.
    """
    path = find_model(path)
    rehearse(path)
    metadata = read_metadata(path)
    if RECIPE not in metadata:
        return None
    try:
        recipe = Recipe.from_json(metadata[RECIPE], source=str(path))
    except UnknownFieldError as error:
        written = plain_text(_mapping(metadata.get(CARD, {}).get("versions")).get("planar3d", "another version"))
        raise WeightsError(
            f"{path} was written by planar3d {written}: its recipe has "
            f"{', '.join(map(plain_text, error.unknown[:5]))}, which this version does not know. Update with "
            "pip install -U planar3d, or name a recipe with --recipe."
        ) from None
    except (RecipeError, TypeError, OverflowError) as error:
        raise WeightsError(f"{path} is damaged: its recipe cannot be read ({plain_text(error)}).") from None
    leaves = recipe.leaves()
    for field in _PLAUSIBLE.keys() & leaves:
        least, most = _PLAUSIBLE[field]
        for value in leaves[field] if isinstance(leaves[field], list) else [leaves[field]]:
            if not least <= value <= most:
                raise WeightsError(
                    f"{path} asks for {field}={value:g}; {least:g} to {most:g} is plausible. It is damaged or made to "
                    "do harm; get it again from where it came, or name a recipe with --recipe."
                )
    return recipe


def load_network(
    path: str | Path, recipe: Recipe | None = None, precision: str = "float32"
) -> tuple[keras.Model, Recipe]:
    """Build the network that a weights file belongs to, and fill it.

    Args:
        path: a file of this package or of the original release, or the name of a published model.
        recipe: overrides the one the file carries; `PAPER` if neither is there.
        precision: that it computes in, `"float32"`, `"bf16"` or `"float16"`, whatever it was trained in.

    Raises:
        WeightsError: the file is missing, damaged, or of another network.
        RecipeError: a precision that is not known, or not had here.
    """
    path = find_model(path)
    recipe = recipe or read_recipe(path) or PAPER
    arrays = read_arrays(path)
    refuse_other_sizes(arrays, recipe, path, read_metadata(path).get(NETWORK))
    network = built_with(precision, lambda: recipe_network(recipe))
    refuse_misfit(network, arrays, path)
    try:
        transplant(network, arrays, strict=True)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    return network, recipe


def describe_model(model: str | Path, recipe: Recipe | None = None) -> dict[str, Any]:
    """What a weights file or published model is, in short: what is kept beside every mask that it makes.

    Args:
        model: the file or name.
        recipe: overrides the one the file carries.

    Returns:
        `name`, `sha256` of the file, `licence`, `threshold` (of 256, of the recipe; None without one), `whole_head`
        (whether it expects scans with skull; None if it takes both, as what was trained on crops of extracted brains
        does unless its card says otherwise), `limits` (sentences).

    Raises:
        WeightsError: the file is missing or damaged.
    """
    path = find_model(model)
    recipe = recipe or read_recipe(path) or PAPER
    rehearse(path)
    card = read_metadata(path).get(CARD, {})
    limits = card.get("limits", [])
    whole_head = card.get("whole_head", None if recipe.training.samples.shows_brains else True)
    return {
        "name": plain_text(card.get("name", path.name)),
        "sha256": file_sha256(path),
        "licence": plain_text(card.get("licence", "not stated")),
        "threshold": recipe.targets.to_json().get("threshold"),
        "whole_head": None if whole_head is None else bool(whole_head),
        "limits": [plain_text(limit) for limit in (limits if isinstance(limits, list) else [limits])],
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
