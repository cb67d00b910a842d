"""The pieces of a plan as OpenVINO models, in float32 or bf16, on features in channels-last memory."""

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import openvino as ov

from planar3d.environment import bf16_instructions
from planar3d.errors import Planar3DError
from planar3d.graph.depth_graph import Node
from planar3d.graph.description import Layer, greatest_of
from planar3d.graph.layers import check_written, shape_of, written
from planar3d.graph.operators import CHANNELS_FIRST, CHANNELS_LAST, KERNEL, Tensor, Use, activated
from planar3d.graph.reach import Range
from planar3d.inference.onnx_graph import End, OnnxGraph
from planar3d.inference.plan import Piece, Plan, StretchShape

UNSUPPORTED = "The OpenVINO engine does not support it; use engine='keras'."


class OpenVINOEngine:
    """Computes pieces with OpenVINO on the CPU.

    Args:
        precision: `"float32"`, or `"bf16"`, which is also used for stored features.
    """

    def __init__(self, precision: str = "float32") -> None:
        self.bf16 = precision == "bf16"
        # NumPy has no bfloat16; the two bytes are only copied.
        self.dtype = np.dtype("uint16" if self.bf16 else "float32")
        self.core = ov.Core()
        self._layers: dict[Node, Layer] = {}

    def check(self, plan: Plan) -> None:
        """Raise a `Planar3DError` that names the first unsupported layer of a plan."""
        nodes = [node for piece in (plan.shared, *plan.windows.values()) for node in piece.nodes]
        for node, layer in ((node, node.layer) for node in nodes if node.role in ("layer", "part") and node.layer):
            try:
                check_written(layer, [(1, *source.shape) for source in node.inputs])
            except Planar3DError as error:
                raise Planar3DError(f"{error} {UNSUPPORTED}") from error

    def program(self, piece: Piece, shapes: Sequence[StretchShape]) -> "OpenVINOProgram":
        return OpenVINOProgram(self, piece, shapes)

    def layer_of(self, node: Node) -> Layer:
        """The layer that a node represents, or its part; kernels are in OpenVINO's order, once for all programs."""
        if node not in self._layers:
            layer: Any = node.layer
            if layer.kind in ("Conv3D", "Conv3DTranspose"):
                settings, kernel = layer.settings, layer.kernel
                if node.role == "part":
                    # One part adds the bias, without cost; the activation follows the sum.
                    kernel, others = node.kernel, {"use_bias": node.biased, "activation": "linear"}
                    settings = settings | others | {"kernel_size": kernel.shape[:3]}
                ordered = np.array(np.transpose(np.asarray(kernel), KERNEL), order="C").transpose(np.argsort(KERNEL))
                layer = replace(layer, settings=settings, arrays=layer.arrays | {"kernel": ordered})
            self._layers[node] = layer
        return self._layers[node]


def multiplies_bf16() -> bool:
    """Whether this processor multiplies in bf16, so that bf16 is faster than float32."""
    allowed = sys.platform != "linux" or bf16_instructions() != "none"
    return allowed and "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVINOProgram:
    """A piece as a compiled OpenVINO model, built from ONNX operators.

    Attributes:
        output_shapes: (entries, rows, cols, channels) of each output.
    """

    def __init__(self, engine: OpenVINOEngine, piece: Piece, shapes: Sequence[StretchShape]) -> None:
        from onnx import TensorProto

        self.kept = ov.Type.bf16 if engine.bf16 else ov.Type.f32
        float32, kept = TensorProto.FLOAT, TensorProto.BFLOAT16 if engine.bf16 else TensorProto.FLOAT
        graph, tensors, given, wanted = OnnxGraph(), dict[tuple[Node, Range], _Tensor](), list[End](), list[End]()
        for number, (key, shape) in enumerate(zip(piece.inputs, shapes, strict=True)):
            given.append((f"given_{number}", float32 if key[0].layer is None else kept, shape))
            wide = graph.add("Cast", "wide", [given[-1][0]], to=float32)
            tensors[key] = _Tensor(graph, shape, flat=_reshaped(graph, wide, [shape[0], -1]))
        for number, (node, ends) in enumerate(piece.nodes.items()):
            name, layer = f"{node.name}_{number}", engine.layer_of(node)
            tensors[node, ends] = _apply(graph, name, node, layer, ends, tensors, piece)
        for node in piece.outputs:
            x, kind = _take(node, None, tensors, piece), kept if piece.features else float32
            wanted.append((graph.add("Cast", "result", [_reshaped(graph, x.flat, x.shape)], to=kind), kind, x.shape))
        self.output_shapes = [shape for *_, shape in wanted]
        model = openvino_model(engine.core, graph, given, wanted)
        if trim := sys.platform == "linux" and getattr(ctypes.CDLL(None), "malloc_trim", None):
            trim(0)  # glibc keeps much of the freed memory otherwise, some 0.4 GiB of a thick scan
        self._compiled = compile_on_cpu(engine.core, model, engine.bf16)
        self._request = self._compiled.create_infer_request()

    def __call__(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        # Tensors are views that keep nothing alive, so copies are kept here until the end of the computation.
        held = [np.ascontiguousarray(stretch) for stretch in inputs]
        for number, stretch in enumerate(held):
            self._request.set_input_tensor(number, self._view(stretch))
        for number, place in enumerate(outputs):
            self._request.set_output_tensor(number, self._view(place))
        self._request.infer()

    def free(self) -> None:
        self._compiled.release_memory()

    def _view(self, array: np.ndarray) -> Any:
        return ov.Tensor(array, array.shape, self.kept if array.dtype == np.uint16 else ov.Type.f32)


def openvino_model(core: Any, graph: OnnxGraph, inputs: Sequence[End], outputs: Sequence[End]) -> Any:
    """An OpenVINO model of a graph; kernels are added after reading, as ONNX would copy them three times."""
    from onnx import TensorProto

    kernels = {name: array for name, array in graph.initializers.items() if array.ndim == len(CHANNELS_FIRST)}
    graph.initializers = {name: array for name, array in graph.initializers.items() if name not in kernels}
    types = {"float32": TensorProto.FLOAT, "int8": TensorProto.INT8}
    open_ends = [(name, types[array.dtype.name], array.shape) for name, array in kernels.items()]
    model = core.read_model(graph.model("network", [*inputs, *open_ends], outputs).SerializeToString())
    for parameter in model.get_parameters():
        if (array := kernels.get(parameter.friendly_name)) is not None:
            constant = ov.op.Constant(np.require(array, requirements=("C", "W")), shared_memory=True)
            parameter.output(0).replace(constant.output(0))
            model.remove_parameter(parameter)
    return model


def compile_on_cpu(core: Any, model: Any, bf16: bool) -> Any:
    """Compile an OpenVINO model, to compute in float32 or bf16."""
    hints = {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32", "PERFORMANCE_HINT": "LATENCY"}
    try:
        return core.compile_model(model, "CPU", hints)
    except RuntimeError as error:  # e.g. bf16 where ONEDNN_MAX_CPU_ISA excludes AVX-512
        said = str(error).strip().splitlines()[-1].partition(". ")[0]
        advice = "Use another precision, or engine='keras'."
        if "alloc" in said:  # std::bad_alloc, or: Failed to allocate … bytes of memory
            said, advice = f"out of memory ({said})", "Use a computer with more memory, or end other programs."
        raise Planar3DError(f"OpenVINO cannot compile the network: {said}. {advice}") from error


class _Tensor:
    """Some entries of a node, in two forms that convert without cost.

    Convolutions leave channels last in memory, whatever the order of their axes. Sums of such results are reordered
    unless they have only two axes.

    Attributes:
        shape: (entries, rows, cols, channels).
        first: (1, channels, entries, rows, cols), for convolutions.
        flat: (entries, rows · cols · channels), for sums and stretches.
    """

    def __init__(self, graph: OnnxGraph, shape: StretchShape, first: str = "", flat: str = "") -> None:
        self.graph, self.shape, self._first, self._flat = graph, shape, first, flat

    @property
    def first(self) -> str:
        if not self._first:
            rows = _reshaped(self.graph, self._flat, [1, *self.shape])
            self._first = self.graph.add("Transpose", "first", [rows], perm=CHANNELS_FIRST)
        return self._first

    @property
    def flat(self) -> str:
        if not self._flat:
            last = self.graph.add("Transpose", "last", [self._first], perm=CHANNELS_LAST)
            self._flat = _reshaped(self.graph, last, [self.shape[0], -1])
        return self._flat

    def cut(self, have: Range, want: Range) -> "_Tensor":
        """Entries `want` of entries `have`."""
        if have == want:
            return self
        ends = [_integers(self.graph, [number]) for number in (want[0] - have[0], want[1] - have[0], 0)]
        flat = self.graph.add("Slice", "cut", [self.flat, *ends])
        return _Tensor(self.graph, (want[1] - want[0], *self.shape[1:]), flat=flat)

    def padded(self, padding: Range) -> "_Tensor":
        """With zero entries before and after."""
        if not any(padding):
            return self
        flat = self.graph.add("Pad", "padded", [self.flat, _integers(self.graph, [padding[0], 0, padding[1], 0])])
        return _Tensor(self.graph, (self.shape[0] + sum(padding), *self.shape[1:]), flat=flat)


def _reshaped(graph: OnnxGraph, x: str, shape: Sequence[int]) -> str:
    return graph.add("Reshape", "reshaped", [x, _integers(graph, shape)])


def _integers(graph: OnnxGraph, values: Sequence[int]) -> str:
    return graph.constant(f"integers_{'_'.join(map(str, values))}", np.array(values, np.int64))


def _apply(
    graph: OnnxGraph,
    name: str,
    node: Node,
    layer: Any,
    wanted: Range,
    tensors: dict[tuple[Node, Range], _Tensor],
    piece: Piece,
) -> _Tensor:
    reach, length = node.reach, node.inputs[0].length
    needs = reach.needs(*wanted, length)
    taken = [_take(source, reach.needs(*wanted, source.length), tensors, piece) for source in node.inputs]
    # A layer on whole windows pads as in Keras.
    padding = None if reach.whole or reach.up > 1 else reach.padding(*wanted, length)
    if node.role == "shift":
        return taken[0].padded(reach.padding(*wanted, length))
    if node.role == "sum":
        total = _Tensor(graph, taken[0].shape, flat=graph.add("Sum", name, [x.flat for x in taken]))
        use = Use(graph, name, layer, ())
        if layer.activation in ("softmax", "log_softmax"):
            return _Tensor(graph, total.shape, first=activated(use, total.first))
        return _Tensor(graph, total.shape, flat=activated(use, total.flat))
    given = [
        Tensor(x.first, (1, *x.shape), padding, greatest_of(source.layer))
        for x, source in zip(taken, node.inputs, strict=True)
    ]
    first = written(Use(graph, name, layer, given))
    shape: Any = shape_of(layer, *((1, *x.shape) for x in taken))
    have = (needs[0] * reach.up, needs[1] * reach.up) if reach.up > 1 else wanted
    return _Tensor(graph, (have[1] - have[0], *shape[2:]), first=first).cut(have, wanted)


def _take(node: Node, wanted: Range | None, tensors: dict[tuple[Node, Range], _Tensor], piece: Piece) -> _Tensor:
    have = piece.holding(node, wanted)
    return tensors[node, have].cut(have, wanted or have)
