"""The network at the start of a training: its initial weights and scales, and its frozen layers."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from planar3d.errors import RecipeError
from planar3d.networks.architecture import layers_with_weights
from planar3d.networks.registry import find_architecture, recipe_network
from planar3d.recipes import Recipe
from planar3d.training.precision import built_with, computed_precision


def initial_network(recipe: Recipe) -> keras.Model:
    """Build the recipe's network from its seed, with encoder weights, `computed_precision`, and frozen layers.

    Raises:
        RecipeError: a name in `frozen` is neither a group nor a layer, or nothing is left to train.
    """
    keras.utils.set_random_seed(recipe.training.seed)
    precision = computed_precision(recipe.training.precision)
    weights = None if recipe.network.encoder_weights == "none" else recipe.network.encoder_weights
    network = built_with(precision, lambda: recipe_network(recipe, encoder_weights=weights, shape=recipe.sample))
    head = network.get_layer(find_architecture(recipe.network.name).head)
    head.bias.assign(recipe.targets.output_bias(recipe.training.output_prior))
    for name in layers_named(network, recipe, "frozen"):
        network.get_layer(name).trainable = False
    if not network.trainable_variables:
        raise RecipeError(f"frozen={','.join(recipe.training.frozen)} leaves nothing to train.")
    return network


def layers_named(network: keras.Model, recipe: Recipe, field: str) -> list[str]:
    """The layers with weights named by a recipe's field, as groups of the network or individually.

    Raises:
        RecipeError: a name that is neither a group nor a layer.
    """
    groups = find_architecture(recipe.network.name).groups(network)
    weighted = layers_with_weights(network)
    chosen = []
    for name in getattr(recipe.training, field):
        if name not in groups and name not in weighted:
            raise RecipeError(
                f"{field}={name!r} is neither a layer of {network.name} nor one of its groups: "
                f"{', '.join(groups) or 'none'}."
            )
        chosen += groups.get(name, [name])
    return chosen


def scale_to_unit_variance(network: keras.Model, names: Sequence[str], inputs: Any) -> None:
    """Scale the kernels of layers, in the graph's order, so that their pre-activations have variance 1.

    The default initialization preserves variances only for inputs of variance 1. After ImageNet features, initial
    values and gradients are tens of times too large; after a random encoder, hundreds of times too small.

    Args:
        names: layers to scale, each with a kernel; their biases are unchanged.
        inputs: a batch of the network's input.

    Raises:
        RecipeError: the output of a layer is constant, so no factor helps.

    Source: Mishkin & Matas 2016, "All you need is a good init", without its orthogonal initialization.
    """
    for layer in network.layers:
        if layer.name not in names:
            continue
        activation, layer.activation = layer.activation, keras.activations.linear
        try:
            given = keras.Model(network.input, layer.output)(inputs, training=False)
        finally:
            layer.activation = activation
        deviation = float(np.std(keras.ops.convert_to_numpy(keras.ops.cast(given, "float32"))))
        if not deviation > 0:
            raise RecipeError(f"unit_variance: the output of {layer.name} is constant and cannot be scaled.")
        layer.kernel.assign(layer.kernel / deviation)
