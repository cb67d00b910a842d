"""A network as an ONNX graph, layer by layer, with the same names and weights.

Tensors are (batch, depth, rows, cols, channels) at the file's input and output, as in Keras, and (batch, channels,
depth, rows, cols) inside, as in ONNX.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from planar3d.errors import Planar3DError
from planar3d.graph.description import Description, Layer, greatest_of
from planar3d.graph.layers import written
from planar3d.graph.operators import CHANNELS_FIRST, CHANNELS_LAST, Tensor, Use

# The oldest ONNX operator set with all needed operators, so that older runtimes read the file.
OPSET = 17
AXES = ("batch", "depth", "rows", "cols", "channels")

End = tuple[str, int, Any]  # name, element type and sizes of an input or output


class OnnxGraph:
    """Nodes and initializers under construction; names are those of the layers."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: dict[str, np.ndarray] = {}
        self._used = {"input", "output"}  # names of the file's ends, which a layer may also have

    def add(self, op: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node and return the name of its output; a number makes it unique."""
        from onnx import helper

        number = 1
        output = name
        while output in self._used:
            number += 1
            output = f"{name}_{number}"
        self._used.add(output)
        self.nodes.append(helper.make_node(op, list(inputs), [output], output, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        """Store an array and return its name; a layer applied twice stores its weights once, if they are the same."""
        known = self.initializers.setdefault(name, value)
        if known.dtype != value.dtype or not np.array_equal(known, value, equal_nan=True):
            return self.constant(f"{name}_again", value)
        return name

    def model(self, name: str, inputs: Sequence[End], outputs: Sequence[End]) -> Any:
        """The graph as an `onnx.ModelProto`."""
        from onnx import helper, numpy_helper

        weights = [numpy_helper.from_array(array, name) for name, array in self.initializers.items()]
        given, wanted = ([helper.make_tensor_value_info(*end) for end in ends] for ends in (inputs, outputs))
        graph = helper.make_graph(self.nodes, name, given, wanted, weights)
        opset = helper.make_opsetid("", OPSET)
        oldest = helper.find_min_ir_version_for([opset])
        return helper.make_model(graph, opset_imports=[opset], producer_name="planar3d", ir_version=oldest)


def onnx_model(network: Description, metadata: Mapping[str, str]) -> Any:
    """Write a float32 network as an `onnx.ModelProto` from `input` to `output`, checked by onnx.

    Raises:
        Planar3DError: it has not one input and one output (batch, depth, rows, cols, channels), or a layer, or one of
            its settings, has no counterpart.
    """
    import onnx

    graph, *ends = network_graph(network)
    model = graph.model(network.name, *ends)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def network_graph(network: Description) -> tuple[OnnxGraph, list[End], list[End]]:
    """The graph of a network, from `input` to `output`, and these two; see `onnx_model`."""
    from onnx import TensorProto

    ends = [*network.inputs, *network.output_shapes]
    if len(ends) != 2 or any(len(end) != 5 for end in ends):
        raise Planar3DError(
            f"{network.name} has {ends} as inputs and outputs; export to ONNX needs one input and one output (batch, "
            "depth, rows, cols, channels)."
        )
    graph = OnnxGraph()
    source = graph.add("Transpose", "channels_first", ["input"], perm=CHANNELS_FIRST)

    def write(layer: Layer, taken: list[Tensor]) -> Tensor:
        return Tensor(written(Use(graph, layer.name, layer, taken)), layer.shape, greatest=greatest_of(layer))

    results = network.follow([Tensor(source, network.inputs[0])], write)
    graph.add("Transpose", "channels_last", [results[network.outputs[0]].value], perm=CHANNELS_LAST)
    graph.nodes[-1].output[0] = "output"

    first, last = (
        (name, TensorProto.FLOAT, [size or axis for size, axis in zip((None, *shape[1:]), AXES, strict=True)])
        for name, shape in zip(("input", "output"), ends, strict=True)
    )
    return graph, [first], [last]
