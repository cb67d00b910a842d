"""Every network by name. A new one is a file with its `Architecture` and one line here."""

import inspect
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import keras

from planar3d.errors import RecipeError
from planar3d.networks.albunet import ALBUNET
from planar3d.networks.architecture import Architecture, WeightSource
from planar3d.networks.ds_net import DS_NET
from planar3d.networks.dx_net import DX_NET
from planar3d.networks.efficient_embedding import EFFICIENT_EMBEDDING
from planar3d.networks.encoder_weights import EncoderWeights
from planar3d.networks.omnia_net import OMNIA_NET
from planar3d.networks.planar_resunet import PLANAR_RESUNET
from planar3d.recipes import Recipe
from planar3d.scans.tiles import HEAD_STEP

ARCHITECTURES: dict[str, Architecture] = {
    "planar-resunet": PLANAR_RESUNET,
    "albunet": ALBUNET,
    "efficient-embedding": EFFICIENT_EMBEDDING,
    "ds-net": DS_NET,
    "omnia-net": OMNIA_NET,
    "dx-net": DX_NET,
}


# The descriptions of networks built from recipes, while they exist.
_descriptions: WeakKeyDictionary[keras.Model, dict[str, Any]] = WeakKeyDictionary()


def list_networks() -> list[str]:
    """The names of all networks for `build_network`."""
    return list(ARCHITECTURES)


def build_network(
    name: str,
    input_shape: Sequence[int | None] | None = None,
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
        input_shape: (depth, rows, cols, channels); default: the network's own.
        weights: a file or published model with weights for the whole network.
        encoder_weights: `"imagenet"`, a file, or None for a random encoder.
        arguments: further arguments of the network's function.

    Raises:
        RecipeError: the name is unknown, or arguments do not fit the network.
        WeightsError: the weights cannot be found or read, or do not fit.
    """
    build = find_architecture(name).build
    known = inspect.signature(build).parameters
    if unknown := sorted(set(arguments) - set(known)):
        raise RecipeError(f"Network {name} has no argument {unknown[0]!r}; it has: {', '.join(known)}.")
    if input_shape is not None:
        arguments["input_shape"] = tuple(input_shape) if isinstance(input_shape, Sequence) else input_shape
    try:
        return build(weights=weights, encoder_weights=encoder_weights, **arguments)
    except ValueError as error:
        raise RecipeError(f"Network {name}: {error}") from error


def find_architecture(name: str) -> Architecture:
    """The architecture with this name."""
    if name not in ARCHITECTURES:
        raise RecipeError(f"Network {name!r} is unknown; choose one of: {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]


def describe_network(recipe: Recipe) -> dict[str, Any]:
    """The network of a recipe as JSON values: its name, `network`, and its own `arguments`.

    Raises:
        RecipeError: an unknown network, or sizes that it cannot have.
    """
    architecture = find_architecture(recipe.network.name)
    try:
        arguments = architecture.arguments(recipe.network, recipe.targets)
    except RecipeError as error:
        raise RecipeError(f"Recipe {recipe.name!r}: {error}") from None
    divisors = architecture.divisors(arguments)
    if recipe.tiles.of_head and any(HEAD_STEP % divisor for divisor in divisors[1:]):
        raise RecipeError(
            f"Recipe {recipe.name!r}: planes={recipe.tiles.planes!r} predicts in boxes of multiples of {HEAD_STEP} "
            f"rows and cols, but {recipe.network.name} needs multiples of {' and '.join(map(str, divisors[1:]))}; set "
            "planes='whole'."
        )
    for shape in (recipe.sample, recipe.window):
        for axis, length, divisor in zip(("depth", "rows", "cols"), shape, divisors, strict=False):
            if length and length % divisor:
                raise RecipeError(
                    f"Recipe {recipe.name!r}: the network would see {'×'.join(map(str, shape[:3]))} voxels, but "
                    f"{recipe.network.name} needs a multiple of {divisor} along {axis}; set another size, crop or tile."
                )
    return {"network": recipe.network.name, "arguments": arguments}


def weight_source(recipe: Recipe) -> WeightSource:
    """The source of the weights of the recipe's encoder."""
    return find_architecture(recipe.network.name).source(describe_network(recipe)["arguments"])


def feature_levels(recipe: Recipe) -> dict[str, int]:
    """The layers whose features may be computed once per scan, see `Architecture`; else a `RecipeError`."""
    return dict(find_architecture(recipe.network.name).feature_levels(describe_network(recipe)["arguments"]))


def recipe_network(
    recipe: Recipe, encoder_weights: EncoderWeights = None, shape: Sequence[int | None] | None = None
) -> keras.Model:
    """Build the network of a recipe with its sizes.

    Args:
        encoder_weights: as in `build_network`.
        shape: (depth, rows, cols, channels); default: the recipe's input shape for prediction.

    Raises:
        RecipeError: an unknown network, or sizes that it cannot have.
    """
    described, shape = describe_network(recipe), shape or recipe.window
    network = build_network(described["network"], shape, encoder_weights=encoder_weights, **described["arguments"])
    _descriptions[network] = described | {"channels": shape[-1]}
    return network


def is_built_from(network: keras.Model, recipe: Recipe) -> bool:
    """Whether `recipe_network` built a network for this recipe, or for one that asks for the same layers."""
    return _descriptions.get(network) == describe_network(recipe) | {"channels": recipe.window[-1]}
