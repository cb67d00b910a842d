"""EfficientNet-Lite0 in 2D: EfficientNet-B0 without squeeze-and-excitation, and with ReLU6 in place of swish."""

from typing import Any, NamedTuple

import keras
from keras import layers


class Stage(NamedTuple):
    """A row of the network's table: equal blocks, of which the first has the stride."""

    blocks: int
    filters: int
    kernel: int
    stride: int
    expansion: int


# As EfficientNet-B0 (Tan & Le 2019, table 1).
STAGES = (
    Stage(1, 16, 3, 1, 1),
    Stage(2, 24, 3, 2, 6),
    Stage(2, 40, 5, 2, 6),
    Stage(3, 80, 3, 2, 6),
    Stage(3, 112, 5, 1, 6),
    Stage(4, 192, 5, 2, 6),
    Stage(1, 320, 3, 1, 6),
)


def EfficientNetLite0(
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3), include_top: bool = True, classes: int = 1000
) -> keras.Model:
    """EfficientNet-Lite0 with random weights; `load_torch` fills it from torch's files.

    Layers have the names that keras.applications gives its EfficientNets: `stem_conv`, `block1a_dwconv`, ….

    Args:
        input_shape: (rows, cols, channels); rows and cols may be None.
        include_top: whether pooling and the dense layer `predictions` follow.
        classes: outputs of `predictions`.

    Returns:
        A model from (batch, rows, cols, channels), (grey level - 127) / 128, to the logits (batch, classes), or without
        its top to the features (batch, rows / 32, cols / 32, 1280).

    Source: Tan & Le 2019; the lite variants are Google's for small devices (tensorflow/tpu, efficientnet/lite).
    """
    inputs = keras.Input(input_shape, name="input")
    x = _activated(layers.Conv2D(32, 3, 2, "same", use_bias=False, name="stem_conv")(inputs), "stem_")
    for number, stage in enumerate(STAGES, start=1):
        for i in range(stage.blocks):
            x = _block(x, stage, 1 if i else stage.stride, f"block{number}{chr(ord('a') + i)}_")
    x = _activated(layers.Conv2D(1280, 1, use_bias=False, name="top_conv")(x), "top_")
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = layers.Dense(classes, name="predictions")(x)
    return keras.Model(inputs, x, name="efficientnet_lite0")


def _block(inputs: Any, stage: Stage, stride: int, name: str) -> Any:
    """An inverted residual block: expanded, convolved within each channel, projected, added to its input."""
    x = inputs
    if stage.expansion > 1:
        filters = stage.expansion * inputs.shape[-1]
        x = _activated(layers.Conv2D(filters, 1, use_bias=False, name=f"{name}expand_conv")(x), f"{name}expand_")
    x = layers.DepthwiseConv2D(stage.kernel, stride, "same", use_bias=False, name=f"{name}dwconv")(x)
    x = _activated(x, name)
    x = layers.Conv2D(stage.filters, 1, use_bias=False, name=f"{name}project_conv")(x)
    x = layers.BatchNormalization(name=f"{name}project_bn")(x)
    if stride == 1 and inputs.shape[-1] == stage.filters:
        x = layers.Add(name=f"{name}add")([x, inputs])
    return x


def _activated(x: Any, name: str) -> Any:
    x = layers.BatchNormalization(name=f"{name}bn")(x)
    return layers.ReLU(6.0, name=f"{name}activation")(x)
