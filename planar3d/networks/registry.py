"""Every network by name. A new one is a file with its `Architecture`, and one line here."""

import inspect
from collections.abc import Sequence
from typing import Any

import keras

from planar3d.errors import RecipeError
from planar3d.networks.albunet import ALBUNET
from planar3d.networks.architecture import Architecture, WeightSource
from planar3d.networks.encoder_weights import EncoderWeights
from planar3d.networks.planar_resunet import PLANAR_RESUNET
from planar3d.recipes import Recipe

ARCHITECTURES: dict[str, Architecture] = {"planar-resunet": PLANAR_RESUNET, "albunet": ALBUNET}


def list_networks() -> list[str]:
    """The names of all networks that `build_network` knows."""
    return list(ARCHITECTURES)


def build_network(
    name: str,
    input_shape: Sequence[int | None],
    *,
    weights: EncoderWeights = None,
    encoder_weights: EncoderWeights = "imagenet",
    **arguments: Any,
) -> keras.Model:
    """Build a network by its name.

    >>> build_network("planar-resunet", (16, 64, 64, 3), encoder_weights=None).output_shape
    (None, 16, 64, 64, 1)

    Args:
        name: one of `list_networks()`.
        input_shape: (depth, rows, cols, channels).
        weights: a file, or the name of a published model, that fills the whole network.
        encoder_weights: `"imagenet"`, a file, or None for a random encoder.
        arguments: the network's own, as its function has them.

    Raises:
        RecipeError: an unknown name, or arguments that do not fit the network.
        WeightsError: weights that cannot be found, read, or do not fit.
    """
    build = find_architecture(name).build
    known = inspect.signature(build).parameters
    if unknown := sorted(set(arguments) - set(known)):
        raise RecipeError(f"Network {name} takes no {unknown[0]!r}; it takes: {', '.join(known)}.")
    try:
        return build(input_shape=tuple(input_shape), weights=weights, encoder_weights=encoder_weights, **arguments)
    except ValueError as error:
        raise RecipeError(f"Network {name}: {error}") from error


def find_architecture(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        RecipeError: an unknown name.
    """
    if name not in ARCHITECTURES:
        raise RecipeError(f"Network {name!r} is unknown; choose one of: {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]


def describe_network(recipe: Recipe) -> dict[str, Any]:
    """The network of a recipe as JSON values: its name, `network`, and its own `arguments`.

    Raises:
        RecipeError: an unknown network, or sizes that it cannot have.
    """
    architecture = find_architecture(recipe.network)
    arguments = architecture.arguments(recipe)
    depth, *plane = architecture.divisors(arguments)
    side = "crop" if recipe.sampling == "crops" else "size"
    for field, divisor in (("depth", depth), (side, max(plane)), ("size", max(plane))):
        if getattr(recipe, field) % divisor:
            raise RecipeError(
                f"Recipe {recipe.name!r}: {field} is {getattr(recipe, field)}, but {recipe.network} needs a multiple "
                f"of {divisor}."
            )
    return {"network": recipe.network, "arguments": arguments}


def weight_source(recipe: Recipe) -> WeightSource:
    """Where the weights of the recipe's encoder come from.

    Raises:
        RecipeError: an unknown network, or sizes that it cannot have.
    """
    return find_architecture(recipe.network).source(describe_network(recipe)["arguments"])


def feature_levels(recipe: Recipe) -> dict[str, int]:
    """The layers whose features may be computed once a scan, as `Architecture` has them."""
    return dict(find_architecture(recipe.network).feature_levels(describe_network(recipe)["arguments"]))


def recipe_network(
    recipe: Recipe, weights: EncoderWeights = None, encoder_weights: EncoderWeights = None
) -> keras.Model:
    """Build the network of a recipe in its sizes.

    Args:
        recipe: names the network and its arguments.
        weights, encoder_weights: as in `build_network`.

    Raises:
        RecipeError: an unknown network, or sizes that it cannot have.
        WeightsError: weights that cannot be found, read, or do not fit.
    """
    described = describe_network(recipe)
    return build_network(
        described["network"],
        (recipe.depth, recipe.size, recipe.size, recipe.channels),
        weights=weights,
        encoder_weights=encoder_weights,
        **described["arguments"],
    )
