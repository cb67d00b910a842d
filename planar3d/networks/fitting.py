"""Checks that arrays fit a network, with error messages for users."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from planar3d.errors import RecipeError, WeightsError
from planar3d.graph.keras_graph import as_graph
from planar3d.networks.architecture import layers_with_weights
from planar3d.networks.registry import describe_network, find_architecture
from planar3d.recipes import Recipe
from planar3d.transfer.digests import VGG16
from planar3d.transfer.metadata import mapping_in
from planar3d.wording import counted, listed

_MOST_LEVELS = 32  # numbers in a list of sizes


def refuse_other_sizes(
    arrays: Mapping[str, np.ndarray], recipe: Recipe, path: Path, said: Mapping[str, Any] | None = None
) -> None:
    """Raise a `WeightsError` if a recipe has another network or other sizes than a file.

    Call it before building the network: an untrusted recipe may require more memory than available. `said` is the
    file's own output of `describe_network`.
    """
    asked, architecture = describe_network(recipe), find_architecture(recipe.network.name)
    if said is None:
        found = architecture.told(arrays)
    else:
        found = {"network": said.get("network"), **mapping_in(said.get("arguments"))}
        if found["network"] == recipe.network.name:
            # A setting missing in an older file was a constant of its network, which is the default.
            found = {**architecture.arguments(type(recipe.network)(), recipe.targets), **found}
    wanted = {"network": recipe.network.name, "channels": recipe.preparation.channels, **asked["arguments"]}
    for field, value in wanted.items():
        if field in found and _text(found[field]) != _text(value):
            raise WeightsError(
                f"{path} was trained with {field}={_text(found[field])}, but the recipe {recipe.name} has "
                f"{_text(value)}. Use the recipe in the file, or the one it was trained with (--recipe, or --set "
                f"{field}={_text(found[field])})."
            )
    largest = max((max(array.shape, default=0) for array in arrays.values()), default=0)
    for field, value in asked["arguments"].items():
        numbers = [n for n in (value if isinstance(value, list) else [value]) if isinstance(n, int)]
        if max(numbers, default=0) > largest or len(numbers) > _MOST_LEVELS:
            raise WeightsError(
                f"{path} has another network: none of its arrays is as large as {field}={_text(value)} of the recipe "
                f"{recipe.name}. Use the recipe in the file, or name a file trained by planar3d."
            )


def refuse_other_ends(network: keras.Model, recipe: Recipe) -> None:
    """Raise a `RecipeError` unless a network turns the windows of a recipe into its outputs, voxel by voxel."""
    graph, (depth, *_, channels), outputs = as_graph(network), recipe.window, recipe.targets.outputs
    taken, given = ([tuple(end.shape) for end in ends] for ends in (graph.inputs, graph.outputs))
    if len(taken) == len(given) == 1 and len(taken[0]) == len(given[0]) == 5:
        ends = taken[0][-1], given[0][-1]
        if ends == (channels, outputs) and taken[0][1:4] == given[0][1:4] and taken[0][1] in (None, depth):
            return
    raise RecipeError(
        f"{network.name} takes {taken} and gives {given}, but the recipe {recipe.name} needs a network from (batch, "
        f"{depth or 'depth'}, rows, cols, {channels}) to (batch, {depth or 'depth'}, rows, cols, {outputs}). Build "
        "the network for the recipe, or choose another recipe."
    )


def refuse_misfit(network: keras.Model, arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Raise a `WeightsError` that describes the arrays, if their layers are not the network's."""
    wanted, layers = set(layers_with_weights(network)), {name.rpartition("/")[0] for name in arrays}
    if layers != wanted:
        raise WeightsError(f"{path} {_what_it_is(network, wanted, layers, arrays)}")


def _what_it_is(network: keras.Model, wanted: set[str], layers: set[str], arrays: Mapping[str, np.ndarray]) -> str:
    if layers <= VGG16.kernel_shapes.keys():
        return (
            f"has only an encoder ({listed(sorted(layers))}); a trained {network.name} with its decoder is needed. "
            "Train one that starts from this encoder (--set encoder_weights=FILE), or name another file."
        )
    kernels = {name.removesuffix("/kernel"): array for name, array in arrays.items() if name.endswith("/kernel")}
    dense = sorted(layer for layer, kernel in kernels.items() if kernel.ndim == 2)
    if dense:
        return (
            f"has a classification network (with the dense layers {listed(dense)}); a trained {network.name} is "
            "needed. Its convolutions can initialize one (--set encoder_weights=FILE)."
        )
    return (
        f"has another network: of the {counted(wanted, 'layer')} of {network.name} it lacks "
        f"{listed(sorted(wanted - layers))}; it has others: {listed(sorted(layers - wanted))}. Name a file trained by "
        "planar3d."
    )


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
