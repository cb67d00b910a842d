"""A functional Keras network written as an ONNX graph, layer by layer, with its own names and weights.

Tensors are (batch, depth, rows, cols, channels) at the file's input and output, as in Keras, and (batch, channels,
depth, rows, cols) between, as ONNX has it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, tree

from planar3d.errors import Planar3DError

# The newest ONNX operators that are needed, and no newer, so that older runtimes read the file.
OPSET = 17
CHANNELS_FIRST, CHANNELS_LAST = (0, 4, 1, 2, 3), (0, 2, 3, 4, 1)


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph: its name, and its shape in Keras' order of axes."""

    name: str
    shape: tuple[int | None, ...]


class Graph:
    """Nodes and initializers under construction; names are those of the layers."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: dict[str, np.ndarray] = {}
        self._used: set[str] = set()

    def add(self, op: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node and return the name of its output; a name that is taken gets a number."""
        from onnx import helper

        number = 1
        output = name
        while output in self._used:
            number += 1
            output = f"{name}_{number}"
        self._used.add(output)
        self.nodes.append(helper.make_node(op, list(inputs), [output], output, **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        """Store an array as it is and return its name; a layer that is applied twice has its weights once."""
        self.initializers[name] = np.asarray(value)
        return name


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
    result = _walk(graph, network, Tensor(source, tuple(network.inputs[0].shape)), "")
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


def _walk(graph: Graph, network: keras.Model, source: Tensor, prefix: str) -> Tensor:
    """Write a network's layers in their order; those of a model within it are named `model/layer`."""

    def apply(operation: Any, *args: Any, **kwargs: Any) -> Any:
        tensors = [value for value in tree.flatten((args, kwargs)) if isinstance(value, Tensor)]
        name = prefix + operation.name
        if isinstance(operation, keras.Model) and len(tensors) == 1:
            return _walk(graph, operation, tensors[0], f"{name}/")
        writer = _WRITERS.get(type(operation))
        if writer is None:
            known = ", ".join(sorted(kind.__name__ for kind in _WRITERS))
            raise Planar3DError(
                f"Layer {name} is of the type {type(operation).__name__}, which cannot be written as ONNX; known are: "
                f"{known}."
            )
        if getattr(operation, "data_format", "channels_last") != "channels_last":
            raise _unknown(name, "data_format", operation.data_format)
        specs = tree.map_structure(
            lambda value: keras.KerasTensor(value.shape) if isinstance(value, Tensor) else value, (args, kwargs)
        )
        shape = tuple(operation.compute_output_spec(*specs[0], **specs[1]).shape)
        return Tensor(writer(graph, name, operation, tensors), shape)

    if isinstance(network, keras.Sequential):
        network = keras.Model(network.inputs, network.outputs)
    inputs = tree.pack_sequence_as(network.input, [source])
    # Keras has no public walk over a graph that leaves the layers' own nodes as they are.
    return tree.flatten(network._run_through_graph(inputs, operation_fn=lambda operation: operation, call_fn=apply))[0]


def _unknown(name: str, setting: str, value: Any) -> Planar3DError:
    return Planar3DError(f"Layer {name} has {setting}={value!r}, which cannot be written as ONNX.")


def _convolution(graph: Graph, name: str, layer: Any, tensors: Sequence[Tensor]) -> str:
    # (d, r, c, in, out) → (out, in, d, r, c)
    kernel = np.ascontiguousarray(np.transpose(_array(layer.kernel), (4, 3, 0, 1, 2)))
    return _weighed(
        graph,
        name,
        layer,
        [tensors[0].name, graph.constant(f"{name}/kernel", kernel)],
        "Conv",
        kernel_shape=layer.kernel_size,
        strides=layer.strides,
        dilations=layer.dilation_rate,
        group=layer.groups,
        pads=_pads(name, layer, layer.kernel_size, layer.dilation_rate, tensors[0]),
    )


def _transposed_convolution(graph: Graph, name: str, layer: Any, tensors: Sequence[Tensor]) -> str:
    if layer.output_padding is not None:
        raise _unknown(name, "output_padding", layer.output_padding)
    # Keras has (d, r, c, out, in) here → (in, out, d, r, c)
    kernel = np.ascontiguousarray(np.transpose(_array(layer.kernel), (4, 3, 0, 1, 2)))
    extents = [(k - 1) * d + 1 for k, d in zip(layer.kernel_size, layer.dilation_rate, strict=True)]
    # 'same' gives input · stride; 'valid' all that the kernel reaches, and at least as much.
    surplus = [extent - stride for extent, stride in zip(extents, layer.strides, strict=True)]
    cut = [max(n, 0) if layer.padding == "same" else 0 for n in surplus]
    return _weighed(
        graph,
        name,
        layer,
        [tensors[0].name, graph.constant(f"{name}/kernel", kernel)],
        "ConvTranspose",
        kernel_shape=layer.kernel_size,
        strides=layer.strides,
        dilations=layer.dilation_rate,
        pads=[n // 2 for n in cut] + [n - n // 2 for n in cut],
        output_padding=[max(-n, 0) for n in surplus],
    )


def _weighed(graph: Graph, name: str, layer: Any, inputs: list[str], op: str, **attributes: Any) -> str:
    if layer.use_bias:
        inputs.append(graph.constant(f"{name}/bias", _array(layer.bias)))
    attributes = {key: value if isinstance(value, int) else list(value) for key, value in attributes.items()}
    return _activated(graph, name, layer.activation, graph.add(op, name, inputs, **attributes))


def _pads(name: str, layer: Any, extents: Sequence[int], dilations: Sequence[int], tensor: Tensor) -> list[int]:
    """Entries before each axis, then behind; 'same' has the odd one behind, as TensorFlow has it."""
    totals = []
    for extent, dilation, stride, length in zip(extents, dilations, layer.strides, tensor.shape[1:-1], strict=True):
        reach = (extent - 1) * dilation + 1
        if layer.padding == "valid":
            totals.append(0)
        elif stride == 1:
            totals.append(reach - 1)
        elif length is None:
            raise Planar3DError(
                f"Layer {name} pads an axis of unknown length at stride {stride}; build the network with its sizes "
                "known."
            )
        else:
            totals.append(max((-(-length // stride) - 1) * stride + reach - length, 0))
    return [n // 2 for n in totals] + [n - n // 2 for n in totals]


def _pooling(op: str, **attributes: Any) -> Callable[..., str]:
    def write(graph: Graph, name: str, layer: Any, tensors: Sequence[Tensor]) -> str:
        pads = _pads(name, layer, layer.pool_size, (1, 1, 1), tensors[0])
        return graph.add(
            op,
            name,
            [tensors[0].name],
            kernel_shape=list(layer.pool_size),
            strides=list(layer.strides),
            pads=pads,
            **attributes,
        )

    return write


def _upsampling(graph: Graph, name: str, layer: Any, tensors: Sequence[Tensor]) -> str:
    scales = graph.constant(f"{name}/scales", np.array([1, 1, *layer.size], np.float32))
    return graph.add(
        "Resize",
        name,
        [tensors[0].name, "", scales],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _zero_padding(graph: Graph, name: str, layer: Any, tensors: Sequence[Tensor]) -> str:
    before, behind = zip(*layer.padding, strict=True)
    pads = graph.constant(f"{name}/pads", np.array([0, 0, *before, 0, 0, *behind], np.int64))
    return graph.add("Pad", name, [tensors[0].name, pads])


def _normalization(graph: Graph, name: str, layer: Any, tensors: Sequence[Tensor]) -> str:
    if layer.axis not in (-1, 4):
        raise _unknown(name, "axis", layer.axis)
    mean = _array(layer.moving_mean)
    scale = _array(layer.gamma) if layer.scale else np.ones_like(mean)
    shift = _array(layer.beta) if layer.center else np.zeros_like(mean)
    values = {
        "gamma": scale,
        "beta": shift,
        "moving_mean": mean,
        "moving_variance": _array(layer.moving_variance),
    }
    weights = [graph.constant(f"{name}/{key}", value) for key, value in values.items()]
    return graph.add("BatchNormalization", name, [tensors[0].name, *weights], epsilon=layer.epsilon)


def _concatenation(graph: Graph, name: str, layer: Any, tensors: Sequence[Tensor]) -> str:
    return graph.add("Concat", name, [tensor.name for tensor in tensors], axis=CHANNELS_FIRST.index(layer.axis % 5))


def _merge(op: str) -> Callable[..., str]:
    def write(graph: Graph, name: str, layer: Any, tensors: Sequence[Tensor]) -> str:
        return graph.add(op, name, [tensor.name for tensor in tensors])

    return write


def _product(graph: Graph, name: str, layer: Any, tensors: Sequence[Tensor]) -> str:
    result = tensors[0].name
    for tensor in tensors[1:]:
        result = graph.add("Mul", name, [result, tensor.name])
    return result


def _activation(graph: Graph, name: str, layer: Any, tensors: Sequence[Tensor]) -> str:
    return _activated(graph, name, layer.activation, tensors[0].name)


def _rectifier(graph: Graph, name: str, layer: Any, tensors: Sequence[Tensor]) -> str:
    if layer.threshold or layer.negative_slope:
        raise _unknown(name, "threshold or negative_slope", (layer.threshold, layer.negative_slope))
    rectified = graph.add("Relu", name, [tensors[0].name])
    if layer.max_value is None:
        return rectified
    return graph.add("Min", name, [rectified, graph.constant(f"{name}/max_value", np.float32(layer.max_value))])


def _leaky_rectifier(graph: Graph, name: str, layer: Any, tensors: Sequence[Tensor]) -> str:
    return graph.add("LeakyRelu", name, [tensors[0].name], alpha=float(layer.negative_slope))


def _nothing(graph: Graph, name: str, layer: Any, tensors: Sequence[Tensor]) -> str:
    """Layers that act in training alone."""
    return tensors[0].name


def _activated(graph: Graph, name: str, activation: Any, tensor: str) -> str:
    kind = keras.activations.serialize(activation)
    if kind == "linear":
        return tensor
    if kind == "silu":
        return graph.add("Mul", f"{name}/silu", [tensor, graph.add("Sigmoid", f"{name}/sigmoid", [tensor])])
    if not isinstance(kind, str) or kind not in _ACTIVATIONS:
        raise _unknown(name, "activation", kind)
    op, attributes = _ACTIVATIONS[kind]
    return graph.add(op, f"{name}/{kind}", [tensor], **attributes)


def _array(variable: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float32)


# Defaults of Keras where ONNX has others.
_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "elu": ("Elu", {"alpha": 1.0}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.2}),
    "relu": ("Relu", {}),
    "selu": ("Selu", {}),
    "sigmoid": ("Sigmoid", {}),
    "softmax": ("Softmax", {"axis": 1}),
    "softplus": ("Softplus", {}),
    "tanh": ("Tanh", {}),
}

_WRITERS: dict[type, Callable[..., str]] = {
    layers.Activation: _activation,
    layers.Add: _merge("Sum"),
    layers.Average: _merge("Mean"),
    layers.AveragePooling3D: _pooling("AveragePool", count_include_pad=0),
    layers.BatchNormalization: _normalization,
    layers.Concatenate: _concatenation,
    layers.Conv3D: _convolution,
    layers.Conv3DTranspose: _transposed_convolution,
    layers.Dropout: _nothing,
    layers.GaussianDropout: _nothing,
    layers.GaussianNoise: _nothing,
    layers.Identity: _nothing,
    layers.LeakyReLU: _leaky_rectifier,
    layers.Maximum: _merge("Max"),
    layers.MaxPooling3D: _pooling("MaxPool"),
    layers.Minimum: _merge("Min"),
    layers.Multiply: _product,
    layers.ReLU: _rectifier,
    layers.SpatialDropout3D: _nothing,
    layers.Subtract: _merge("Sub"),
    layers.UpSampling3D: _upsampling,
    layers.ZeroPadding3D: _zero_padding,
}
