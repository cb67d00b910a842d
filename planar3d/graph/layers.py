"""The table of layer kinds and their properties; a new kind is a line here.

For layers without a kernel, the planar rule follows from the reach: elementwise layers and layers along an axis do the
same in 3D as in 2D (`conversion/layer_rules.py` has the others).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from planar3d.errors import Planar3DError
from planar3d.graph import axis_operators, operators, reach, shapes
from planar3d.graph.description import Description, Layer, Shape
from planar3d.graph.operators import Tensor, Use, Writer
from planar3d.graph.reach import Reach


@dataclass(frozen=True)
class LayerKind:
    """The properties of a kind of layer."""

    reach: Callable[[Layer, int], Reach] = reach.not_known  # along depth, from a layer and the slices of its input
    write: Writer | None = None  # writes it as operators on volumes; None if unknown
    # Multiply-accumulates of a layer from the shapes of its input and output; None without a kernel.
    macs: Callable[[Layer, Shape, Shape], int] | None = None
    settings: tuple[str, ...] = ()  # the attributes in Keras needed for this
    # Shape of its output, from a layer and the shapes of its inputs; for kinds that can be written.
    shape: Callable[..., Shape] = lambda layer, taken: taken
    # Shapes of its arrays by name, from a layer and the shape of its input; for such kinds.
    arrays: Callable[..., dict[str, Shape]] = lambda layer, *taken: {}


def kind_of(layer: Layer) -> LayerKind:
    """The properties of a layer; defaults for a kind not in the table."""
    return KINDS.get(layer.kind, _UNKNOWN)


def reach_of(layer: Layer, length: int) -> Reach:
    """A layer's reach along depth, for inputs of `length` slices; `whole` if unknown."""
    return (reach.not_known if _has_channels_first(layer) else kind_of(layer).reach)(layer, length)


def shape_of(layer: Layer, *taken: Shape) -> Shape:
    """The output shape of a layer that can be written, for these input shapes."""
    return kind_of(layer).shape(layer, *taken)


def resized(network: Description, window: Shape) -> Description:
    """A network of layers that can be written, for (depth, rows, cols, channels) with other rows and cols."""
    first, *given = network.follow([(None, *window)], lambda layer, taken: shape_of(layer, *taken))
    layers = tuple(replace(layer, shape=shape) for layer, shape in zip(network.layers, given, strict=True))
    return replace(network, inputs=(first,), layers=layers)


def written(use: Use) -> Any:
    """Write a layer as ONNX operators, and return its output; a `Planar3DError` if it has no counterpart."""
    name, layer = use.name, use.layer
    write = kind_of(layer).write
    if write is None:
        known = ", ".join(sorted(kind for kind, known in KINDS.items() if known.write))
        raise Planar3DError(
            f"Layer {name} is of type {layer.kind}, which cannot be written as ONNX; supported are: {known}."
        )
    if _has_channels_first(layer):
        raise use.unknown("data_format", layer.data_format)
    if len({len(tensor.shape) for tensor in use.tensors}) > 1:  # where Keras inserts axes after the batch
        raise use.unknown("inputs", [tensor.shape for tensor in use.tensors])
    return write(use)


def check_written(layer: Layer, taken: Sequence[Shape]) -> None:
    """Raise the error of `written`, for inputs of these shapes, of any unknown sizes, without writing anything."""
    nothing = SimpleNamespace(add=lambda *_, **__: None, constant=lambda *_: None)
    written(Use(nothing, layer.name, layer, [Tensor(None, tuple(n or 1 for n in shape)) for shape in taken]))


def _has_channels_first(layer: Layer) -> bool:
    return layer.settings.get("data_format", "channels_last") != "channels_last"


def macs_at_outputs(layer: Layer, _: Shape, output: Shape) -> int:
    """The kernels' elements times the positions of the output."""
    return _macs_at(layer, output)


def _macs_at_inputs(layer: Layer, source: Shape, _: Shape) -> int:
    return _macs_at(layer, source)


def _macs_at(layer: Layer, shape: Shape) -> int:
    """Positions are all axes except channels; the batch axis counts if slices were folded into it."""
    elements = sum(math.prod(array.shape) for name, array in layer.arrays.items() if name.endswith("kernel"))
    positions = list(shape)
    positions.pop(1 if _has_channels_first(layer) else -1)
    return elements * math.prod(positions)  # type: ignore[arg-type]


_SLIDING = ("kernel_size", "strides", "padding", "dilation_rate", "use_bias", "activation", "data_format", "rank")
_NORMALIZING = ("axis", "epsilon", "scale", "center")
_POOLING = ("pool_size", "strides", "padding", "data_format")


def _merging(write: Writer) -> LayerKind:
    return LayerKind(reach.within_slices, write, shape=shapes.broadcast)


def _reducing(op: str, *settings: str) -> LayerKind:
    return LayerKind(write=axis_operators.reduction(op), settings=("keepdims", *settings), shape=shapes.reduced)


_RANDOM = ("AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "SpatialDropout3D", "StochasticDepth")
_CONVOLVING = ("Conv1D", "Conv2D", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D")
_UNKNOWN = LayerKind()

KINDS: dict[str, LayerKind] = {
    **dict.fromkeys(
        (*_RANDOM, "ActivityRegularization", "Identity"), LayerKind(reach.within_slices, lambda use: use.values[0])
    ),
    # The cost of a planar convolution, as of its kind in 3D; see conversion/convolutions.py.
    **dict.fromkeys(_CONVOLVING, LayerKind(macs=macs_at_outputs, settings=("data_format",))),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose"), LayerKind(macs=_macs_at_inputs, settings=("data_format",))),
    "Activation": LayerKind(
        reach.within_slices, lambda use: operators.activated(use, *use.values), settings=("activation",)
    ),
    "Add": _merging(operators.merge("Sum")),
    "Average": _merging(operators.merge("Mean")),
    "AveragePooling3D": LayerKind(
        reach.of_pooling, operators.pooling("AveragePool", count_include_pad=0), None, _POOLING, shapes.of_pooling
    ),
    "BatchNormalization": LayerKind(
        reach.along_axes, axis_operators.normalization, None, _NORMALIZING, arrays=shapes.of_statistics
    ),
    "Concatenate": LayerKind(reach.along_axes, axis_operators.concatenation, None, ("axis",), shapes.joined),
    "Conv3D": LayerKind(
        reach.of_convolution,
        operators.convolution,
        macs_at_outputs,
        (*_SLIDING, "groups", "filters"),
        shapes.of_convolution,
        shapes.of_kernel,
    ),
    "Conv3DTranspose": LayerKind(
        reach.of_transposed,
        operators.transposed_convolution,
        _macs_at_inputs,
        (*_SLIDING, "output_padding", "filters"),
        shapes.of_transposed,
        shapes.of_transposed_kernel,
    ),
    "Cropping3D": LayerKind(write=axis_operators.cropping, settings=("cropping", "data_format"), shape=shapes.cropped),
    "CustomScaleLayer": replace(_merging(operators.scaled_sum), settings=("scale",)),
    "Dense": LayerKind(
        reach.within_slices,
        axis_operators.dense,
        macs_at_outputs,
        ("units", "use_bias", "activation"),
        shapes.of_units,
        shapes.of_dense,
    ),
    "ELU": LayerKind(reach.within_slices, operators.sloped("Elu", "alpha"), settings=("alpha",)),
    "GlobalAveragePooling3D": _reducing("ReduceMean", "data_format"),
    "GlobalMaxPooling3D": _reducing("ReduceMax", "data_format"),
    "GroupNormalization": LayerKind(
        write=axis_operators.group_normalization, settings=("groups", *_NORMALIZING), arrays=shapes.of_groups
    ),
    "LayerNormalization": LayerKind(
        reach.along_axes,
        axis_operators.layer_normalization,
        settings=(*_NORMALIZING, "rms_scaling"),
        arrays=shapes.affine,
    ),
    "LayerScale": LayerKind(reach.within_slices, axis_operators.layer_scale, arrays=shapes.of_layer_scale),
    "LeakyReLU": LayerKind(
        reach.within_slices, operators.sloped("LeakyRelu", "negative_slope"), settings=("negative_slope",)
    ),
    "MaxPooling3D": LayerKind(reach.of_pooling, operators.pooling("MaxPool"), None, _POOLING, shapes.of_pooling),
    "Maximum": _merging(operators.merge("Max")),
    "Minimum": _merging(operators.merge("Min")),
    "Multiply": _merging(operators.product),
    "Normalization": LayerKind(
        reach.along_axes,
        axis_operators.standardization,
        settings=("axis", "invert", "input_mean", "input_variance"),
        arrays=shapes.of_data,
    ),
    "PReLU": LayerKind(reach.of_slopes, axis_operators.slopes, settings=("shared_axes",), arrays=shapes.of_slopes),
    "Permute": LayerKind(write=axis_operators.permutation, settings=("dims",), shape=shapes.permuted),
    "ReLU": LayerKind(reach.within_slices, operators.rectifier, settings=("max_value", "negative_slope", "threshold")),
    "Rescaling": LayerKind(reach.of_rescaling, axis_operators.rescaling, settings=("scale", "offset")),
    "Reshape": LayerKind(write=axis_operators.reshape, settings=("target_shape",), shape=shapes.reshaped),
    "Softmax": LayerKind(reach.along_axes, axis_operators.softmax, settings=("axis",)),
    "Subtract": _merging(operators.difference),
    "UpSampling3D": LayerKind(
        reach.of_repetition, axis_operators.upsampling, None, ("size", "data_format"), shapes.repeated
    ),
    "ZeroPadding3D": LayerKind(
        write=axis_operators.zero_padding, settings=("padding", "data_format"), shape=shapes.padded
    ),
    "ops.Max": _reducing("ReduceMax", "axis"),
    "ops.Mean": _reducing("ReduceMean", "axis"),
}
# `x + y` of two tensors, and the like
KINDS |= {f"ops.{kind}": KINDS[kind] for kind in ("Add", "Maximum", "Minimum", "Multiply", "Subtract")}
