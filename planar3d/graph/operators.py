"""Layers of volumes as ONNX operators on (batch, channels, depth, rows, cols), for runtimes other than Keras."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import numpy as np

from planar3d.errors import Planar3DError
from planar3d.graph.description import Layer
from planar3d.graph.reach import Range, extents_of, layer_padding, reads_beyond_slice, transposed_padding

# Keras' axes in the order of ONNX, and back.
CHANNELS_FIRST, CHANNELS_LAST = (0, 4, 1, 2, 3), (0, 2, 3, 4, 1)
KERNEL = (4, 3, 0, 1, 2)  # to (out, in, depth, rows, cols); in transposed convolutions, both have in and out exchanged


@dataclass(frozen=True)
class Tensor:
    """An input of a layer."""

    value: Any  # represents it in the written graph
    shape: tuple[int | None, ...]  # in Keras' order of axes
    # Zeros before and after it, where a stretch of slices needs a padding other than the layer's.
    depth_padding: Range | None = None
    # Its greatest value for convolutions in int8; None for convolutions in floating point.
    greatest: float | None = None


@dataclass(frozen=True)
class Use:
    """A layer being written."""

    graph: Any  # has `add(operator, name, inputs, **attributes)` and `constant(name, array)`, which name their results
    name: str  # of the layer in the graph
    layer: Layer  # its description
    tensors: Sequence[Tensor]  # its inputs

    @property
    def values(self) -> list[Any]:
        """The representations of its inputs."""
        return [tensor.value for tensor in self.tensors]

    @property
    def rank(self) -> int:
        """The number of axes of its first input."""
        return len(self.tensors[0].shape)

    def add(self, op: str, *inputs: Any, part: str = "", **attributes: Any) -> Any:
        """Append an operator, for a part of the layer if one is named."""
        return self.graph.add(op, f"{self.name}/{part}" if part else self.name, inputs, **attributes)

    def constant(self, part: str, value: Any) -> Any:
        """One of the layer's arrays as an operator input."""
        return self.graph.constant(f"{self.name}/{part}", np.asarray(value))

    def pads(self) -> list[int]:
        """The zeros that the layer's kernel or pool needs, before each axis and then after each."""
        (source,) = self.tensors
        along, *in_plane = layer_padding(self.name, self.layer, source.shape[1:-1])
        return _in_order([source.depth_padding or along, *in_plane])

    def unknown(self, setting: str, value: Any) -> Planar3DError:
        """The error for a setting without a counterpart."""
        return Planar3DError(f"Layer {self.name} has {setting}={value!r}, which cannot be written as ONNX.")


Writer = Callable[[Use], Any]


def convolution(use: Use) -> Any:
    """Conv3D."""
    use = _of_one_slice(use)
    return _weighed(use, "Conv", group=use.layer.groups, pads=use.pads())


def _of_one_slice(use: Use) -> Use:
    """A convolution that oneDNN gets wrong in bf16, with only the tap of its kernel that sees the slice."""
    layer, (source,) = use.layer, use.tensors
    before, *_ = pads = use.pads()
    tap, off = divmod(before, layer.dilation_rate[0])
    if off or before + pads[3] != extents_of(layer)[0] - 1 or not reads_beyond_slice(layer, source.shape):
        return use
    settings, kernel = {"kernel_size": (1, *layer.kernel_size[1:])}, {"kernel": array_of(layer.kernel)[tap : tap + 1]}
    thin = replace(layer, settings={**layer.settings, **settings}, arrays={**layer.arrays, **kernel})
    # Under another name, as the layer may have its whole kernel elsewhere.
    return replace(use, name=f"{use.name}/slice", layer=thin, tensors=[replace(source, depth_padding=(0, 0))])


def transposed_convolution(use: Use) -> Any:
    """Conv3DTranspose."""
    layer = use.layer
    if layer.output_padding is not None:
        raise use.unknown("output_padding", layer.output_padding)
    axes = zip(extents_of(layer), layer.strides, strict=True)
    cut, added = zip(*(transposed_padding(extent, stride, layer.padding) for extent, stride in axes), strict=True)
    return _weighed(use, "ConvTranspose", pads=_in_order(cut), output_padding=list(added))


def _weighed(use: Use, op: str, **attributes: Any) -> Any:
    """A convolution of either kind, with bias and activation."""
    layer, (source,) = use.layer, use.tensors
    kernel = np.transpose(array_of(layer.kernel), KERNEL)
    # OpenVINO gains nothing from transposed convolutions in int8.
    if source.greatest is None or op == "ConvTranspose":
        inputs = [source.value, use.constant("kernel", kernel)]
    else:
        inputs = _in_int8(use, source.value, source.greatest, kernel)
    if layer.use_bias:
        inputs.append(use.constant("bias", array_of(layer.bias)))
    attributes |= {"kernel_shape": [*layer.kernel_size], "strides": [*layer.strides]}
    return activated(use, use.add(op, *inputs, dilations=[*layer.dilation_rate], **attributes))


def _in_int8(use: Use, value: Any, greatest: float, kernel: np.ndarray) -> list[Any]:
    """An input without negative values, and a kernel with a scale per output channel, rounded to 8-bit integers."""
    scale, zero = use.constant("scale", np.float32(greatest / 255)), use.constant("zero", np.uint8(0))
    rounded = use.add("QuantizeLinear", value, scale, zero, part="rounded")
    scales = np.maximum(np.abs(kernel).max(axis=(1, 2, 3, 4)), np.finfo(np.float32).tiny) / 127
    integers = use.constant("kernel", np.rint(kernel / scales.reshape(-1, 1, 1, 1, 1)).astype(np.int8))
    weights = use.add("DequantizeLinear", integers, use.constant("scales", scales), part="weights", axis=0)
    return [use.add("DequantizeLinear", rounded, scale, zero, part="input"), weights]


def _in_order(pads: Sequence[Range]) -> list[int]:
    return [before for before, _ in pads] + [behind for _, behind in pads]


def pooling(op: str, **attributes: Any) -> Writer:
    """Maximum or average pooling."""

    def write(use: Use) -> Any:
        size, strides = [*use.layer.pool_size], [*use.layer.strides]
        return use.add(op, *use.values, kernel_shape=size, strides=strides, pads=use.pads(), **attributes)

    return write


def merge(op: str) -> Writer:
    """An operator with any number of inputs."""
    return lambda use: use.add(op, *use.values)


def product(use: Use) -> Any:
    """Multiply, two at a time."""
    return reduce(partial(use.add, "Mul"), use.values)


def difference(use: Use) -> Any:
    """Subtract."""
    first, second = use.values
    return use.add("Sub", first, second)


def scaled_sum(use: Use) -> Any:
    """CustomScaleLayer of Inception-ResNet: the first input plus the scaled second."""
    kept, scaled = use.values
    scale = use.constant("scale", np.float32(use.layer.scale))
    return use.add("Add", kept, use.add("Mul", scaled, scale, part="scaled"))


def rectifier(use: Use) -> Any:
    """ReLU, with an optional maximum."""
    layer = use.layer
    if layer.threshold or layer.negative_slope:
        raise use.unknown("threshold or negative_slope", (layer.threshold, layer.negative_slope))
    if layer.max_value is None:
        return use.add("Relu", *use.values)
    return _clipped(use, use.values[0], 0, layer.max_value)


def _clipped(use: Use, value: Any, least: float, greatest: float, part: str = "") -> Any:
    ends = [use.constant(name, np.float32(end)) for name, end in (("min", least), ("max_value", greatest))]
    return use.add("Clip", value, *ends, part=part)


def sloped(op: str, setting: str) -> Writer:
    """LeakyReLU and ELU, with their slope or limit for negative values."""
    return lambda use: use.add(op, *use.values, alpha=float(getattr(use.layer, setting)))


def activated(use: Use, value: Any, function: str = "") -> Any:
    """A value after the layer's activation, or after another function of keras.activations."""
    function = function or use.layer.activation
    if function == "linear":
        return value
    if function in _GATES:
        return use.add("Mul", value, reduce(partial(activated, use), _GATES[function], value), part=function)
    if function in _ENDS:
        return _clipped(use, value, *_ENDS[function], part=function)
    if function == "tanh_shrink":
        return use.add("Sub", value, activated(use, value, "tanh"), part=function)
    if function == "gelu":  # x (erf(x / √2) / 2 + 1/2)
        root, half = use.constant("root", np.float32(0.5**0.5)), use.constant("half", np.float32(0.5))
        error = use.add("Erf", use.add("Mul", value, root, part="scaled"), part="erf")
        share = use.add("Add", use.add("Mul", error, half, part="halved"), half, part="share")
        return use.add("Mul", value, share, part=function)
    if function not in _ACTIVATIONS:
        raise use.unknown("activation", function)
    op, attributes = _ACTIVATIONS[function]
    return use.add(op, value, part=function, **attributes)


def array_of(variable: Any) -> np.ndarray:
    """A variable's values in float32."""
    return np.asarray(np.asarray(variable), np.float32)


# Keras' defaults, where ONNX has others.
_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "celu": ("Celu", {"alpha": 1.0}),
    "elu": ("Elu", {"alpha": 1.0}),
    "exponential": ("Exp", {}),
    "hard_shrink": ("Shrink", {"lambd": 0.5}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.2}),
    "log_softmax": ("LogSoftmax", {"axis": 1}),
    "soft_shrink": ("Shrink", {"lambd": 0.5, "bias": 0.5}),
    "softmax": ("Softmax", {"axis": 1}),
    "sparse_sigmoid": ("HardSigmoid", {"alpha": 0.5, "beta": 0.5}),
    **{op.lower(): (op, {}) for op in ("Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh")},
}
_ENDS = {"hard_tanh": (-1, 1), "relu6": (0, 6)}
# Functions by which they multiply a value.
_GATES = {"hard_silu": ["hard_sigmoid"], "mish": ["softplus", "tanh"], "silu": ["sigmoid"]}
