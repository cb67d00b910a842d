"""The efficient embedding network: a volume is reduced to three slices, the RGB input of an EfficientNet-B0."""

from collections.abc import Sequence
from math import prod
from typing import Any

import keras
import numpy as np
from keras import layers

from planar3d.conversion.convert import convert
from planar3d.networks.architecture import Architecture, check_depth, check_input_shape, groups_by_prefix, own_arguments
from planar3d.networks.decoders import HEAD, output_layer
from planar3d.networks.efficientnet import EfficientNet
from planar3d.networks.encoder_weights import EncoderWeights, fill_flat, known_source, with_weights
from planar3d.networks.settings import EfficientEmbeddingSettings
from planar3d.transfer.torch_weights import IMAGENET_MEAN, IMAGENET_STD

SLICES = 3  # of the reduced volume: red, green and blue
_IMAGENET = "efficientnetb0_notop.h5"
_SOURCE = known_source("EfficientNet-B0, Tan & Le 2019; ImageNet weights of Keras", _IMAGENET)
# The expanded features of blocks that halve rows and columns, finest first.
_SKIPS = tuple(f"block{number}a_expand_activation" for number in (2, 3, 4, 6))
_UP_FILTERS = (512, 256, 128, 64)


def EfficientEmbedding(
    input_shape: tuple[int, int | None, int | None, int] = (108, 192, 160, 1),
    outputs: int = 3,
    factors: Sequence[int] = (3, 3, 4),
    activation: str = "sigmoid",
    encoder_range: str = "unit",
    weights: EncoderWeights = None,
    encoder_weights: EncoderWeights = "imagenet",
    name: str = "efficient_embedding",
) -> keras.Model:
    """The efficient embedding network, 14,376,787 parameters: 3D in, 2D in the middle, 3D out.

    >>> EfficientEmbedding((12, 64, 64, 1), factors=(2, 2), encoder_weights=None).output_shape
    (None, 12, 64, 64, 3)

    Args:
        input_shape: (depth, rows, cols, channels); the depth is three times the product of the factors; rows and cols
            are multiples of 32, and may be None.
        outputs, activation: channels of the output, and their activation, `"sigmoid"` or `"softmax"`.
        factors: successive factors that reduce depth to three slices.
        encoder_range: how EfficientNet-B0 reads the three slices: `"unit"`, unscaled; or `"grey levels"` of 0 to 255,
            standardized with ImageNet's mean and standard deviation as in keras.applications, so that 1 becomes 0.02.
        weights, encoder_weights: as in `build_network`.

    Returns:
        A model from (batch, depth, rows, cols, channels) to probabilities (batch, depth, rows, cols, outputs), float32.

    Raises:
        ValueError: the shape does not fit the factors, or softmax with one output.
        RecipeError: factors that are not greater than 0, or an unknown encoder range.
        WeightsError: the weights cannot be found or read, or do not fit.

    Source: Messaoudi et al. 2020, table 1 and figure 1; widths, kernels, dropout and the 2D decoder from the released
    code. The 2D part is planar, on a volume of one slice.
    """
    factors = EfficientEmbeddingSettings.made({"factors": factors, "encoder_range": encoder_range}).factors
    check_input_shape(input_shape, _divisors({"factors": factors}), name)
    check_depth(input_shape, SLICES * prod(factors), SLICES * prod(factors), name)
    filters = [min(16 * 2**level, 64) for level in range(len(factors) + 1)]
    inputs = keras.Input(input_shape, name="volume")
    x = layers.Conv3D(filters[0], 3, padding="same", name="squeeze_conv")(inputs)
    x = layers.SpatialDropout3D(0.2, name="squeeze_dropout")(x)
    skips = []
    for level, factor in enumerate(factors):
        skips.append(_residual(x, filters[level], f"squeeze{level + 1}"))
        down = layers.Conv3D(filters[level + 1], 3, (factor, 1, 1), padding="same", name=f"squeeze{level + 1}_down")
        x = down(skips[-1])
    x = _residual(x, filters[-1], f"squeeze{len(factors) + 1}")
    x = layers.Conv3D(1, 1, activation="relu", name="squeeze_slices")(x)
    x = layers.Permute((4, 2, 3, 1), name="slices_to_image")(x)

    if encoder_range == "grey levels":
        scale, offset = 1 / np.multiply(255, IMAGENET_STD), -np.divide(IMAGENET_MEAN, IMAGENET_STD)
        x = layers.Rescaling(scale.tolist(), offset.tolist(), name="standardized")(x)
    flat = EfficientNet("b0", (*input_shape[1:3], SLICES))
    fill_flat(flat, encoder_weights if weights is None else None, _IMAGENET)
    encoder = convert(flat, input_tensor=x)
    x = encoder.output
    for number, (skip, up_filters) in enumerate(zip(reversed(_SKIPS), _UP_FILTERS, strict=True), start=1):
        x = _up(x, encoder.get_layer(skip).output, up_filters, f"up{number}")
    x = layers.Conv3DTranspose(SLICES, (1, 3, 3), (1, 2, 2), padding="same", name="up_slices")(x)
    x = layers.Permute((4, 2, 3, 1), name="image_to_slices")(x)

    for level in reversed(range(len(factors))):
        restored = f"restore{level + 1}"
        x = layers.Conv3D(filters[level], 1, name=f"{restored}_conv")(x)
        x = layers.UpSampling3D((factors[level], 1, 1), name=f"{restored}_up")(x)
        x = layers.Add(name=f"{restored}_add")([x, skips[level]])
        x = _residual(x, filters[level], restored)
    x = layers.Conv3D(filters[0], 3, padding="same", name="restore_conv")(x)
    x = output_layer(outputs, 1, activation)(x)
    return with_weights(keras.Model(inputs, x, name=name), weights)


def _residual(x: Any, filters: int, name: str) -> Any:
    """Two convolutions, each after normalization and ReLU, with a 1×1×1 shortcut."""
    y = x
    for number in (1, 2):
        y = layers.GroupNormalization(8, name=f"{name}_gn{number}")(y)
        y = layers.Activation("relu", name=f"{name}_relu{number}")(y)
        y = layers.Conv3D(filters, 3, padding="same", name=f"{name}_conv{number}")(y)
    return layers.Add(name=f"{name}_sum")([y, layers.Conv3D(filters, 1, name=f"{name}_shortcut")(x)])


def _up(x: Any, skip: Any, filters: int, name: str) -> Any:
    """Doubled rows and columns, concatenated with the encoder's features."""
    x = layers.Conv3DTranspose(filters, (1, 3, 3), (1, 2, 2), padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    x = layers.SpatialDropout3D(0.5, name=f"{name}_dropout")(x)
    x = layers.Activation("relu", name=f"{name}_relu")(x)
    return layers.Concatenate(name=f"{name}_concat")([x, skip])


def _divisors(arguments: Any) -> tuple[int, int, int]:
    return SLICES * prod(arguments["factors"]), 32, 32


EFFICIENT_EMBEDDING: Architecture = Architecture(
    EfficientEmbedding,
    own_arguments,
    _divisors,
    groups_by_prefix({"squeeze": "squeeze", "decoder": "up", "restore": ("restore", HEAD)}),
    HEAD,
    lambda arguments: _SOURCE,
)
