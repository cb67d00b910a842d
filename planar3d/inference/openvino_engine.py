"""The pieces of a plan as OpenVINO models, in float32 or bf16, on features in channels-last memory."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from planar3d.errors import Planar3DError
from planar3d.graph.depth_graph import Node, Range
from planar3d.inference.openvino_layers import activated, emitter, unknown_of
from planar3d.inference.plan import Piece, Plan, Shape

# Keras stores (batch, depth, rows, cols, channels); OpenVINO's operators take (batch, channels, depth, rows, cols).
_CHANNELS_FIRST, _CHANNELS_LAST = [0, 4, 1, 2, 3], [0, 2, 3, 4, 1]


class OpenVINOEngine:
    """Computes pieces with OpenVINO on the CPU.

    Args:
        precision: `"float32"`, or `"bf16"`, in which features are kept as well.
    """

    def __init__(self, precision: str = "float32") -> None:
        self.bf16 = precision == "bf16"
        # NumPy has no bfloat16; the two bytes are only moved.
        self.dtype = np.dtype("uint16" if self.bf16 else "float32")
        self._core = ov.Core()

    def check(self, plan: Plan) -> None:
        """Raise a `Planar3DError` that names the first layer of a plan that is unknown here."""
        for piece in (plan.shared, *plan.windows.values()):
            for node in piece.nodes:
                if unknown := unknown_of(node.layer):
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
        return _Tensor(taken[0].shape, flat=activated(node.layer, total))
    emit = emitter(node.layer)
    assert emit is not None  # `check` was called
    y = _Tensor.of(emit(node, [x.first for x in taken], padding))
    first = needs[0] * node.reach.up if node.reach.up > 1 else wanted[0]
    return y.cut((first, first + y.shape[0]), wanted)


def _take(node: Node, wanted: Range | None, tensors: dict[tuple[Node, Range], _Tensor], piece: Piece) -> _Tensor:
    have = piece.holding(node, wanted)
    return tensors[node, have].cut(have, wanted or have)
