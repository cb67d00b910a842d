"""A network as a table of its layers, and its cost for a window and for a scan."""

import math

import keras

from planar3d.errors import RecipeError
from planar3d.graph.described import LayerCost, layer_costs
from planar3d.networks.registry import list_networks, recipe_network
from planar3d.networks.vgg16 import PlanarVGG16
from planar3d.recipes import RECIPES, Recipe
from planar3d.sections import check_choice
from planar3d.wording import counted


def recipe_with(network: str | None) -> str:
    """The name of the first recipe with this network; `"paper"` if there is none."""
    return next((name for name, recipe in RECIPES.items() if recipe.network.name == network), "paper")


def named_network(name: str, recipe: Recipe) -> keras.Model:
    """Build a network of `list_networks()`, or `"vgg16"`, with the recipe's sizes and random weights."""
    check_choice("network", name, (*list_networks(), "vgg16"))
    if name == "vgg16":
        return PlanarVGG16(recipe.window, weights=None)
    return recipe_network(recipe.changed(network=name))


def summarize_network(network: keras.Model, recipe: Recipe) -> list[str]:
    """Lines of text: each layer with its output, parameters and multiply-accumulates, then the totals.

    Raises:
        RecipeError: a scan has fewer slices than a window.
    """
    slices, depth, plane = recipe.slices, recipe.tiles.depth, recipe.preparation.plane
    if slices < depth:
        raise RecipeError(f"A scan of {counted(slices, 'slice')} has no window of {depth}; choose a larger size.")
    costs = layer_costs(network, tuple(length or 256 for length in recipe.window))
    width = max(len(cost.name) for cost in costs)
    macs = sum(cost.macs for cost in costs)
    total = LayerCost("total", (1,), sum(cost.parameters for cost in costs), macs)
    if all(plane):
        windows = math.prod(map(len, recipe.tiles.starts((slices, *plane))))
        work = (
            f"A scan of {counted(slices, 'slice')} has {counted(windows, 'window')} of {depth} at stride "
            f"{recipe.tiles.stride}: {2 * windows * macs / 1e12:.3g} TFLOP, each window computed separately."
        )
    else:
        tile = "×".join(map(str, recipe.window[:3]))
        work = f"A tile of {tile} voxels takes {2 * macs / 1e12:.3g} TFLOP; the number of tiles depends on the scan."
    return [*(_line(cost, width) for cost in costs), _line(total, width), work]


def _line(cost: LayerCost, width: int) -> str:
    shape = "×".join(str(n) for n in cost.output_shape[1:])
    return f"{cost.name:{width}s} {shape:>18s} {cost.parameters:>12,} {cost.macs / 1e9:>9.2f} GMAC"
