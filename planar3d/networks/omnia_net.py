"""Omnia-Net: a full-resolution convolution, an EfficientNet, and a nearest-neighbour decoder, in 2D."""

from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers

from planar3d.conversion.channels import fitted
from planar3d.conversion.convert import convert
from planar3d.networks.architecture import Architecture, check_input_shape, groups_by_prefix, own_arguments
from planar3d.networks.decoders import HEAD, convolved, decoded, output_layer
from planar3d.networks.efficientnet import COARSEST, SKIPS, EfficientNet, noisy_student, noisy_student_encoder
from planar3d.networks.encoder_weights import EncoderWeights, with_weights
from planar3d.networks.resnet import NORMALIZATION
from planar3d.sections import check_choice

DIVISORS = (1, 32, 32)
_FILTERS = (256, 128, 64, 32, 16)  # of the decoder, coarsest level first


def OmniaNet(
    input_shape: tuple[int | None, ...] = (256, 256, 1),
    classes: int = 4,
    encoder: str = "b0",
    activation: str = "softmax",
    encoder_padding: str = "same",
    encoder_epsilon: float = 1e-3,
    stem: str = "fitted",
    weights: EncoderWeights = None,
    encoder_weights: EncoderWeights = "imagenet",
    name: str = "omnia_net",
) -> keras.Model:
    """Omnia-Net, 5,845,968 parameters with EfficientNet-B0 and four classes, for slices or the slices of volumes.

    >>> OmniaNet((64, 64, 1), encoder_weights=None).output_shape
    (None, 64, 64, 4)
    >>> OmniaNet((1, 64, 64, 1), encoder_weights=None).output_shape
    (None, 1, 64, 64, 4)

    Args:
        input_shape: (rows, cols, channels) of slices, or (depth, rows, cols, channels) of volumes, processed slice by
            slice; rows and cols are multiples of 32, and all except the channels may be None.
        classes, activation: channels of the output, and their activation, `"softmax"` or `"sigmoid"`.
        encoder: EfficientNet `"b0"` or `"b4"`, also as `"efficientnetb0"`.
        encoder_padding, encoder_epsilon: as in `EfficientNet`; its weights were trained with `"same"` and 1e-3, and the
            released code has `"symmetric"` and 1e-5.
        stem: as in `DXNet`.
        weights, encoder_weights: as in `build_network`; `"imagenet"` is the noisy student.

    Returns:
        A model from (batch, …, rows, cols, channels) to probabilities (batch, …, rows, cols, classes), float32.

    Raises:
        ValueError: rows or cols are not multiples of 32, the encoder or the stem is unknown, or softmax with one
            output.
        WeightsError: the weights cannot be found or read, or do not fit.

    Source: Messaoudi et al. 2023, figure 2; widths and normalization of the decoder from the released code.
    """
    volumes = not isinstance(input_shape, list | tuple) or len(input_shape) != 3
    check_input_shape(input_shape if volumes else (1, *input_shape), DIVISORS, name)
    encoder = _variant(encoder)
    check_choice("stem", stem, ("fitted", "normal"), ValueError)
    inputs = keras.Input(input_shape[-3:], name="input")
    x = convolved(inputs, 16, "full", activation="relu")
    options: dict[str, Any] = {"padding": encoder_padding, "epsilon": encoder_epsilon}
    flat = EfficientNet(encoder, input_tensor=x, momentum=NORMALIZATION["momentum"], drop_path=0.4, **options)
    if weights is None and encoder_weights is not None:
        _fill(flat, encoder, encoder_weights, stem, options)
    skips = [*(flat.get_layer(skip).output for skip in SKIPS[encoder]), x]
    x = decoded(flat.get_layer(COARSEST[encoder]).output, skips, _FILTERS, transposed=False, activation="relu")
    x = output_layer(classes, 3, activation, convolution=layers.Conv2D, padding="same")(x)
    network = keras.Model(inputs, x, name=name)
    if volumes:
        network = convert(network, depth=input_shape[0], name=name)
    return with_weights(network, weights)


def _variant(encoder: str) -> str:
    variant = encoder.removeprefix("efficientnet") if isinstance(encoder, str) else encoder
    check_choice("encoder", variant, SKIPS, ValueError)
    return variant


def _fill(flat: keras.Model, encoder: str, weights: EncoderWeights, stem: str, options: dict[str, Any]) -> None:
    """Load the weights of an EfficientNet with RGB input into one with 16 inputs."""
    coloured = noisy_student_encoder(encoder, (32, 32, 3), weights, **options)
    for layer in coloured.layers:
        if layer.weights and layer.name != "stem_conv":
            flat.get_layer(layer.name).set_weights(layer.get_weights())
    first = flat.get_layer("stem_conv").kernel
    kernel = np.asarray(coloured.get_layer("stem_conv").kernel)
    first.assign(fitted(kernel, first.shape[2]) if stem == "fitted" else keras.random.normal(first.shape))


OMNIA_NET: Architecture = Architecture(
    OmniaNet,
    partial(own_arguments, outputs="classes"),
    lambda arguments: DIVISORS,
    groups_by_prefix({"full": "full", "decoder": ("up", HEAD)}),
    HEAD,
    lambda arguments: noisy_student(_variant(arguments["encoder"])),
)
