"""A functional Keras network written as an ONNX graph, layer by layer, with its own names and weights.

Tensors are (batch, depth, rows, cols, channels) at the file's input and output, as in Keras, and (batch, channels,
depth, rows, cols) between, as ONNX has it.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from planar3d.errors import Planar3DError
from planar3d.graph.keras_graph import arguments_with, pass_through
from planar3d.inference.onnx_layers import CHANNELS_FIRST, CHANNELS_LAST, WRITERS, Graph, Tensor, unknown

# The newest ONNX operators that are needed, and no newer, so that older runtimes read the file.
OPSET = 17


def onnx_model(network: keras.Model, metadata: Mapping[str, str]) -> Any:
    """Write a network as an ONNX model.

    Args:
        network: functional, with one input and one output (batch, depth, rows, cols, channels), in float32; models
            nested in it are written as their layers.
        metadata: texts that the file carries in `metadata_props`.

    Returns:
        An `onnx.ModelProto` from `input` to `output`, checked by onnx itself.

    Raises:
        Planar3DError: a layer, or a setting of one, that has no counterpart here.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    _check(network)
    graph = Graph()
    source = graph.add("Transpose", "channels_first", ["input"], perm=CHANNELS_FIRST)
    given = [Tensor(source, tuple(network.inputs[0].shape))]
    (result,) = pass_through(network, given, functools.partial(_write, graph))
    graph.add("Transpose", "channels_last", [result.name], perm=CHANNELS_LAST)
    graph.nodes[-1].output[0] = "output"

    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, _dimensions(tensor.shape))
        for name, tensor in (("input", network.inputs[0]), ("output", network.outputs[0]))
    ]
    weights = [numpy_helper.from_array(array, name) for name, array in graph.initializers.items()]
    made = helper.make_graph(graph.nodes, network.name, ends[:1], ends[1:], weights)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(
        made, opset_imports=[opset], producer_name="planar3d", ir_version=helper.find_min_ir_version_for([opset])
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def _check(network: keras.Model) -> None:
    ends = [*getattr(network, "inputs", ()), *getattr(network, "outputs", ())]
    if len(ends) != 2 or any(len(end.shape) != 5 for end in ends):
        raise Planar3DError(
            f"{network.name} has {[tuple(end.shape) for end in ends] or 'no graph'} as inputs and outputs; to write it "
            "as ONNX one input and one output (batch, depth, rows, cols, channels) are needed."
        )


def _dimensions(shape: Sequence[int | None]) -> list[int | str]:
    axes = ("batch", "depth", "rows", "cols", "channels")
    return [axis if length is None else length for axis, length in zip(axes, shape, strict=True)]


def _write(graph: Graph, name: str, node: Any, taken: list[Tensor]) -> list[Tensor]:
    """Write a layer where the network applies it."""
    operation = node.operation
    writer = WRITERS.get(type(operation))
    if writer is None:
        known = ", ".join(sorted(kind.__name__ for kind in WRITERS))
        raise Planar3DError(
            f"Layer {name} is of the type {type(operation).__name__}, which cannot be written as ONNX; known are: "
            f"{known}."
        )
    if getattr(operation, "data_format", "channels_last") != "channels_last":
        raise unknown(name, "data_format", operation.data_format)
    args, kwargs = arguments_with(node, [keras.KerasTensor(tensor.shape) for tensor in taken])
    shape = tuple(operation.compute_output_spec(*args, **kwargs).shape)
    return [Tensor(writer(graph, name, operation, taken), shape)]
