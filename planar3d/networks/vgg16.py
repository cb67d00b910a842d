"""Planar VGG-16: convolutions act within a slice, only pooling combines slices (Kolarik 2020, section 3.4)."""

from typing import Any

import keras
from keras import layers

from planar3d.conversion.choices import PLANAR, KernelMapping
from planar3d.networks.architecture import check_input_shape
from planar3d.networks.encoder_weights import EncoderWeights, fill_encoder

# (filters, convolutions) of blocks 1-5 (Simonyan & Zisserman 2015, configuration D).
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_LEAST = 2 ** (len(BLOCKS) - 1)  # voxels along an axis that is halved between blocks


def vgg16_convolutions(x: Any, number: int, mapping: KernelMapping = PLANAR) -> Any:
    """Apply the convolutions of block `number` (1-5), named `block1_conv1` … as in the 2D network and the release."""
    filters, convolutions = BLOCKS[number - 1]
    for i in range(1, convolutions + 1):
        name = f"block{number}_conv{i}"
        x = mapping.convolution(filters, (3, 3), padding="same", activation="relu", name=name)(x)
    return x


def vgg16_pool(x: Any, number: int, depth_pooling: bool = True) -> Any:
    """Apply the pooling after block `number`: halves rows and columns, and with `depth_pooling` also depth."""
    return layers.MaxPooling3D((2 if depth_pooling else 1, 2, 2), name=f"block{number}_pool")(x)


def PlanarVGG16(
    input_shape: tuple[int | None, int | None, int | None, int] = (16, 256, 256, 3),
    weights: EncoderWeights = "imagenet",
    depth_pooling: bool = True,
    name: str = "planar_vgg16",
) -> keras.Model:
    """VGG-16's thirteen convolutions with planar 1×3×3 kernels, `block1_conv1` to `block5_conv3`.

    Args:
        input_shape: (depth, rows, cols, channels); any of the first three may be None.
        weights: `"imagenet"`, a file of 2D kernels (mapped by eq. 3) or planar kernels (loaded), or None for random.
            For other numbers of channels than three, the first kernel is adapted as in `convert`.
        depth_pooling: also pool the slice axis, as in the res-u-net; False keeps slices separate, so that the network
            equals the 2D VGG-16 on each slice.

    Returns:
        A model that gives the output of `block5_conv3`, (batch, depth', rows / 16, cols / 16, 512), where depth' is
        depth / 16 with `depth_pooling` and depth without.

    Raises:
        ValueError: a pooled axis has fewer than 16 voxels.
        WeightsError: the weights cannot be found or read, or do not fit.

    Source: Kolarik 2020, section 3.3 and eq. 3; the released encoder file holds these layers.
    """
    check_input_shape(input_shape, (1, 1, 1), name)
    for axis, length in zip(("depth", "rows", "cols"), input_shape, strict=False):
        if length is not None and length < _LEAST and (depth_pooling or axis != "depth"):
            raise ValueError(
                f"input_shape={tuple(input_shape)}: {axis} is {length}, but the four poolings need at least {_LEAST}"
                f"{'; depth_pooling=False keeps the slices separate' if axis == 'depth' else ''}."
            )
    inputs = x = keras.Input(input_shape, name="input")
    for number in (1, 2, 3, 4):
        x = vgg16_pool(vgg16_convolutions(x, number), number, depth_pooling)
    network = keras.Model(inputs, vgg16_convolutions(x, 5), name=name)
    fill_encoder(network, weights)
    return network


def encoder_layer_names(blocks: int = 5) -> tuple[str, ...]:
    """Names of the convolutions of the first `blocks` blocks, in order."""
    return tuple(
        f"block{b}_conv{i}" for b, (_, count) in enumerate(BLOCKS[:blocks], start=1) for i in range(1, count + 1)
    )
