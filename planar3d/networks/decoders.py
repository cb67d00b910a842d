"""Blocks that networks share: a normalized convolution, the output, and the decoder of Messaoudi et al. 2023.

The decoder is 3D, or planar: the 2D decoder applied to each slice.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import keras
from keras import layers

from planar3d.networks.resnet import NORMALIZATION
from planar3d.sections import check_choice, whole

HEAD = "final"  # name of the last convolution
Norm = Literal["batch", "instance"]
# With torch's defaults; "instance" normalizes each channel of a sample separately, with scale and offset.
_NORMS: dict[str, Callable[..., keras.Layer]] = {
    "batch": partial(layers.BatchNormalization, **NORMALIZATION),
    "instance": partial(layers.GroupNormalization, -1, epsilon=1e-5),
}


def convolved(
    x: Any,
    filters: int,
    name: str,
    kernel: int | tuple[int, int, int] = 3,
    *,
    use_bias: bool = False,
    norm: Norm = "batch",
    activation: str = "silu",
) -> Any:
    """A convolution of images or volumes, normalization and activation."""
    convolution = layers.Conv2D if len(x.shape) == 4 else layers.Conv3D
    x = convolution(filters, kernel, padding="same", use_bias=use_bias, name=f"{name}_conv")(x)
    x = _NORMS[norm](name=f"{name}_bn")(x)
    return layers.Activation(activation, name=f"{name}_{activation}")(x)


def decoded(
    x: Any,
    skips: Sequence[Any],
    filters: Sequence[int],
    *,
    transposed: bool,
    planar: bool = False,
    norm: Norm = "batch",
    activation: str = "silu",
) -> Any:
    """Decode features from the coarsest level to full resolution, doubling sizes at each level.

    Args:
        x: (batch, depth, rows, cols, channels); or images, (batch, rows, cols, channels), if not transposed.
        skips: of each level, coarsest first; levels after the last have none.
        filters: of each level's two convolutions.
        transposed: upsampling by transposed convolutions of 2 voxels with stride 2; else by repeating voxels.
        planar: whether depth is kept, and no kernel combines slices.

    Returns:
        (batch, …, last of the filters), each upsampled axis doubled once per level.
    """
    up, kernel = ((1, 2, 2), (1, 3, 3)) if planar else (2, 3)
    repeated = layers.UpSampling2D if len(x.shape) == 4 else layers.UpSampling3D
    for level, width in enumerate(filters):
        name = f"up{level + 1}"
        if transposed:
            x = layers.Conv3DTranspose(x.shape[-1], up, up, name=f"{name}_up")(x)
        else:
            x = repeated(up, name=f"{name}_up")(x)
        if level < len(skips):
            x = layers.Concatenate(name=f"{name}_concat")([x, skips[level]])
        for number in (1, 2):
            x = convolved(x, width, f"{name}_{number}", kernel, norm=norm, activation=activation)
    return x


def output_layer(
    channels: int,
    kernel_size: int,
    activation: str,
    name: str = HEAD,
    convolution: type[keras.Layer] = layers.Conv3D,
    **settings: Any,
) -> keras.Layer:
    """The last convolution of a network; a `ValueError` for no channels, or the softmax of one."""
    whole("output channels", channels, 1, ValueError)
    check_choice("activation", activation, ("sigmoid", "softmax"), ValueError)
    if activation == "softmax" and channels == 1:
        raise ValueError("The softmax of one output is 1 everywhere; use activation='sigmoid', or two or more outputs.")
    # The loss takes logarithms, so probabilities are float32 in every precision.
    return convolution(channels, kernel_size, activation=activation, dtype="float32", name=name, **settings)
