"""The planar 3D res-u-net (Kolarik 2020, figure 4)."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from planar3d.conversion.choices import KernelMapping
from planar3d.errors import RecipeError
from planar3d.networks.architecture import Architecture, check_input_shape, groups_by_prefix, own_arguments
from planar3d.networks.decoders import output_layer
from planar3d.networks.encoder_weights import EncoderWeights, with_weights
from planar3d.networks.encoders import ENCODERS, levels_of
from planar3d.networks.settings import PlanarResUNetSettings
from planar3d.scans.labels import Targets
from planar3d.sections import check_choice
from planar3d.wording import counted

HEAD = "conv10"
_PAPER = PlanarResUNetSettings()
_FIRST_LEVEL = 6  # the decoder's deepest level in layer names; 1 to 5 are encoder and bridge
# The starts of its layers' names for up to five levels; `conv10` is the head, too.
_DECODER = tuple(f"{kind}{level}" for level in range(_FIRST_LEVEL, 11) for kind in ("trans", "conv"))


def PlanarResUNet(
    input_shape: tuple[int, int | None, int | None, int] = (16, 256, 256, 3),
    weights: EncoderWeights = None,
    encoder: str | keras.Model = "vgg16",
    encoder_weights: EncoderWeights = "imagenet",
    decoder_filters: Sequence[int] | None = None,
    bridge_filters: int = _PAPER.bridge_filters,
    mapping: str = _PAPER.mapping,
    alpha: Sequence[float] = _PAPER.alpha,
    encoder_depth: int = _PAPER.encoder_depth,
    encoder_range: str = _PAPER.encoder_range,
    outputs: int = 1,
    activation: str = "sigmoid",
    name: str = "planar_resunet",
) -> keras.Model:
    """The planar 3D res-u-net: a planar VGG-16 encoder and a dilated residual 3D decoder, 22,870,881 parameters.

    All layers are trainable; the recipe decides which are frozen. There is no batch normalization, since a batch is
    two windows (Kolarik 2020, section 3.4).

    Args:
        input_shape: (depth, rows, cols, channels), the first three multiples of 16; rows and cols may be None.
        weights, encoder_weights: as in `build_network`; an encoder's file may also have planar kernels. For other
            numbers of channels than three, the first kernel is adapted as in `convert`.
        encoder: `"vgg16"`, the paper's; another of `ENCODERS`, converted with planar kernels; or any 3D network that
            `convert` returns. Its skip levels are used (`features`), its weights and input shape are kept, and the
            decoder has one level for each skip level but the coarsest.
        decoder_filters: filters of the decoder levels, deepest first; None for the paper's 256, 128, 64, 32. Shorter
            decoders use the last of these, longer ones add levels of 256 at the start.
        bridge_filters: filters of `conv51` and `conv52`.
        mapping: how the encoder's 2D kernels become 3D: `"planar"`, the paper's; `"zero"`, `"average"`, `"scale"` or
            `"repeat"` as in `map_kernel`, as deep as their number of rows; `"acs"`, `"acs_mean"` or `"acs_soft"` as
            in `ACSConv3D`. The decoder is not affected.
        alpha: for `"scale"`, the factor of each slice.
        encoder_depth: depth of the encoder's kernels if not 1; `"planar"` kernels are then averaged.
        encoder_range: `"unit"` as in the paper: inputs in [-1, 1), whatever range the encoder's weights were trained
            on; `"imagenet"`: inputs and weights are matched.
        outputs, activation: channels of the output, one in the paper, the probability of lesion; and their activation,
            `"sigmoid"` or `"softmax"`.

    Returns:
        A model from (batch, depth, rows, cols, channels) to probabilities (batch, depth, rows, cols, outputs).

    Raises:
        ValueError: a size that the encoder cannot halve (VGG-16 needs multiples of 16), an unknown encoder, an even
            encoder depth, or one that the mapping does not allow, a number of decoder levels that differs from the
            encoder's, an unknown encoder range, or softmax with one output.
        RecipeError: filters that are not whole numbers greater than 0.
        ConversionError: an unknown mapping.
        WeightsError: the weights cannot be found or read, or do not fit.

    Source: Kolarik 2020, figure 4 and section 3.4; layer names as in the released weight files.
    """
    if isinstance(encoder, keras.Model):
        levels = levels_of(encoder)
    else:
        check_choice("encoder", encoder, ENCODERS, ValueError)
        if not isinstance(encoder_depth, int | np.integer) or encoder_depth < 1 or encoder_depth % 2 == 0:
            raise ValueError(
                f"encoder_depth={encoder_depth}: an odd number of slices is needed, with one in the center."
            )
        check_choice("encoder_range", encoder_range, ("unit", "imagenet"), ValueError)
        check_input_shape(input_shape, ENCODERS[encoder].divisors, encoder)
        # Weights for the whole network replace encoder weights.
        filled = encoder_weights if weights is None else None
        levels = ENCODERS[encoder].levels(
            input_shape, filled, encoder_range == "imagenet", _kernels(mapping, alpha, encoder_depth)
        )
    number = len(levels.skips)
    if decoder_filters is None:
        deepest, *others = _PAPER.decoder_filters
        decoder_filters = ((deepest,) * number + tuple(others))[-number:]
    own = PlanarResUNetSettings.made({"decoder_filters": decoder_filters, "bridge_filters": bridge_filters})
    if len(own.decoder_filters) != number:
        raise ValueError(
            f"decoder_filters={own.decoder_filters}: the encoder has {counted(number, 'level')} above its coarsest, "
            "and each needs a number, deepest first."
        )
    y = levels.coarsest
    for layer in ("conv51", "conv52"):
        y = layers.Conv3D(own.bridge_filters, (1, 3, 3), padding="same", activation="relu", name=layer)(y)
    x = layers.Concatenate(name="conc52")([levels.coarsest, y])
    depths = (levels.first_kernel, *(3,) * (number - 1))
    above = zip(own.decoder_filters, reversed(levels.skips), levels.ups, depths, strict=True)
    for level, (filters, skip, up, depth) in enumerate(above, start=_FIRST_LEVEL):
        x = dilated_residual_level(x, skip, filters, level, (depth, 3, 3), up)
    x = output_layer(outputs, 1, activation, name=HEAD)(x)
    return with_weights(keras.Model(levels.inputs, x, name=name), weights)


def dilated_residual_level(
    x: Any, skip: Any, filters: int, level: int, kernel: tuple[int, int, int], up: tuple[int, int, int] = (2, 2, 2)
) -> Any:
    """One decoder level with residual concatenation: up-convolution, skip, dilated convolution, convolution.

    Layers are named `trans<level>`, `up<level>`, `conv<level>1`, `conv<level>2`, `conc<level>2`, as in the released
    weight files.

    Args:
        x: (batch, depth, rows, cols, channels), the level below.
        skip: (batch, up·depth, up·rows, up·cols, channels), the encoder's features at this level.
        filters: of the up-convolution and of both convolutions.
        kernel: (depth, rows, cols) of both convolutions.
        up: factors of depth, rows and cols; 2 in the paper.

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


def _kernels(mapping: str, alpha: Sequence[float] | None, depth: int) -> KernelMapping:
    # Recipes older than `mapping` have only a depth.
    name = "average" if mapping == "planar" and depth > 1 else mapping
    return KernelMapping(name, depth if depth > 1 else None, alpha=alpha if name == "scale" else None)


def _arguments(settings: PlanarResUNetSettings, targets: Targets) -> dict[str, Any]:
    check_choice("encoder", settings.encoder, ENCODERS)
    number, found = ENCODERS[settings.encoder].count, settings.decoder_filters
    if len(found) != number:
        raise RecipeError(
            f"decoder_filters={','.join(map(str, found))}, but {settings.encoder} has "
            f"{counted(number, 'level')} above its coarsest; give one number for each, deepest first."
        )
    return own_arguments(settings, targets)


def _feature_levels(arguments: Mapping[str, Any]) -> Mapping[str, int]:
    levels = ENCODERS[arguments["encoder"]].feature_levels
    if not levels:
        raise RecipeError(
            f"cached_features is not known to be exact with encoder={arguments['encoder']}; set cached_features=none."
        )
    mapping, depth = arguments["mapping"], arguments["encoder_depth"]
    if _kernels(mapping, arguments["alpha"], depth).taps((3, 3)) > 1:
        raise RecipeError(
            f"cached_features needs a planar encoder: with mapping={mapping} and encoder_depth={depth}, features at "
            "the ends of a window lack the slices beyond; set cached_features=none."
        )
    return levels


PLANAR_RESUNET: Architecture = Architecture(
    PlanarResUNet,
    _arguments,
    lambda arguments: ENCODERS[arguments["encoder"]].divisors,
    groups_by_prefix({"bridge": ("conv51", "conv52"), "decoder": _DECODER}),
    HEAD,
    lambda arguments: ENCODERS[arguments["encoder"]].source,
    _feature_levels,
)
