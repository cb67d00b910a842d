"""The planar 3D res-u-net (Kolarik 2020, figure 4)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from planar3d.conversion.skip_levels import features, up_factors
from planar3d.networks.blocks import dilated_residual_level
from planar3d.networks.encoder_weights import EncoderWeights, fill_encoder
from planar3d.networks.vgg16 import vgg16_convolutions, vgg16_pool
from planar3d.recipes import PAPER, Recipe
from planar3d.transfer.transplant import load_weights

# Each of the four poolings halves depth, rows and columns, and the decoder doubles them again.
MULTIPLE = 16


def PlanarResUNet(
    input_shape: tuple[int, int | None, int | None, int] = (16, 256, 256, 3),
    weights: EncoderWeights = None,
    encoder: str | keras.Model = "vgg16",
    encoder_weights: EncoderWeights = "imagenet",
    decoder_filters: Sequence[int] | None = None,
    bridge_filters: int = PAPER.bridge_filters,
    encoder_depth: int = PAPER.encoder_depth,
    name: str = "planar_resunet",
) -> keras.Model:
    """The planar 3D res-u-net: a planar VGG-16 encoder and a dilated residual 3D decoder, 22,870,881 parameters.

    Everything in it is trainable; what is frozen is the recipe's affair. No batch normalization, since the batch is
    two windows (Kolarik 2020, section 3.4).

    Args:
        input_shape: (depth, rows, cols, channels), the first three multiples of 16; rows and cols may be None.
        weights: a file, or the name of a published model, that fills the whole network; then no encoder weights are
            looked for.
        encoder: `"vgg16"`, the paper's, or any 3D network, as `convert` gives it: its skip levels are taken
            (`features`), its weights and its input's shape stay, and the decoder has a level for each but the coarsest.
        encoder_weights: `"imagenet"`, a file of 2D or planar kernels, or None for a random encoder.
        decoder_filters: filters of the decoder levels, deepest first. If None they are the paper's, 256, 128, 64, 32;
            fewer levels take the last of them, and more begin with further levels of 256.
        bridge_filters: filters of `conv51` and `conv52`.
        encoder_depth: slices that an encoder's kernel spans; 1 is the paper's planar encoder. 2D kernels for a deeper
            one are averaged over its slices, what planar transfer is compared with.
        name: the model's name.

    Returns:
        A model from (batch, depth, rows, cols, channels) to lesion probabilities (batch, depth, rows, cols, 1).

    Raises:
        ValueError: a size that is no multiple of 16, an unknown encoder or an even depth of it, or not as many decoder
            levels as the encoder has.
        WeightsError: weights that cannot be found, read, or do not fit.

    Source: Kolarik 2020, figure 4 and section 3.4; layer names as in the released weight files.
    """
    if isinstance(encoder, keras.Model):
        network = _with_encoder(encoder, decoder_filters, bridge_filters, name)
        if weights is not None:
            load_weights(network, weights, strict=True)
        return network
    if decoder_filters is None:
        decoder_filters = PAPER.decoder_filters
    _check(input_shape, encoder, decoder_filters, encoder_depth)
    inputs = x = keras.Input(input_shape, name="input")
    skips = []
    for number in (1, 2, 3, 4):
        skips.append(vgg16_convolutions(x, number, encoder_depth))
        x = vgg16_pool(skips[-1], number)

    x = _bridge(x, bridge_filters)
    for level, filters, skip in zip((6, 7, 8, 9), decoder_filters, reversed(skips), strict=True):
        # Level 6 sees two slices, so its kernels are two deep; the other levels' are three deep.
        x = dilated_residual_level(x, skip, filters, level, kernel=(2 if level == 6 else 3, 3, 3))
    network = keras.Model(inputs, _probabilities(x), name=name)
    if weights is not None:
        load_weights(network, weights, strict=True)
    else:
        fill_encoder(network, encoder_weights, mapping="average")
    return network


def recipe_network(
    recipe: Recipe, weights: EncoderWeights = None, encoder_weights: EncoderWeights = None
) -> keras.Model:
    """Build the planar res-u-net in the recipe's sizes; the weights are as in `PlanarResUNet`."""
    return PlanarResUNet(
        (recipe.depth, recipe.size, recipe.size, recipe.channels),
        weights=weights,
        encoder_weights=encoder_weights,
        decoder_filters=recipe.decoder_filters,
        bridge_filters=recipe.bridge_filters,
        encoder_depth=recipe.encoder_depth,
    )


def _with_encoder(
    encoder: keras.Model, decoder_filters: Sequence[int] | None, bridge_filters: int, name: str
) -> keras.Model:
    *skips, x = (levels := features(encoder)).outputs
    factors = up_factors(levels)
    if decoder_filters is None:
        deepest, *_ = PAPER.decoder_filters
        count = len(factors)
        decoder_filters = ((deepest,) * count + PAPER.decoder_filters[1:])[-count:]
    if len(decoder_filters) != len(factors):
        raise ValueError(
            f"decoder_filters={tuple(decoder_filters)}: {encoder.name} has {len(factors)} levels above its coarsest; "
            "as many numbers are needed, deepest first."
        )
    x = _bridge(x, bridge_filters)
    for number, (filters, skip, up) in enumerate(zip(decoder_filters, reversed(skips), factors, strict=True)):
        x = dilated_residual_level(x, skip, filters, 6 + number, (3, 3, 3), up)
    return keras.Model(levels.input, _probabilities(x), name=name)


def _probabilities(x: Any) -> Any:
    # Probabilities stay in float32 under any precision policy: the loss takes their logarithm.
    return layers.Conv3D(1, 1, activation="sigmoid", dtype="float32", name="conv10")(x)


def _bridge(x: Any, filters: int) -> Any:
    y = x
    for name in ("conv51", "conv52"):
        y = layers.Conv3D(filters, (1, 3, 3), padding="same", activation="relu", name=name)(y)
    return layers.Concatenate(name="conc52")([x, y])


def _check(input_shape: Sequence[int | None], encoder: str, decoder_filters: Sequence[int], encoder_depth: int) -> None:
    if encoder != "vgg16":
        raise ValueError(f"encoder={encoder!r} is unknown; the planar res-u-net takes 'vgg16', or a 3D network.")
    if len(decoder_filters) != 4:
        raise ValueError(f"decoder_filters={tuple(decoder_filters)}: four levels are needed, deepest first.")
    if encoder_depth < 1 or encoder_depth % 2 == 0:
        raise ValueError(f"encoder_depth={encoder_depth}: an odd number of slices is needed, around a middle one.")
    if len(input_shape) != 4:
        raise ValueError(f"input_shape={tuple(input_shape)}: (depth, rows, cols, channels) is needed.")
    for axis, length in zip(("depth", "rows", "cols"), input_shape[:3], strict=True):
        if length is not None and (length <= 0 or length % MULTIPLE):
            raise ValueError(
                f"input_shape={tuple(input_shape)}: {axis} is {length}, but four poolings halve it, so it must be a "
                f"multiple of {MULTIPLE}."
            )
