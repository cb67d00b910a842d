"""Encoders by name: the paper's VGG-16, and pretrained 2D networks converted to 3D."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from planar3d.conversion.choices import KernelMapping
from planar3d.conversion.convert import convert
from planar3d.conversion.skip_levels import features, up_factors
from planar3d.graph.keras_graph import check_channels_last, layers_applied_again
from planar3d.networks.architecture import WeightSource
from planar3d.networks.efficientnet import EfficientNetLite0
from planar3d.networks.encoder_weights import (
    VGG16_SOURCE,
    EncoderWeights,
    fill_encoder,
    fill_flat,
    input_scale,
    known_source,
)
from planar3d.networks.resnet import ResNet18, ResNet34, ResNet50
from planar3d.networks.vgg16 import encoder_layer_names, vgg16_convolutions, vgg16_pool
from planar3d.scans.windows import INPUT_SCALE
from planar3d.transfer.torch_weights import IMAGENET_MEAN, IMAGENET_STD

InputShape = tuple[int, int | None, int | None, int]

# Input range of weights for grey levels v = 0, …, 255, as (v - mean) / deviation per channel.
_IMAGENET = (np.multiply(255, IMAGENET_MEAN), np.multiply(255, IMAGENET_STD))
_LITE = (np.full(3, 127.0), np.full(3, 128.0))
_DEPTH_FACTORS = (2, 2, 2, 2, 1)  # depth factors of a converted encoder's levels


class Levels(NamedTuple):
    """The parts of an encoder that a decoder uses."""

    inputs: Any  # of the encoder
    skips: list[Any]  # its features at each level, finest first
    coarsest: Any  # its features below the last skip
    ups: list[tuple[int, int, int]]  # upsampling factors of the three axes for each level of a decoder, coarsest first
    first_kernel: int = 3  # depth of the decoder's kernels at the coarsest level


@dataclass(frozen=True)
class Encoder:
    """A named encoder."""

    # Builds it from (depth, rows, cols, channels), where rows and cols may be None; its weights, `"imagenet"`, a file,
    # or None for random ones; whether inputs v / 128 - 1 are matched to the range that the weights expect; and the
    # mapping of its 2D kernels.
    levels: Callable[[InputShape, EncoderWeights, bool, KernelMapping], Levels]
    count: int  # levels above the coarsest, as in a decoder
    divisors: tuple[int, int, int]  # of depth, rows and cols
    source: WeightSource  # of its weights
    feature_levels: Mapping[str, int] = field(default_factory=dict)  # see `Architecture`; for planar kernels


def _vgg16(input_shape: InputShape, weights: EncoderWeights, matched: bool, mapping: KernelMapping) -> Levels:
    """VGG-16's blocks 1 to 4, separated by poolings of depth, rows and columns (Kolarik 2020, figure 4)."""
    inputs = x = keras.Input(input_shape, name="input")
    skips = []
    for number in (1, 2, 3, 4):
        skips.append(vgg16_convolutions(x, number, mapping))
        x = vgg16_pool(skips[-1], number)
    encoder = keras.Model(inputs, x)
    fill_encoder(encoder, weights, mapping)
    if matched:
        match_input_range([encoder.get_layer(name) for name in encoder_layer_names(4)], input_scale(weights))
    # The coarsest level has two slices for a window of sixteen.
    return Levels(inputs, skips, x, [(2, 2, 2)] * 4, first_kernel=2)


def match_input_range(convolutions: Iterable[Any], scale: float = INPUT_SCALE) -> None:
    """Divide the biases of all of an encoder's convolutions by a scale, for inputs that are smaller by this factor.

    Convolutions with ReLU and maximum poolings are homogeneous: with biases b / s, the features of x / s are those of x
    divided by s, in every layer. VGG-16's ImageNet weights were trained on grey levels of about ±128; unscaled biases,
    as in Kolarik 2020, outweigh the image.
    """
    for layer in convolutions:
        layer.bias.assign(layer.bias / scale)


def _converted(
    build: Callable[..., keras.Model], imagenet: str, expects: tuple[np.ndarray, np.ndarray], attribution: str
) -> Encoder:
    """A converted 2D network without its top, whose weights expect grey levels of a mean and standard deviation.

    Rows and columns are halved at each of its five levels, and depth at the first four, so that windows of sixteen
    slices end with one. Scans and windows are padded at different positions, so windows share no features.
    """

    def levels(input_shape: InputShape, weights: EncoderWeights, matched: bool, mapping: KernelMapping) -> Levels:
        slices, rows, cols, channels = input_shape
        flat = build((rows, cols, 3), include_top=False)
        fill_flat(flat, weights, imagenet)
        if matched:
            flat = _matched(flat, *expects)
        return levels_of(convert(flat, mapping, slices, _DEPTH_FACTORS, in_channels=channels))

    return Encoder(levels, len(_DEPTH_FACTORS), (16, 32, 32), known_source(attribution, imagenet))


def levels_of(encoder: keras.Model) -> Levels:
    """The levels of any 3D network from `convert`, with its weights and input shape.

    Raises:
        ConversionError: its levels cannot be found, or one is not a multiple of the next.
    """
    check_channels_last()  # which its decoder needs
    *skips, coarsest = (found := features(encoder)).outputs
    return Levels(found.input, skips, coarsest, up_factors(found))


def _matched(flat: keras.Model, mean: np.ndarray, deviation: np.ndarray) -> keras.Model:
    """The network after a layer that maps v / 128 - 1 to (v - mean) / deviation."""
    inputs = keras.Input(flat.input_shape[1:], name="input")
    scale, offset = (INPUT_SCALE / deviation).tolist(), ((INPUT_SCALE - mean) / deviation).tolist()
    x = layers.Rescaling(scale, offset, name="input_range")(inputs)
    # Without nesting the network: training inspects the inputs of layers.
    return keras.Model(inputs, layers_applied_again(flat, [x])[0], name=flat.name)


# Planar convolutions act within a slice, and poolings combine two; so these are equal for a scan and its windows.
_VGG16_FEATURES = {"block1_conv2": 1, "block2_conv2": 2, "block3_conv3": 4, "block4_conv3": 8}
ENCODERS: dict[str, Encoder] = {
    "vgg16": Encoder(_vgg16, 4, (16, 16, 16), VGG16_SOURCE, _VGG16_FEATURES),
    "resnet18": _converted(ResNet18, "resnet18-f37072fd.pth", _IMAGENET, "ResNet-18, He et al. 2016, torchvision"),
    "resnet34": _converted(ResNet34, "resnet34-b627a593.pth", _IMAGENET, "ResNet-34, He et al. 2016, torchvision"),
    "resnet50": _converted(ResNet50, "resnet50-0676ba61.pth", _IMAGENET, "ResNet-50, He et al. 2016, torchvision"),
    "efficientnet-lite0": _converted(
        EfficientNetLite0,
        "efficientnet-lite0-57934424.pth",
        _LITE,
        "EfficientNet-Lite0, Tan and Le 2019, Google (Apache-2.0)",
    ),
}
