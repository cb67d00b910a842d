"""DS-Net: volumes squeezed to four maps of three slices, which an EfficientNet U-Net sees as images."""

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import keras
from keras import layers

from planar3d.conversion.convert import convert
from planar3d.graph.padding import halves
from planar3d.networks.architecture import Architecture, check_depth, check_input_shape, groups_by_prefix, own_arguments
from planar3d.networks.decoders import convolved, decoded
from planar3d.networks.efficientnet import COARSEST, NOISY_STUDENT, SKIPS, EfficientNet, noisy_student
from planar3d.networks.encoder_weights import EncoderWeights, fill_flat
from planar3d.networks.resnet import NORMALIZATION
from planar3d.transfer.transplant import load_weights

HEAD = "final"
SLICES, MAPS = 3, 4  # that the volume is squeezed to: red, green and blue of four images
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
        input_shape: (depth, rows, cols, channels); the depth is one that the factors make three slices of, 97 to 144 as
            they are; rows and cols are multiples of 32, and may be None.
        outputs: channels of the output.
        activation: of the output, `"sigmoid"` or `"softmax"`.
        factors: by which depth is divided, one after another, until three slices are left.
        filters: of the 3D levels, outermost first.
        up_kernels, up_strides: slices of the transposed convolutions and their strides on the way back, outermost
            first; what they give is cut or padded evenly to the depth that was there. Without any, slices, rows and
            columns are repeated.
        convolutions: of each 3D level on the way back.
        full_resolution: filters of a planar convolution before EfficientNet-B0, which then sees these channels; 0:
            none, it sees red, green and blue.
        activation_2d: of the 2D decoder, `"silu"` or `"relu"`.
        encoder_padding, encoder_epsilon: as in `EfficientNet`.
        weights: a file that fills the whole network; then no encoder weights are looked for.
        encoder_weights: `"imagenet"` for noisy student's, a file of EfficientNet-B0's 2D weights by the names of torch
            or Keras, or None.
        name: the model's name.

    Returns:
        A model from (batch, depth, rows, cols, channels) to probabilities (batch, depth, rows, cols, outputs), float32.

    Raises:
        ValueError: a shape that does not fit the factors.
        WeightsError: weights that cannot be found, read, or do not fit.

    Source: Messaoudi et al. 2023, figure 4; widths, kernels and the transposed convolutions from the released code. The
    2D part is planar, on a volume whose four slices are the maps, so that any number of volumes makes a batch.
    """
    check_input_shape(input_shape, _DIVISORS, name)
    check_depth(input_shape, (SLICES - 1) * prod(factors) + 1, SLICES * prod(factors), name)
    inputs = keras.Input(input_shape, name="volume")
    x = _convolved(inputs, filters[0], "squeeze")
    skips = [x]
    for level, (factor, width) in enumerate(zip(factors, (*filters[1:], MAPS), strict=True), start=1):
        if level > 1:
            x = _convolved(x, width, f"squeeze{level}")
        x = _convolved(x, width, f"squeeze{level}_down", factor)
        skips.append(x)
    x = layers.Permute((4, 2, 3, 1), name="slices_to_images")(skips.pop())

    full = [convolved(x, full_resolution, "full", planar=True, activation="relu")] if full_resolution else []
    flat = EfficientNet(
        "b0",
        (*input_shape[1:3], SLICES),
        epsilon=encoder_epsilon,
        momentum=NORMALIZATION["momentum"],
        padding=encoder_padding,
        drop_path=0.4,
    )
    fill_flat(flat, encoder_weights if weights is None else None, NOISY_STUDENT["b0"])
    flat = keras.Model(flat.input, flat.get_layer(COARSEST["b0"]).output, name=flat.name)
    encoder = convert(flat, counterparts={layers.Dropout: _by_map}, input_tensor=full[0] if full else x)
    skips_2d = [*(encoder.get_layer(skip).output for skip in SKIPS["b0"]), *full]
    x = decoded(
        encoder.output, skips_2d, _UP_FILTERS, transposed=bool(up_kernels), planar=True, activation=activation_2d
    )
    x = layers.Conv3D(SLICES, (1, 3, 3), padding="same", name="up_slices")(x)
    x = layers.Permute((4, 2, 3, 1), name="images_to_slices")(x)

    for level in reversed(range(len(factors))):
        skip, restored = skips[level], f"restore{level + 1}"
        if up_kernels:
            kernel, stride = (up_kernels[level], 1, 1), (up_strides[level], 1, 1)
            x = layers.Conv3DTranspose(x.shape[-1], kernel, stride, name=f"{restored}_up")(x)
        else:
            x = layers.UpSampling3D((factors[level], 1, 1), name=f"{restored}_up")(x)
        x = layers.Concatenate(name=f"{restored}_concat")([_of_depth(x, skip.shape[1], restored), skip])
        for number in range(convolutions):
            x = _convolved(x, filters[level], f"{restored}_{number + 1}")
    # The loss takes logarithms, so probabilities are float32 under any precision.
    x = layers.Conv3D(outputs, 3, padding="same", activation=activation, dtype="float32", name=HEAD)(x)
    network = keras.Model(inputs, x, name=name)
    if weights is not None:
        load_weights(network, weights, strict=True)
    return network


def _convolved(x: Any, filters: int, name: str, factor: int = 1) -> Any:
    """A 3×3×3 convolution, normalized case by case, with SiLU; depth divided as torch does it, padded on both sides."""
    if factor > 1:
        x = layers.ZeroPadding3D(1, name=f"{name}_pad")(x)
    padding = "valid" if factor > 1 else "same"
    x = layers.Conv3D(filters, 3, (factor, 1, 1), padding, use_bias=False, name=f"{name}_conv")(x)
    x = layers.GroupNormalization(-1, epsilon=1e-5, center=False, scale=False, name=f"{name}_in")(x)
    return layers.Activation("silu", name=f"{name}_silu")(x)


def _of_depth(x: Any, depth: int, name: str) -> Any:
    """Slices cut off, or zeros put, evenly on both sides."""
    surplus = x.shape[1] - depth
    if surplus > 0:
        return layers.Cropping3D((halves(surplus), (0, 0), (0, 0)), name=f"{name}_crop")(x)
    return layers.ZeroPadding3D((halves(-surplus), (0, 0), (0, 0)), name=f"{name}_pad")(x) if surplus else x


def _by_map(layer: layers.Dropout) -> layers.Dropout:
    """Leaves a block out map by map, as a 2D network does image by image."""
    return layers.Dropout(layer.rate, noise_shape=(None, None, 1, 1, 1), name=layer.name)


DS_NET = Architecture(
    DSNet,
    own_arguments,
    lambda arguments: _DIVISORS,
    groups_by_prefix({"squeeze": "squeeze", "decoder": ("full", "up"), "restore": ("restore", HEAD)}),
    HEAD,
    lambda arguments: noisy_student("b0"),
)
