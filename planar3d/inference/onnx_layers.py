"""The layers of a network as nodes of ONNX, on (batch, channels, depth, rows, cols), with their names and weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from planar3d.errors import Planar3DError
from planar3d.graph.padding import Range, layer_padding, transposed_padding

# Axes of Keras in the order of ONNX, and back.
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


def unknown(name: str, setting: str, value: Any) -> Planar3DError:
    """The error of a layer with a setting that has no counterpart."""
    return Planar3DError(f"Layer {name} has {setting}={value!r}, which cannot be written as ONNX.")


def _convolution(graph: Graph, name: str, layer: Any, tensors: Sequence[Tensor]) -> str:
    pads = _in_order(layer_padding(name, layer, layer.kernel_size, layer.dilation_rate, tensors[0].shape[1:-1]))
    return _weighed(graph, name, layer, tensors[0], "Conv", group=layer.groups, pads=pads)


def _transposed_convolution(graph: Graph, name: str, layer: Any, tensors: Sequence[Tensor]) -> str:
    if layer.output_padding is not None:
        raise unknown(name, "output_padding", layer.output_padding)
    extents = [(k - 1) * d + 1 for k, d in zip(layer.kernel_size, layer.dilation_rate, strict=True)]
    axes = zip(extents, layer.strides, strict=True)
    cut, added = zip(*(transposed_padding(extent, stride, layer.padding) for extent, stride in axes), strict=True)
    return _weighed(graph, name, layer, tensors[0], "ConvTranspose", pads=_in_order(cut), output_padding=list(added))


def _weighed(graph: Graph, name: str, layer: Any, source: Tensor, op: str, **attributes: Any) -> str:
    """A convolution of either kind, its bias and its activation."""
    # (d, r, c, in, out) → (out, in, d, r, c); Keras has in and out exchanged in transposed ones, and so has ONNX.
    kernel = np.ascontiguousarray(np.transpose(_array(layer.kernel), (4, 3, 0, 1, 2)))
    inputs = [source.name, graph.constant(f"{name}/kernel", kernel)]
    if layer.use_bias:
        inputs.append(graph.constant(f"{name}/bias", _array(layer.bias)))
    spans = {
        "kernel_shape": list(layer.kernel_size),
        "strides": list(layer.strides),
        "dilations": list(layer.dilation_rate),
    }
    return _activated(graph, name, layer.activation, graph.add(op, name, inputs, **spans, **attributes))


def _in_order(pads: Sequence[Range]) -> list[int]:
    return [before for before, _ in pads] + [behind for _, behind in pads]


def _pooling(op: str, **attributes: Any) -> Callable[..., str]:
    def write(graph: Graph, name: str, layer: Any, tensors: Sequence[Tensor]) -> str:
        pads = _in_order(layer_padding(name, layer, layer.pool_size, (1, 1, 1), tensors[0].shape[1:-1]))
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
        raise unknown(name, "axis", layer.axis)
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
        raise unknown(name, "threshold or negative_slope", (layer.threshold, layer.negative_slope))
    rectified = graph.add("Relu", name, [tensors[0].name])
    if layer.max_value is None:
        return rectified
    return graph.add("Min", name, [rectified, graph.constant(f"{name}/max_value", np.float32(layer.max_value))])


def _rescaling(graph: Graph, name: str, layer: Any, tensors: Sequence[Tensor]) -> str:
    result = tensors[0].name
    for op, part in (("Mul", "scale"), ("Add", "offset")):
        value = np.asarray(getattr(layer, part), np.float32).reshape(-1, 1, 1, 1)  # by channel
        result = graph.add(op, name, [result, graph.constant(f"{name}/{part}", value)])
    return result


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
        raise unknown(name, "activation", kind)
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

WRITERS: dict[type, Callable[..., str]] = {
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
    layers.Rescaling: _rescaling,
    layers.SpatialDropout3D: _nothing,
    layers.Subtract: _merge("Sub"),
    layers.UpSampling3D: _upsampling,
    layers.ZeroPadding3D: _zero_padding,
}
