"""The pieces of a plan as OpenVINO models, in float32 or bf16, on features in channels-last memory."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from planar3d.errors import Planar3DError
from planar3d.inference.depth_graph import Node
from planar3d.inference.plan import Piece, Plan, Range

Shape = tuple[int, int, int, int]

try:
    import openvino as ov
    from openvino import opset1
    from openvino import opset13 as op
except ImportError:  # an extra
    ov = op = opset1 = None

# Keras stores (batch, depth, rows, cols, channels); OpenVINO's operators take (batch, channels, depth, rows, cols).
_CHANNELS_FIRST, _CHANNELS_LAST = [0, 4, 1, 2, 3], [0, 2, 3, 4, 1]
_DEPTH = 2


class OpenVINOEngine:
    """Computes pieces with OpenVINO on the CPU.

    Args:
        precision: `"float32"`, or `"bf16"`, in which features are kept as well.

    Raises:
        Planar3DError: OpenVINO is not installed.
    """

    def __init__(self, precision: str = "float32") -> None:
        if ov is None:
            raise Planar3DError("engine='openvino' needs OpenVINO. Install it: pip install 'planar3d[openvino]'.")
        self.bf16 = precision == "bf16"
        # NumPy has no bfloat16; the two bytes are only moved.
        self.dtype = np.dtype("uint16" if self.bf16 else "float32")
        self._core = ov.Core()

    def check(self, plan: Plan) -> None:
        """Raise a `Planar3DError` that names the first layer of a plan that is unknown here."""
        for piece in (plan.shared, *plan.windows.values()):
            for node in piece.nodes:
                unknown = _unknown(node.layer)
                if unknown:
                    raise Planar3DError(
                        f"Layer {node.name}: {unknown} is unknown to the OpenVINO engine; use engine='keras'."
                    )

    def program(self, piece: Piece, shapes: Sequence[Shape]) -> "OpenVINOProgram":
        """Compile what computes a piece from inputs of these shapes."""
        return OpenVINOProgram(self._core, piece, shapes, self.bf16)


def multiplies_bf16() -> bool:
    """Whether this processor multiplies in bf16, and bf16 is thus faster than float32."""
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVINOProgram:
    """A piece as a compiled OpenVINO model.

    Attributes:
        output_shapes: (entries, rows, cols, channels) of each output.
    """

    def __init__(self, core: Any, piece: Piece, shapes: Sequence[Shape], bf16: bool) -> None:
        self.kept = ov.Type.bf16 if bf16 else ov.Type.f32
        given = [
            op.parameter(shape, ov.Type.f32 if node.layer is None else self.kept)
            for (node, _), shape in zip(piece.inputs, shapes, strict=True)
        ]
        tensors = {
            key: _Tensor(shape, flat=op.reshape(op.convert(x, "f32"), [shape[0], -1], False))
            for key, x, shape in zip(piece.inputs, given, shapes, strict=True)
        }
        for node, wanted in piece.nodes.items():
            tensors[node, wanted] = _apply(node, wanted, tensors, piece)
        kept = self.kept if piece.features else ov.Type.f32
        outputs = [_take(node, None, tensors, piece) for node in piece.outputs]
        results = [op.convert(op.reshape(x.flat, x.shape, False), kept) for x in outputs]
        precision = {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32", "PERFORMANCE_HINT": "LATENCY"}
        self._request = core.compile_model(ov.Model(results, given), "CPU", precision).create_infer_request()
        self.output_shapes: list[Shape] = [tuple(y.get_output_shape(0)) for y in results]

    def __call__(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Compute stretches (entries, rows, cols, channels) from stretches, into the places given."""
        # Tensors are views and keep nothing alive, so what had to be copied is held here until all is computed.
        held = [np.ascontiguousarray(stretch) for stretch in inputs]
        for number, stretch in enumerate(held):
            self._request.set_input_tensor(number, self._view(stretch))
        for number, place in enumerate(outputs):
            self._request.set_output_tensor(number, self._view(place))
        self._request.infer()

    def _view(self, array: np.ndarray) -> Any:
        return ov.Tensor(array, array.shape, self.kept if array.dtype == np.uint16 else ov.Type.f32)


class _Tensor:
    """Some entries of a node, in the two forms that cost nothing to go between.

    Convolutions leave channels last in memory, whatever the order of their axes. Sums of such results are moved about
    unless they see two axes only.

    Attributes:
        shape: (entries, rows, cols, channels).
        first: (1, channels, entries, rows, cols), for convolutions.
        flat: (entries, rows · cols · channels), for sums and stretches.
    """

    def __init__(self, shape: Shape, first: Any = None, flat: Any = None) -> None:
        self.shape, self._first, self._flat = shape, first, flat

    @classmethod
    def of(cls, first: Any) -> "_Tensor":
        """What an operator gave."""
        _, channels, *sizes = first.get_output_shape(0)
        return cls((*sizes, channels), first=first)

    @property
    def first(self) -> Any:
        if self._first is None:
            self._first = op.transpose(op.reshape(self._flat, [1, *self.shape], False), _CHANNELS_FIRST)
        return self._first

    @property
    def flat(self) -> Any:
        if self._flat is None:
            self._flat = op.reshape(op.transpose(self._first, _CHANNELS_LAST), [self.shape[0], -1], False)
        return self._flat

    def cut(self, have: Range, want: Range) -> "_Tensor":
        """Entries `want` of entries `have`."""
        if have == want:
            return self
        cut = op.slice(self.flat, [want[0] - have[0]], [want[1] - have[0]], [1], [0])
        return _Tensor((want[1] - want[0], *self.shape[1:]), flat=cut)

    def padded(self, padding: Range) -> "_Tensor":
        """With entries of zeros before and behind."""
        if not any(padding):
            return self
        zero = op.constant(np.float32(0))
        flat = op.pad(self.flat, [padding[0], 0], [padding[1], 0], "constant", zero)
        return _Tensor((self.shape[0] + sum(padding), *self.shape[1:]), flat=flat)


def _apply(node: Node, wanted: Range, tensors: dict[tuple[Node, Range], _Tensor], piece: Piece) -> _Tensor:
    length = node.inputs[0].length
    needs = node.reach.needs(*wanted, length)
    taken = [_take(source, needs, tensors, piece) for source in node.inputs]
    padding = (0, 0) if node.reach.up > 1 else node.reach.padding(*wanted, length)
    if node.role == "shift":
        return taken[0].padded(padding)
    if node.role == "sum":
        total = functools.reduce(op.add, [x.flat for x in taken])
        return _Tensor(taken[0].shape, flat=_activated(node.layer, total))
    emit = _emitter(node.layer)
    assert emit is not None  # `check` was called
    y = _Tensor.of(emit(node, [x.first for x in taken], padding))
    first = needs[0] * node.reach.up if node.reach.up > 1 else wanted[0]
    return y.cut((first, first + y.shape[0]), wanted)


def _take(node: Node, wanted: Range | None, tensors: dict[tuple[Node, Range], _Tensor], piece: Piece) -> _Tensor:
    """Entries of a node that was computed, or was given in just this stretch."""
    have = piece.nodes.get(node)
    if have is None:
        return next(tensors[key] for key in piece.inputs if key[0] is node and wanted in (None, key[1]))
    return tensors[node, have].cut(have, wanted or have)


def _convolution(node: Node, taken: list[Any], padding: Range) -> Any:
    layer: Any = node.layer
    kernel = _kernel(node, channels_axis=3)
    sizes = taken[0].get_output_shape(0)[3:]
    pads = [padding, *_in_plane(sizes, layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate)]
    before, after = [p[0] for p in pads], [p[1] for p in pads]
    kernel = kernel.transpose(4, 3, 0, 1, 2)
    if layer.groups > 1:
        kernel = kernel.reshape(layer.groups, -1, *kernel.shape[1:])
        convolve = op.group_convolution
    else:
        convolve = op.convolution
    y = convolve(taken[0], op.constant(kernel.copy()), list(layer.strides), before, after, list(layer.dilation_rate))
    return _finished(node, y)


def _transposed(node: Node, taken: list[Any], padding: Range) -> Any:
    layer: Any = node.layer
    kernel = op.constant(_kernel(node, channels_axis=4).transpose(4, 3, 0, 1, 2).copy())
    overlap = [
        max(k - s, 0) if layer.padding == "same" else 0 for k, s in zip(layer.kernel_size, layer.strides, strict=True)
    ]
    gap = [max(s - k, 0) for k, s in zip(layer.kernel_size, layer.strides, strict=True)]
    y = op.convolution_backprop_data(
        taken[0],
        kernel,
        list(layer.strides),
        pads_begin=[n // 2 for n in overlap],
        pads_end=[n - n // 2 for n in overlap],
        dilations=list(layer.dilation_rate),
        output_padding=gap,
    )
    return _finished(node, y)


def _kernel(node: Node, channels_axis: int) -> np.ndarray:
    """The kernel as Keras stores it, or the channels and the tap of it that the node is."""
    kernel = keras.ops.convert_to_numpy(node.layer.kernel).astype(np.float32)  # type: ignore[union-attr]
    if node.channels is not None:
        kernel = kernel.take(range(*node.channels), axis=channels_axis)
    return kernel if node.tap is None else kernel[node.tap : node.tap + 1]


def _finished(node: Node, y: Any) -> Any:
    layer: Any = node.layer
    if node.role == "part":
        # One part carries the bias, where it costs nothing; the activation waits for the sum.
        return op.add(y, _per_channel(layer.bias)) if node.biased else y
    if layer.use_bias:
        y = op.add(y, _per_channel(layer.bias))
    return _activated(layer, y)


def _per_channel(values: Any) -> Any:
    return op.constant(keras.ops.convert_to_numpy(values).astype(np.float32).reshape(1, -1, 1, 1, 1))


def _activated(layer: Any, y: Any) -> Any:
    return _ACTIVATIONS[_activation(layer)](y)


# Elementwise all of them, so that they act on any form of a tensor.
_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "linear": lambda y: y,
    "relu": lambda y: op.relu(y),
    "sigmoid": lambda y: op.sigmoid(y),
    "tanh": lambda y: op.tanh(y),
    "silu": lambda y: op.swish(y),
    "softplus": lambda y: op.softplus(y),
}


def _in_plane(sizes: Any, kernel: Any, strides: Any, padding: str, dilation: Any = (1, 1, 1)) -> list[Range]:
    """Padding of rows and columns, as Keras has it: what is odd comes behind."""
    if padding == "valid":
        return [(0, 0), (0, 0)]
    totals = [
        max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        for n, k, s, d in zip(sizes, kernel[1:], strides[1:], dilation[1:], strict=True)
    ]
    return [(total // 2, total - total // 2) for total in totals]


def _pooling(node: Node, taken: list[Any], padding: Range) -> Any:
    layer: Any = node.layer
    pads = [padding, *_in_plane(taken[0].get_output_shape(0)[3:], layer.pool_size, layer.strides, layer.padding)]
    before, after = [p[0] for p in pads], [p[1] for p in pads]
    if isinstance(layer, layers.AveragePooling3D):
        return op.avg_pool(taken[0], list(layer.strides), before, after, list(layer.pool_size), exclude_pad=True)
    return opset1.max_pool(taken[0], list(layer.strides), before, after, list(layer.pool_size))


def _repeated(node: Node, taken: list[Any], padding: Range) -> Any:
    scales = np.array(node.layer.size, np.float32)  # type: ignore[union-attr]
    return op.interpolate(
        taken[0], op.constant(scales), "nearest", "scales", axes=op.constant(np.array([2, 3, 4])),
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip


def _normalized(node: Node, taken: list[Any], padding: Range) -> Any:
    layer: Any = node.layer
    mean, variance = (keras.ops.convert_to_numpy(v) for v in (layer.moving_mean, layer.moving_variance))
    scale = 1 / np.sqrt(variance + layer.epsilon)
    scale = scale * keras.ops.convert_to_numpy(layer.gamma) if layer.scale else scale
    shift = -mean * scale + (keras.ops.convert_to_numpy(layer.beta) if layer.center else 0)
    return op.add(op.multiply(taken[0], _per_channel(scale)), _per_channel(shift))


def _joined(combine: Callable[[Any, Any], Any]) -> Callable[[Node, list[Any], Range], Any]:
    return lambda node, taken, padding: functools.reduce(combine, taken)


_EMITTERS: dict[Any, Callable[[Node, list[Any], Range], Any]] = {
    layers.Conv3DTranspose: _transposed,
    layers.Conv3D: _convolution,
    (layers.MaxPooling3D, layers.AveragePooling3D): _pooling,
    layers.UpSampling3D: _repeated,
    layers.BatchNormalization: _normalized,
    layers.Concatenate: lambda node, taken, padding: op.concat(taken, 1),
    layers.Add: _joined(lambda a, b: op.add(a, b)),
    layers.Multiply: _joined(lambda a, b: op.multiply(a, b)),
    layers.Maximum: _joined(lambda a, b: op.maximum(a, b)),
    layers.Minimum: _joined(lambda a, b: op.minimum(a, b)),
    layers.Subtract: _joined(lambda a, b: op.subtract(a, b)),
    layers.Activation: lambda node, taken, padding: _activated(node.layer, taken[0]),
    layers.ReLU: lambda node, taken, padding: op.relu(taken[0]),
    (layers.Dropout, layers.Identity, layers.SpatialDropout3D): lambda node, taken, padding: taken[0],
}


def _emitter(layer: Any) -> Callable[[Node, list[Any], Range], Any] | None:
    return next((emit for kinds, emit in _EMITTERS.items() if isinstance(layer, kinds)), None)


def _unknown(layer: Any) -> str:
    """What of a layer has no counterpart here; nothing if all has."""
    if _emitter(layer) is None:
        return type(layer).__name__
    if isinstance(layer, layers.ReLU):
        plain = layer.max_value is None and not layer.threshold and not layer.negative_slope
        return "" if plain else "a ReLU with a maximum, threshold or slope"
    activation = _activation(layer)
    return "" if activation in _ACTIVATIONS else f"activation {activation!r}"


def _activation(layer: Any) -> Any:
    function = getattr(layer, "activation", None)
    return "linear" if function is None else keras.activations.serialize(function)
