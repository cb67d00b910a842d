"""Initialization: encoders matched to the range of their inputs, random layers to that of what they are given."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from planar3d.errors import RecipeError
from planar3d.scans.windows import INPUT_SCALE


def match_input_range(network: keras.Model, names: Sequence[str]) -> None:
    """Divide the biases of convolutions by 128, for inputs that are 128 times smaller than those they were trained on.

    Convolutions with ReLU and maximum poolings are homogeneous: with biases b / s they give of x / s what they gave of
    x, divided by s, in every layer. ImageNet's VGG-16 was trained on grey levels of about ±128; with its biases as they
    are, as in Kolarik 2020, these outweigh the image.

    Args:
        network: holds the encoder.
        names: the encoder's convolutions, all of them.
    """
    for name in names:
        bias = network.get_layer(name).bias
        bias.assign(bias / INPUT_SCALE)


def scale_to_unit_variance(network: keras.Model, names: Sequence[str], inputs: Any) -> None:
    """Scale the kernels of layers, in the graph's order, so that their pre-activations have variance 1.

    The default initialization keeps variances only for inputs of variance 1. Behind ImageNet features it starts with
    values, and gradients, tens of times too large; behind a random encoder with ones hundreds of times too small.

    Args:
        network: a functional model.
        names: layers to scale, each with a kernel; their biases are left as they are.
        inputs: a batch of what the network takes.

    Raises:
        RecipeError: a layer that gives the same everywhere, which no factor mends.

    Source: Mishkin & Matas 2016, "All you need is a good init", without its orthogonal start.
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
            raise RecipeError(f"unit_variance: {layer.name} gives one value everywhere, which cannot be scaled.")
        layer.kernel.assign(layer.kernel / deviation)
