"""What the package knows of each kind of layer, in one table; whoever adds a kind adds a line here.

Of layers without a kernel the planar rule follows from the reach: those that treat every value alike, or act along an
axis, do in 3D what they do in 2D (`conversion/layer_rules.py` has the others).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from keras import layers

from planar3d.errors import Planar3DError
from planar3d.graph import operators, reach
from planar3d.graph.keras_graph import CustomScaleLayer, LayerScale, StochasticDepth
from planar3d.graph.operators import Use, Writer
from planar3d.graph.reach import Reach

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class LayerKind:
    """What is known of a kind of layer.

    Attributes:
        reach: along depth, of a layer and the slices of its input.
        write: writes its use in a network of volumes in operators; None where these are not known.
        macs: multiply-accumulates of a layer with these shapes of its input and output; None without a kernel.
    """

    reach: Callable[[Any, int], Reach] = reach.not_known
    write: Writer | None = None
    macs: Callable[[Any, Shape, Shape], int] | None = None


def kind_of(layer: Any) -> LayerKind:
    """What is known of a layer; nothing of a subclass that computes in its own way."""
    known: Any = next((kind for kind in type(layer).__mro__ if kind in KINDS), None)
    return KINDS[known] if known is not None and type(layer).call is known.call else LayerKind()


def reach_of(layer: Any, length: int) -> Reach:
    """A layer's reach along depth, for inputs of `length` slices; `whole` where it is not known."""
    return (reach.not_known if _has_channels_first(layer) else kind_of(layer).reach)(layer, length)


def written(use: Use, part: Any = None) -> Any:
    """Write a layer in operators of ONNX, and return what stands for its output.

    Args:
        use: of the layer.
        part: has the layer's attributes where only a part of it is done.

    Raises:
        Planar3DError: a layer, or a setting of one, that has no counterpart.
    """
    name, layer = use.name, use.layer
    write = kind_of(layer).write
    if write is None:
        known = ", ".join(sorted(kind.__name__ for kind, known in KINDS.items() if known.write))
        raise Planar3DError(
            f"Layer {name} is of the type {type(layer).__name__}, which cannot be written as ONNX; known are: {known}."
        )
    if _has_channels_first(layer):
        raise use.unknown("data_format", layer.data_format)
    return write(use if part is None else replace(use, layer=part))


def _has_channels_first(layer: Any) -> bool:
    return getattr(layer, "data_format", "channels_last") != "channels_last"


def _of_convolution(layer: Any, _: Shape, output: Shape) -> int:
    return math.prod(layer.kernel.shape) * _positions(layer, output)


def _of_transposed(layer: Any, source: Shape, _: Shape) -> int:
    return math.prod(layer.kernel.shape) * _positions(layer, source)


def _of_separable(layer: Any, _: Shape, output: Shape) -> int:
    kernels = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    return kernels * _positions(layer, output)


def _of_dense(layer: Any, source: Shape, _: Shape) -> int:
    return layer.units * math.prod(source)  # type: ignore[arg-type]


def _positions(layer: Any, shape: Shape) -> int:
    """Places of feature maps, all axes but the channels'; a batch of one has more where slices were folded into it."""
    first = 2 if _has_channels_first(layer) else 1
    return math.prod((shape[0], *shape[first : first + layer.rank]))  # type: ignore[arg-type]


# A planar convolution costs what its kind in 3D does; how it becomes one is told in `conversion/convolutions.py`.
_CONVOLUTION, _TRANSPOSED, _SEPARABLE = (LayerKind(macs=f) for f in (_of_convolution, _of_transposed, _of_separable))
_IN_TRAINING_ALONE = LayerKind(reach.within_slices, operators.nothing)
_EACH_VALUE = LayerKind(reach.within_slices)
_ALONG_AXES = LayerKind(reach.along_axes)

KINDS: dict[type, LayerKind] = {
    layers.Activation: LayerKind(reach.within_slices, operators.activation),
    layers.Add: LayerKind(reach.within_slices, operators.merge("Sum")),
    layers.AlphaDropout: _IN_TRAINING_ALONE,
    layers.Average: LayerKind(reach.within_slices, operators.merge("Mean")),
    layers.AveragePooling3D: LayerKind(reach.of_pooling, operators.pooling("AveragePool", count_include_pad=0)),
    layers.BatchNormalization: LayerKind(reach.along_axes, operators.normalization),
    layers.Concatenate: LayerKind(reach.along_axes, operators.concatenation),
    layers.Conv1D: _CONVOLUTION,
    layers.Conv1DTranspose: _TRANSPOSED,
    layers.Conv2D: _CONVOLUTION,
    layers.Conv2DTranspose: _TRANSPOSED,
    layers.Conv3D: LayerKind(reach.of_convolution, operators.convolution, _of_convolution),
    layers.Conv3DTranspose: LayerKind(reach.of_transposed, operators.transposed_convolution, _of_transposed),
    layers.Dense: LayerKind(macs=_of_dense),
    layers.DepthwiseConv1D: _CONVOLUTION,
    layers.DepthwiseConv2D: _CONVOLUTION,
    layers.Dropout: _IN_TRAINING_ALONE,
    layers.ELU: _EACH_VALUE,
    layers.GaussianDropout: _IN_TRAINING_ALONE,
    layers.GaussianNoise: _IN_TRAINING_ALONE,
    layers.Identity: _IN_TRAINING_ALONE,
    layers.LayerNormalization: _ALONG_AXES,
    layers.LeakyReLU: LayerKind(reach.within_slices, operators.leaky_rectifier),
    layers.Maximum: LayerKind(reach.within_slices, operators.merge("Max")),
    layers.MaxPooling3D: LayerKind(reach.of_pooling, operators.pooling("MaxPool")),
    layers.Minimum: LayerKind(reach.within_slices, operators.merge("Min")),
    layers.Multiply: LayerKind(reach.within_slices, operators.product),
    layers.Normalization: _ALONG_AXES,
    layers.ReLU: LayerKind(reach.within_slices, operators.rectifier),
    layers.Rescaling: LayerKind(reach.within_slices, operators.rescaling),
    layers.SeparableConv1D: _SEPARABLE,
    layers.SeparableConv2D: _SEPARABLE,
    layers.Softmax: _ALONG_AXES,
    layers.SpatialDropout3D: _IN_TRAINING_ALONE,
    layers.Subtract: LayerKind(reach.within_slices, operators.merge("Sub")),
    layers.UpSampling3D: LayerKind(reach.of_repetition, operators.upsampling),
    layers.ZeroPadding3D: LayerKind(write=operators.zero_padding),
    CustomScaleLayer: _EACH_VALUE,
    LayerScale: _EACH_VALUE,
    StochasticDepth: _IN_TRAINING_ALONE,
}
