"""The layers of a network as operators of OpenVINO, on (batch, channels, depth, rows, cols)."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers
from openvino import opset1
from openvino import opset13 as op

from planar3d.graph.depth_graph import Node, Range
from planar3d.graph.padding import same_padding, transposed_padding

Emitter = Callable[[Node, list[Any], Range], Any]


def emitter(layer: Any) -> Emitter | None:
    """What writes a layer as operators, given its node, its inputs, and the slices of zeros around them."""
    return next((emit for kinds, emit in _EMITTERS.items() if isinstance(layer, kinds)), None)


def unknown_of(layer: Any) -> str:
    """What of a layer has no counterpart here; nothing if all has."""
    if emitter(layer) is None:
        return type(layer).__name__
    if isinstance(layer, layers.ReLU):
        return "a ReLU with a threshold or slope" if layer.threshold or layer.negative_slope else ""
    activation = _activation(layer)
    return "" if activation in _ACTIVATIONS else f"activation {activation!r}"


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
    axes = zip(layer.kernel_size, layer.strides, strict=True)
    cut, added = zip(*(transposed_padding(k, s, layer.padding) for k, s in axes), strict=True)
    y = op.convolution_backprop_data(
        taken[0],
        kernel,
        list(layer.strides),
        pads_begin=[before for before, _ in cut],
        pads_end=[after for _, after in cut],
        dilations=list(layer.dilation_rate),
        output_padding=list(added),
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
    return activated(layer, y)


def _per_channel(values: Any) -> Any:
    return op.constant(keras.ops.convert_to_numpy(values).astype(np.float32).reshape(1, -1, 1, 1, 1))


def activated(layer: Any, y: Any) -> Any:
    """Apply a layer's activation to any form of a tensor."""
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
    """Padding of rows and columns."""
    if padding == "valid":
        return [(0, 0), (0, 0)]
    return [
        same_padding(n, (k - 1) * d + 1, s)
        for n, k, s, d in zip(sizes, kernel[1:], strides[1:], dilation[1:], strict=True)
    ]


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


def _rectified(node: Node, taken: list[Any], padding: Range) -> Any:
    most = node.layer.max_value  # type: ignore[union-attr]
    return op.relu(taken[0]) if most is None else op.clamp(taken[0], 0.0, float(most))


def _rescaled(node: Node, taken: list[Any], padding: Range) -> Any:
    layer: Any = node.layer
    scale, offset = (np.broadcast_to(value, node.shape[-1]) for value in (layer.scale, layer.offset))
    return op.add(op.multiply(taken[0], _per_channel(scale)), _per_channel(offset))


def _joined(combine: Callable[[Any, Any], Any]) -> Emitter:
    return lambda node, taken, padding: functools.reduce(combine, taken)


_EMITTERS: dict[Any, Emitter] = {
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
    layers.Activation: lambda node, taken, padding: activated(node.layer, taken[0]),
    layers.ReLU: _rectified,
    layers.Rescaling: _rescaled,
    (layers.Dropout, layers.Identity, layers.SpatialDropout3D): lambda node, taken, padding: taken[0],
}


def _activation(layer: Any) -> Any:
    function = getattr(layer, "activation", None)
    return "linear" if function is None else keras.activations.serialize(function)
