"""DX-Net: EfficientNet-B0 with kernels repeated along depth, in a 3D U-Net (Messaoudi et al. 2023)."""

from typing import Literal

import keras
from keras import layers

from planar3d.conversion.convert import convert
from planar3d.networks.architecture import Architecture, check_input_shape, groups_by_prefix, own_arguments
from planar3d.networks.decoders import HEAD, Norm, convolved, decoded, output_layer
from planar3d.networks.efficientnet import SKIPS, noisy_student, noisy_student_encoder
from planar3d.networks.encoder_weights import EncoderWeights, with_weights
from planar3d.sections import check_choice

_DIVISORS = (32, 32, 32)
_FILTERS = (256, 128, 64, 32, 16)  # of the decoder's levels, coarsest first


def DXNet(
    input_shape: tuple[int | None, int | None, int | None, int] = (128, 128, 128, 4),
    outputs: int = 3,
    activation: str = "sigmoid",
    norm: Norm = "instance",
    encoder_padding: Literal["same", "symmetric"] = "symmetric",
    encoder_epsilon: float = 1e-5,
    stem: Literal["normal", "fitted"] = "normal",
    weights: EncoderWeights = None,
    encoder_weights: EncoderWeights = "imagenet",
    name: str = "dx_net",
) -> keras.Model:
    """DX-Net, 12,542,831 parameters: a full-resolution convolution, EfficientNet-B0 made 3D, and a decoder.

    >>> DXNet((32, 64, 32, 4), encoder_weights=None).output_shape
    (None, 32, 64, 32, 3)

    Args:
        input_shape: (depth, rows, cols, channels); the first three are multiples of 32 and may be None.
        outputs, activation: channels of the output, and their activation, `"sigmoid"` or `"softmax"`.
        norm: `"instance"` as in the paper, with scale and offset, or `"batch"` as in the released code.
        encoder_padding, encoder_epsilon: as in `EfficientNet`.
        stem: how the first convolution's weights are adapted from three inputs to 16: `"normal"`, replaced by samples
            of a standard normal distribution as in the released code; or `"fitted"`, spread over the inputs as in
            `convert`.
        weights, encoder_weights: as in `build_network`; `"imagenet"` is the noisy student, None has random kernels.

    Returns:
        A model from (batch, depth, rows, cols, channels) to probabilities (batch, depth, rows, cols, outputs), float32.

    Raises:
        ValueError: sizes are not multiples of 32, the normalization or the stem is unknown, or softmax with one output.
        WeightsError: the weights cannot be found or read, or do not fit.

    Source: Messaoudi et al. 2023, section 2.2, for the encoder, its repeated kernels and instance normalization; the
    decoder's widths and epsilon, and the rate of stochastic depth, from the released code.
    """
    check_input_shape(input_shape, _DIVISORS, name)
    check_choice("norm", norm, ("instance", "batch"), ValueError)
    check_choice("stem", stem, ("normal", "fitted"), ValueError)
    inputs = keras.Input(input_shape, name="volume")
    full = convolved(inputs, 16, "full", norm=norm)
    filled = encoder_weights if weights is None else None
    options = {"norm": norm, "padding": encoder_padding, "epsilon": encoder_epsilon}
    flat = noisy_student_encoder("b0", (*input_shape[1:3], 3), filled, **options)
    encoder = convert(flat, "repeat", depth_pooling="match", global_pooling="volume", input_tensor=full)
    if filled is None:
        for layer in encoder.layers:
            if isinstance(layer, layers.Conv3D):
                layer.kernel.assign(layer.kernel_initializer(layer.kernel.shape))
    elif stem == "normal":
        kernel = encoder.get_layer("stem_conv").kernel
        kernel.assign(keras.initializers.RandomNormal(stddev=1.0)(kernel.shape))
    skips = [*(encoder.get_layer(skip).output for skip in SKIPS["b0"]), full]
    x = decoded(encoder.output, skips, _FILTERS, transposed=True, norm=norm)
    x = output_layer(outputs, 3, activation, padding="same")(x)
    return with_weights(keras.Model(inputs, x, name=name), weights)


DX_NET: Architecture = Architecture(
    DXNet,
    own_arguments,
    lambda arguments: _DIVISORS,
    groups_by_prefix({"decoder": ("full", "up", HEAD)}),
    HEAD,
    lambda arguments: noisy_student("b0"),
)
