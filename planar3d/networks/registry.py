"""Every network by name, and what fits it. A new one is a file with its `Architecture` and one line here."""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np

from planar3d.errors import RecipeError, WeightsError
from planar3d.graph.keras_graph import as_graph, without_random_weights
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
from planar3d.sections import check_choice
from planar3d.transfer.metadata import mapping_in

ARCHITECTURES: dict[str, Architecture] = {
    "planar-resunet": PLANAR_RESUNET,
    "albunet": ALBUNET,
    "efficient-embedding": EFFICIENT_EMBEDDING,
    "ds-net": DS_NET,
    "omnia-net": OMNIA_NET,
    "dx-net": DX_NET,
}
_MOST_LEVELS = 32  # numbers in a list of sizes
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
        weights: a file or published model with weights for the whole network; encoder weights are then not loaded.
        encoder_weights: `"imagenet"`, a file of the encoder's 2D weights under torch or Keras names, or None for a
            random encoder.
        arguments: further arguments of the network's function.

    Raises:
        RecipeError: the name is unknown, or arguments do not fit the network.
        WeightsError: the weights cannot be found or read, or do not fit.
    """
    build = find_architecture(name).build
    known = inspect.signature(build).parameters
    if unknown := sorted(set(arguments) - set(known)):
        raise RecipeError(f"Network {name} has no argument {unknown[0]!r}; it has: {', '.join(known) or 'none'}.")
    if input_shape is not None:
        arguments["input_shape"] = tuple(input_shape) if isinstance(input_shape, Sequence) else input_shape
    try:
        with nullcontext() if weights is None else without_random_weights():
            return build(weights=weights, encoder_weights=encoder_weights, **arguments)
    except ValueError as error:
        raise RecipeError(f"Network {name}: {error}") from error


def find_architecture(name: str) -> Architecture:
    """The architecture with this name."""
    check_choice("network", name, ARCHITECTURES)
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


def refuse_other_sizes(
    arrays: Mapping[str, np.ndarray], recipe: Recipe, path: Path, said: Mapping[str, Any] | None = None
) -> None:
    """Raise a `WeightsError` if a recipe has another network or other sizes than a file.

    Call it before building the network: an untrusted recipe may require more memory than available. `said` is the
    file's own output of `describe_network`.
    """
    requested, architecture = describe_network(recipe), find_architecture(recipe.network.name)
    found = {} if said is None else {"network": said.get("network"), **mapping_in(said.get("arguments"))}
    if found.get("network") == recipe.network.name:
        # A setting missing in an older file was a constant of its network, which is the default.
        found = {**architecture.arguments(type(recipe.network)(), recipe.targets), **found}
    for field, value in {"network": recipe.network.name, **requested["arguments"]}.items():
        if field in found and _text(found[field]) != _text(value):
            raise WeightsError(
                f"{path} was trained with {field}={_text(found[field])}, but the recipe {recipe.name} has "
                f"{_text(value)}. Use the recipe in the file, or the one it was trained with (--recipe, or --set "
                f"{field}={_text(found[field])})."
            )
    largest = max((max(array.shape, default=0) for array in arrays.values()), default=0)
    for field, value in requested["arguments"].items():
        numbers = [n for n in (value if isinstance(value, list) else [value]) if isinstance(n, int)]
        if max(numbers, default=0) > largest or len(numbers) > _MOST_LEVELS:
            raise WeightsError(
                f"{path} has another network: none of its arrays is as large as {field}={_text(value)} of the recipe "
                f"{recipe.name}. Use the recipe that it was trained with (--recipe, or --set {field}), or name a model "
                "trained by planar3d; keras.saving.load_model opens other .keras files."
            )


def refuse_other_ends(network: keras.Model, recipe: Recipe) -> None:
    """Raise a `RecipeError` unless a network turns the windows of a recipe into its outputs, voxel by voxel."""
    graph, (depth, *_, channels), outputs = as_graph(network), recipe.window, recipe.targets.outputs
    taken, given = ([tuple(end.shape) for end in ends] for ends in (graph.inputs, graph.outputs))
    if other := [end.dtype for end in graph.inputs if "float" not in end.dtype]:
        raise RecipeError(f"{network.name} takes values of type {other[0]}, but prepared scans have float32.")
    if len(taken) == len(given) == 1 and len(taken[0]) == len(given[0]) == 5:
        ends = taken[0][-1], given[0][-1]
        if ends == (channels, outputs) and taken[0][1:4] == given[0][1:4] and taken[0][1] in (None, depth):
            return
    raise RecipeError(
        f"{network.name} takes {taken} and gives {given}, but the recipe {recipe.name} needs a network from (batch, "
        f"{depth or 'depth'}, rows, cols, {channels}) to (batch, {depth or 'depth'}, rows, cols, {outputs}). Build "
        "the network for the recipe, or choose another recipe."
    )


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
