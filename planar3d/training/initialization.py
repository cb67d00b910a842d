"""Initialization of layers without pretrained weights."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from planar3d.errors import RecipeError


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
