"""DS-Net: volumes are reduced to four maps of three slices, the RGB inputs of an EfficientNet U-Net."""

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import keras
from keras import layers

from planar3d.conversion.convert import convert
from planar3d.graph.reach import halves
from planar3d.networks.architecture import Architecture, check_depth, check_input_shape, groups_by_prefix, own_arguments
from planar3d.networks.decoders import HEAD, convolved, decoded, output_layer
from planar3d.networks.efficientnet import SKIPS, noisy_student, noisy_student_encoder
from planar3d.networks.encoder_weights import EncoderWeights, with_weights
from planar3d.networks.settings import DSNetSettings

SLICES, MAPS = 3, 4  # of the reduced volume: red, green and blue of four images
_DIVISORS = (1, 32, 32)
_UP_FILTERS = (256, 128, 64, 32, 16)  # of the 2D decoder's levels, coarsest first


def DSNet(
    input_shape: tuple[int, int | None, int | None, int] = (128, 128, 128, 4),
    outputs: int = 3,
    activation: str = "sigmoid",
    factors: Sequence[int] = (3, 2, 2, 4),
    filters: Sequence[int] = (16, 32, 48, 96),
    up_kernels: Sequence[int] = (4, 3, 2, 5),
    up_strides: Sequence[int] = (3, 2, 2, 3),
    convolutions: int = 1,
    full_resolution: int = 0,
    activation_2d: str = "silu",
    encoder_padding: Literal["same", "symmetric"] = "symmetric",
    encoder_epsilon: float = 1e-5,
    weights: EncoderWeights = None,
    encoder_weights: EncoderWeights = "imagenet",
    name: str = "ds_net",
) -> keras.Model:
    """DS-Net, 7,668,118 parameters: a 3D U-Net along depth, with a 2D U-Net over EfficientNet-B0 at its bottom.

    >>> DSNet((12, 64, 64, 4), factors=(2, 2), filters=(8, 8), up_kernels=(), encoder_weights=None).output_shape
    (None, 12, 64, 64, 3)

    Args:
        input_shape: (depth, rows, cols, channels); the factors must reduce depth to three slices, 97 to 144 by
            default; rows and cols are multiples of 32, and may be None.
        outputs, activation: channels of the output, and their activation, `"sigmoid"` or `"softmax"`.
        factors: successive factors that reduce depth to three slices.
        filters: filters of the 3D levels, outermost first.
        up_kernels, up_strides: depths of the decoder's transposed convolutions and their strides, outermost first;
            their output is cropped or padded evenly to the encoder's depth. If empty, upsampling is nearest
            neighbour.
        convolutions: convolutions in each 3D decoder level.
        full_resolution: filters of a planar convolution before EfficientNet-B0, which takes these channels as input;
            0: no such convolution, the input is red, green and blue.
        activation_2d: activation of the 2D decoder, `"silu"` or `"relu"`.
        encoder_padding, encoder_epsilon: as in `EfficientNet`.
        weights, encoder_weights: as in `build_network`; `"imagenet"` is the noisy student.

    Returns:
        A model from (batch, depth, rows, cols, channels) to probabilities (batch, depth, rows, cols, outputs), float32.

    Raises:
        ValueError: the shape does not fit the factors, or softmax with one output.
        RecipeError: numbers of levels that differ, or filters or factors that are not greater than 0.
        WeightsError: the weights cannot be found or read, or do not fit.

    Source: Messaoudi et al. 2023, figure 4; widths, kernels and the transposed convolutions from the released code. The
    2D part is planar, on a volume that has the four maps as its slices, so that any batch size is possible.
    """
    check_input_shape(input_shape, _DIVISORS, name)
    levels = {"factors": factors, "filters": filters, "up_kernels": up_kernels}
    levels["up_strides"] = up_strides if up_kernels else ()
    own = DSNetSettings.made({**levels, "convolutions": convolutions, "full_resolution": full_resolution})
    check_depth(input_shape, (SLICES - 1) * prod(own.factors) + 1, SLICES * prod(own.factors), name)
    inputs = keras.Input(input_shape, name="volume")
    x = _convolved(inputs, own.filters[0], "squeeze")
    skips = [x]
    for level, (factor, width) in enumerate(zip(own.factors, (*own.filters[1:], MAPS), strict=True), start=1):
        if level > 1:
            x = _convolved(x, width, f"squeeze{level}")
        x = _convolved(x, width, f"squeeze{level}_down", factor)
        skips.append(x)
    x = layers.Permute((4, 2, 3, 1), name="slices_to_images")(skips.pop())

    full = [convolved(x, own.full_resolution, "full", (1, 3, 3), activation="relu")] if own.full_resolution else []
    filled = encoder_weights if weights is None else None
    options = {"padding": encoder_padding, "epsilon": encoder_epsilon}
    flat = noisy_student_encoder("b0", (*input_shape[1:3], SLICES), filled, **options)
    # Stochastic depth per map, as per image in a 2D network.
    by_map = {layers.Dropout: lambda one: layers.Dropout(one.rate, (None, None, 1, 1, 1), name=one.name)}
    encoder = convert(flat, counterparts=by_map, input_tensor=full[0] if full else x)
    skips_2d = [*(encoder.get_layer(skip).output for skip in SKIPS["b0"]), *full]
    x = decoded(
        encoder.output, skips_2d, _UP_FILTERS, transposed=bool(own.up_kernels), planar=True, activation=activation_2d
    )
    x = layers.Conv3D(SLICES, (1, 3, 3), padding="same", name="up_slices")(x)
    x = layers.Permute((4, 2, 3, 1), name="images_to_slices")(x)

    for level in reversed(range(len(own.factors))):
        skip, restored = skips[level], f"restore{level + 1}"
        if own.up_kernels:
            kernel, stride = (own.up_kernels[level], 1, 1), (own.up_strides[level], 1, 1)
            x = layers.Conv3DTranspose(x.shape[-1], kernel, stride, name=f"{restored}_up")(x)
        else:
            x = layers.UpSampling3D((own.factors[level], 1, 1), name=f"{restored}_up")(x)
        x = layers.Concatenate(name=f"{restored}_concat")([_of_depth(x, skip.shape[1], restored), skip])
        for number in range(own.convolutions):
            x = _convolved(x, own.filters[level], f"{restored}_{number + 1}")
    x = output_layer(outputs, 3, activation, padding="same")(x)
    return with_weights(keras.Model(inputs, x, name=name), weights)


def _convolved(x: Any, filters: int, name: str, factor: int = 1) -> Any:
    """A 3×3×3 convolution with instance normalization and SiLU; depth is divided as in torch, padded on both sides."""
    if factor > 1:
        x = layers.ZeroPadding3D(1, name=f"{name}_pad")(x)
    padding = "valid" if factor > 1 else "same"
    x = layers.Conv3D(filters, 3, (factor, 1, 1), padding, use_bias=False, name=f"{name}_conv")(x)
    x = layers.GroupNormalization(-1, epsilon=1e-5, center=False, scale=False, name=f"{name}_in")(x)
    return layers.Activation("silu", name=f"{name}_silu")(x)


def _of_depth(x: Any, depth: int, name: str) -> Any:
    """Cropped or zero-padded evenly on both sides along depth."""
    surplus = x.shape[1] - depth
    if surplus > 0:
        return layers.Cropping3D((halves(surplus), (0, 0), (0, 0)), name=f"{name}_crop")(x)
    return layers.ZeroPadding3D((halves(-surplus), (0, 0), (0, 0)), name=f"{name}_pad")(x) if surplus else x


DS_NET: Architecture = Architecture(
    DSNet,
    own_arguments,
    lambda arguments: _DIVISORS,
    groups_by_prefix({"squeeze": "squeeze", "decoder": ("full", "up"), "restore": ("restore", HEAD)}),
    HEAD,
    lambda arguments: noisy_student("b0"),
)
