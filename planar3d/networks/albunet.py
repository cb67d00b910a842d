"""AlbuNet3D and AlbuNet2D: a planar ResNet-34 and a light planar decoder (Wacker et al. 2019, section III.A)."""

from functools import partial
from typing import Any

import keras
from keras import layers

from planar3d.conversion.convert import convert
from planar3d.networks.architecture import Architecture, check_input_shape, groups_by_prefix, own_arguments
from planar3d.networks.decoders import HEAD, convolved, output_layer
from planar3d.networks.encoder_weights import EncoderWeights, fill_flat, known_source, with_weights
from planar3d.networks.resnet import ResNet34, with_random_biases

DIVISORS = (1, 32, 32)
_IMAGENET = "resnet34-b627a593.pth"
_SOURCE = known_source("ResNet-34, He et al. 2016; ImageNet weights of torchvision", _IMAGENET)
# The last tensor of each stage of ResNet-34, finest first; there is no skip from half the resolution.
_SKIPS = ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out")
_convolved = partial(convolved, kernel=(1, 3, 3), use_bias=True, activation="relu")


def AlbuNet(
    input_shape: tuple[int | None, int | None, int | None, int] = (24, 128, 128, 3),
    classes: int = 4,
    depth_layers: bool = True,
    encoder_bias: bool = False,
    activation: str = "softmax",
    weights: EncoderWeights = None,
    encoder_weights: EncoderWeights = "imagenet",
    name: str = "albunet",
) -> keras.Model:
    """AlbuNet3D, 26,673,172 parameters: depth is never reduced, and only four 3×1×1 convolutions combine slices.

    >>> AlbuNet((1, 64, 64, 3), depth_layers=False, encoder_weights=None).output_shape  # AlbuNet2D
    (None, 1, 64, 64, 4)

    Args:
        input_shape: (depth, rows, cols, channels); rows and cols are multiples of 32, and the first three may be None.
        classes, activation: channels of the output, and their activation, `"softmax"`, or `"sigmoid"` for independent
            channels.
        depth_layers: include the convolutions along depth; without them and with a depth of 1 the network is
            AlbuNet2D (25,822,372 parameters).
        encoder_bias: give the encoder's convolutions biases, random whatever its weights, as in the released code:
            8,512 more parameters.
        weights, encoder_weights: as in `build_network`. As in the paper, inputs are not standardized to ImageNet's
            mean and standard deviation.

    Returns:
        A model from (batch, depth, rows, cols, channels) to probabilities (batch, depth, rows, cols, classes), float32.

    Raises:
        ValueError: rows or cols are not multiples of 32, the activation is unknown, or softmax with one output.
        WeightsError: the weights cannot be found or read, or do not fit.

    Source: Wacker et al. 2019, figure 2, for encoder, pooling, depth layers and softmax; widths, normalization and
    biases of the decoder from the released code.
    """
    check_input_shape(input_shape, DIVISORS, name)
    depth, rows, cols, channels = input_shape
    flat = ResNet34((rows, cols, 3), include_top=False, pool=2)
    fill_flat(flat, encoder_weights if weights is None else None, _IMAGENET)
    flat = with_random_biases(flat) if encoder_bias else flat
    encoder = convert(flat, depth=depth, in_channels=channels)
    layer1, layer2, layer3, layer4 = (encoder.get_layer(skip).output for skip in _SKIPS)

    def along_depth(x: Any, filters: int, name: str) -> Any:
        return _convolved(x, filters, name, kernel=(3, 1, 1)) if depth_layers else x

    x = joined = along_depth(layer4, 512, "depth1")
    x = _up([_convolved(x, 128, "center"), joined], 256, 128, "dec5")
    x = _up([x, layer3], 256, 128, "dec4")
    x = along_depth(x, 128, "depth2")
    x = _up([x, layer2], 128, 32, "dec3")
    x = _up([x, layer1], 64, 64, "dec2")
    x = along_depth(x, 64, "depth3")
    x = _convolved(_up([x], 64, 16, "dec1"), 16, "dec0")
    x = along_depth(x, 16, "depth4")
    outputs = output_layer(classes, 1, activation)(x)
    return with_weights(keras.Model(encoder.input, outputs, name=name), weights)


def _up(parts: list[Any], filters: int, up_filters: int, name: str) -> Any:
    """Concatenation, convolution, and doubling of rows and columns."""
    x = layers.Concatenate(name=f"{name}_concat")(parts) if len(parts) > 1 else parts[0]
    x = _convolved(x, filters, name)
    return layers.Conv3DTranspose(
        up_filters, (1, 4, 4), strides=(1, 2, 2), padding="same", activation="relu", name=f"{name}_up"
    )(x)


ALBUNET: Architecture = Architecture(
    AlbuNet,
    partial(own_arguments, outputs="classes"),
    lambda arguments: DIVISORS,
    groups_by_prefix({"depth": "depth", "decoder": ("center", "dec", HEAD)}),
    HEAD,
    lambda arguments: _SOURCE,
)
