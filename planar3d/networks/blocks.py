"""Blocks that several networks share, under their names in the literature."""

from typing import Any

from keras import layers


def dilated_residual_level(
    x: Any, skip: Any, filters: int, level: int, kernel: tuple[int, int, int], up: tuple[int, int, int] = (2, 2, 2)
) -> Any:
    """One decoder level with residual concatenation: up-convolution, skip, dilated convolution, convolution.

    Layers are named `trans<level>`, `up<level>`, `conv<level>1`, `conv<level>2`, `conc<level>2`, as in the released
    weight files.

    Args:
        x: (batch, depth, rows, cols, channels), the level below.
        skip: (batch, up·depth, up·rows, up·cols, channels), the encoder's features at this level.
        filters: filters of the up-convolution and of both convolutions.
        level: the number in the layers' names.
        kernel: (depth, rows, cols) of both convolutions.
        up: by how much depth, rows and cols are multiplied; twice in the paper.

    Returns:
        (batch, up·depth, up·rows, up·cols, 2·filters + skip channels).

    Source: Kolarik 2020, section 3.4; Kolarik et al. 2019 (residual concatenation); Yu & Koltun 2015 (dilation).
    """
    up = layers.Conv3DTranspose(filters, up, strides=up, padding="same", name=f"trans{level}")(x)
    joined = layers.Concatenate(name=f"up{level}")([up, skip])
    y = layers.Conv3D(
        filters, kernel, dilation_rate=(1, 2, 2), padding="same", activation="relu", name=f"conv{level}1"
    )(joined)
    y = layers.Conv3D(filters, kernel, padding="same", activation="relu", name=f"conv{level}2")(y)
    return layers.Concatenate(name=f"conc{level}2")([joined, y])
