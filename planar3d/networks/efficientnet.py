"""EfficientNet-B0 to -B7 and -Lite0 in 2D, with options that keras.applications does not have.

keras.applications' networks start with ImageNet's standardization, accept only RGB, and use batch normalization.
"""

from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Any, Literal, NamedTuple

import keras
from keras import layers

from planar3d.graph.keras_graph import check_channels_last
from planar3d.graph.reach import halves
from planar3d.networks.architecture import WeightSource, image_input
from planar3d.networks.encoder_weights import EncoderWeights, fill_flat, known_source
from planar3d.networks.resnet import NORMALIZATION, ImageShape, logits
from planar3d.sections import check_choice
from planar3d.transfer.torch_names import DEPTHS


class Stage(NamedTuple):
    """A row of the network's table: equal blocks; the first has the stride."""

    blocks: int
    filters: int
    kernel: int
    stride: int
    expansion: int


# EfficientNet-B0 (Tan & Le 2019, table 1).
STAGES = (
    Stage(1, 16, 3, 1, 1),
    Stage(2, 24, 3, 2, 6),
    Stage(2, 40, 5, 2, 6),
    Stage(3, 80, 3, 2, 6),
    Stage(3, 112, 5, 1, 6),
    Stage(4, 192, 5, 2, 6),
    Stage(1, 320, 3, 1, 6),
)
# Factors of filters and blocks for the other variants (tensorflow/tpu, efficientnet_builder.py).
_WIDTHS = (1.0, 1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0)
SCALES = {f"b{number}": scales for number, scales in enumerate(zip(_WIDTHS, DEPTHS, strict=True))}
# The encoders of Messaoudi 2023: timm's noisy student files, and feature layers, coarsest first.
NOISY_STUDENT = {"b0": "tf_efficientnet_b0_ns-c0e6a31c.pth", "b4": "tf_efficientnet_b4_ns-d6313a46.pth"}
COARSEST = {"b0": "block7a_project_bn", "b4": "block7b_add"}
SKIPS = {
    "b0": ("block5c_add", "block3b_add", "block2b_add", "stem_activation"),
    "b4": ("block5f_add", "block3d_add", "block2d_add", "stem_activation"),
}


class _Style(NamedTuple):
    activation: Callable[..., keras.Layer]
    norm: Callable[..., keras.Layer]
    excited: bool  # squeeze-and-excitation
    symmetric: bool  # padding of strided convolutions


def EfficientNet(
    variant: str = "b0",
    input_shape: ImageShape = (224, 224, 3),
    include_top: bool = False,
    classes: int = 1000,
    *,
    norm: Literal["batch", "instance"] = "batch",
    epsilon: float = 1e-3,
    momentum: float = 0.99,
    padding: Literal["same", "symmetric"] = "same",
    drop_path: float = 0.2,
    input_tensor: keras.KerasTensor | None = None,
) -> keras.Model:
    """An EfficientNet with random weights; `load_torch` fills it from torch's files.

    >>> EfficientNet("b0", (64, 64, 3)).output_shape
    (None, 2, 2, 1280)

    Layers have the names that keras.applications gives its EfficientNets: `stem_conv`, `block1a_dwconv`, ….

    Args:
        variant: `"b0"` to `"b7"`.
        input_shape: (rows, cols, channels), any number of channels; rows and cols may be None.
        include_top, classes: whether pooling and the dense layer `predictions` follow, and its outputs.
        norm: `"batch"`, or `"instance"`: each channel of a sample separately, with scale and offset.
        epsilon, momentum: of the normalization; 1e-3 and 0.99 in keras.applications, 1e-5 and 0.9 by torch's defaults.
        padding: padding of strided convolutions: `"same"` as in TensorFlow, at the end for even sizes, with which
            published weights were trained; or `"symmetric"` as in torch, k // 2 on both sides.
        drop_path: rate of stochastic depth for the last block; it rises linearly from 0 at the first.
        input_tensor: output of another network to continue from, instead of `input_shape`.

    Returns:
        A model from (batch, rows, cols, channels) to logits (batch, classes), or without top to the features
        (batch, rows / 32, cols / 32, channels) of `top_activation`.

    Raises:
        ValueError: the variant, the normalization or the padding is unknown, the shape is not (rows, cols, channels),
            or there are no classes.

    Source: Tan & Le 2019, table 1; scales and the rate's rise as in tensorflow/tpu, efficientnet_builder.py.
    """
    check_choice("variant", variant, SCALES, ValueError)
    check_choice("norm", norm, ("batch", "instance"), ValueError)
    check_choice("padding", padding, ("same", "symmetric"), ValueError)
    widened, deepened = SCALES[variant]
    stages = [
        stage._replace(blocks=ceil(deepened * stage.blocks), filters=_rounded(widened * stage.filters))
        for stage in STAGES
    ]
    normalized = partial(layers.BatchNormalization, epsilon=epsilon, momentum=momentum)
    if norm == "instance":
        normalized = partial(layers.GroupNormalization, -1, epsilon=epsilon)
    style = _Style(partial(layers.Activation, "silu"), normalized, True, padding == "symmetric")
    ends = _rounded(widened * 32), _rounded(widened * 1280)
    inputs = image_input(input_shape) if input_tensor is None else input_tensor
    return _network(f"efficientnet{variant}", stages, ends, style, inputs, include_top, classes, drop_path)


def noisy_student(variant: str) -> WeightSource:
    """The source of the weights of an encoder of Messaoudi 2023."""
    attribution = f"EfficientNet-{variant.upper()}, Tan & Le 2019; noisy student weights (Xie et al. 2020) of timm"
    return known_source(attribution, NOISY_STUDENT[variant])


def noisy_student_encoder(
    variant: str, input_shape: ImageShape, weights: EncoderWeights, **options: Any
) -> keras.Model:
    """An encoder of Messaoudi 2023, up to its coarsest features, with torch's momentum and more stochastic depth.

    The weights `"imagenet"` are the noisy student's; the options are those of `EfficientNet`.
    """
    flat = EfficientNet(variant, input_shape, momentum=NORMALIZATION["momentum"], drop_path=0.4, **options)
    flat = keras.Model(flat.input, flat.get_layer(COARSEST[variant]).output, name=flat.name)
    fill_flat(flat, weights, NOISY_STUDENT[variant])
    return flat


def EfficientNetLite0(
    input_shape: ImageShape = (224, 224, 3), include_top: bool = True, classes: int = 1000
) -> keras.Model:
    """EfficientNet-Lite0, B0 with ReLU6 and without squeeze-and-excitation; arguments and result as for `EfficientNet`.

    Its input is (grey level - 127) / 128. Source: Google's variants for small devices (tensorflow/tpu,
    efficientnet/lite).
    """
    style = _Style(partial(layers.ReLU, 6.0), layers.BatchNormalization, False, False)
    inputs = image_input(input_shape)
    return _network("efficientnet_lite0", STAGES, (32, 1280), style, inputs, include_top, classes, 0.0)


def _network(
    name: str,
    stages: Any,
    ends: tuple[int, int],
    style: _Style,
    inputs: Any,
    include_top: bool,
    classes: int,
    drop_path: float,
) -> keras.Model:
    check_channels_last()
    x = _strided(layers.Conv2D, inputs, 3, 2, style, "stem_conv", filters=ends[0])
    x = _activated(x, style, "stem_")
    blocks = [
        (f"block{number}{chr(ord('a') + i)}_", stage._replace(stride=1 if i else stage.stride))
        for number, stage in enumerate(stages, start=1)
        for i in range(stage.blocks)
    ]
    for place, (block, stage) in enumerate(blocks):
        x = _block(x, stage, style, block, drop_path * place / len(blocks))
    x = _activated(layers.Conv2D(ends[1], 1, use_bias=False, name="top_conv")(x), style, "top_")
    if include_top:
        x = logits(x, classes)
    return keras.Model(inputs, x, name=name)


def _block(inputs: Any, stage: Stage, style: _Style, name: str, drop_path: float) -> Any:
    """An inverted residual block: expanded, convolved within each channel, excited, projected, added to its input."""
    x = inputs
    if stage.expansion > 1:
        filters = stage.expansion * inputs.shape[-1]
        x = _activated(layers.Conv2D(filters, 1, use_bias=False, name=f"{name}expand_conv")(x), style, f"{name}expand_")
    x = _strided(layers.DepthwiseConv2D, x, stage.kernel, stage.stride, style, f"{name}dwconv")
    x = _activated(x, style, name)
    if style.excited:
        x = _excited(x, max(1, inputs.shape[-1] // 4), f"{name}se_")
    x = layers.Conv2D(stage.filters, 1, use_bias=False, name=f"{name}project_conv")(x)
    x = style.norm(name=f"{name}project_bn")(x)
    if stage.stride == 1 and inputs.shape[-1] == stage.filters:
        if drop_path:
            x = layers.Dropout(drop_path, noise_shape=(None, 1, 1, 1), name=f"{name}drop")(x)
        x = layers.Add(name=f"{name}add")([x, inputs])
    return x


def _excited(x: Any, reduced: int, name: str) -> Any:
    """Squeeze-and-excitation: each channel is multiplied by a weight computed from the means of all channels."""
    channels = x.shape[-1]
    share = layers.GlobalAveragePooling2D(name=f"{name}squeeze")(x)
    share = layers.Reshape((1, 1, channels), name=f"{name}reshape")(share)
    share = layers.Conv2D(reduced, 1, activation="silu", name=f"{name}reduce")(share)
    share = layers.Conv2D(channels, 1, activation="sigmoid", name=f"{name}expand")(share)
    return layers.Multiply(name=f"{name}excite")([x, share])


def _strided(made: Any, x: Any, kernel: int, stride: int, style: _Style, name: str, **options: Any) -> Any:
    padding = "same"
    if stride > 1 and style.symmetric:
        x = layers.ZeroPadding2D((halves(kernel - 1),) * 2, name=f"{name}_pad")(x)
        padding = "valid"
    return made(kernel_size=kernel, strides=stride, padding=padding, use_bias=False, name=name, **options)(x)


def _activated(x: Any, style: _Style, name: str) -> Any:
    return style.activation(name=f"{name}activation")(style.norm(name=f"{name}bn")(x))


def _rounded(filters: float) -> int:
    """The nearest multiple of 8 that is at least nine tenths of the value."""
    nearest = max(8, int(filters + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * filters else nearest + 8
