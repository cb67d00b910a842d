"""The pieces of a plan as Keras models: the network's own layers, on stretches of slices."""

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from planar3d.inference.depth_graph import Node
from planar3d.inference.plan import Piece, Range

Shape = tuple[int, int, int, int]


class KerasEngine:
    """Computes pieces with Keras, in the arithmetic of the network's layers."""

    dtype: Any = np.dtype("float32")

    def program(self, piece: Piece, shapes: Sequence[Shape]) -> "KerasProgram":
        """Build what computes a piece from inputs of these shapes."""
        return KerasProgram(piece, shapes)


class KerasProgram:
    """A piece as a Keras model.

    Attributes:
        output_shapes: (entries, rows, cols, channels) of each output.
    """

    def __init__(self, piece: Piece, shapes: Sequence[Shape]) -> None:
        given = [keras.Input(batch_shape=(1, *shape)) for shape in shapes]
        tensors = dict(zip(piece.inputs, given, strict=True))
        for node, wanted in piece.nodes.items():
            tensors[node, wanted] = _apply(node, wanted, tensors, piece)
        self.model = keras.Model(given, [_take(n, None, tensors, piece) for n in piece.outputs])
        self.output_shapes: list[Shape] = [tuple(t.shape[1:]) for t in self.model.outputs]

    def __call__(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Compute stretches (entries, rows, cols, channels) from stretches, into the places given."""
        results = self.model.predict_on_batch([stretch[None] for stretch in inputs])
        for place, result in zip(outputs, keras.tree.flatten(results), strict=True):
            place[:] = result[0]


class _Convolution(layers.Layer):
    """A convolution of some slices, or a part of one, padded along depth by as many slices of zeros as are given."""

    def __init__(self, node: Node, padding: Range) -> None:
        super().__init__(dtype=node.layer.dtype_policy, trainable=False)  # type: ignore[union-attr]
        # In a tuple: the layer is the network's, not a part of this one.
        self.of = (node,)
        self.padding = padding

    def call(self, x: Any) -> Any:
        (node,) = self.of
        layer: Any = node.layer
        kernel = layer.kernel
        if node.channels is not None:
            first, end = node.channels
            transposed = isinstance(layer, layers.Conv3DTranspose)
            kernel = kernel[:, :, :, :, first:end] if transposed else kernel[:, :, :, first:end]
        if node.tap is not None:
            kernel = kernel[node.tap : node.tap + 1]
        if isinstance(layer, layers.Conv3DTranspose):
            y = ops.conv_transpose(x, kernel, list(layer.strides), layer.padding, dilation_rate=layer.dilation_rate)
        else:
            within = [_same(*sizes) for sizes in zip(x.shape[2:4], *_in_plane(layer), strict=True)]
            if layer.padding == "valid":
                within = [(0, 0), (0, 0)]
            if any(before or after for before, after in (self.padding, *within)):
                x = ops.pad(x, [(0, 0), self.padding, *within, (0, 0)])
            y = ops.conv(x, kernel, list(layer.strides), "valid", dilation_rate=layer.dilation_rate)
        if node.biased or (node.role == "layer" and layer.use_bias):
            y = ops.add(y, ops.reshape(layer.bias, (1, 1, 1, 1, layer.filters)))
        return y if node.role == "part" or layer.activation is None else layer.activation(y)


def _in_plane(layer: Any) -> tuple[Any, Any, Any]:
    return layer.kernel_size[1:], layer.strides[1:], layer.dilation_rate[1:]


def _same(length: int, kernel: int, stride: int, dilation: int) -> Range:
    total = max((-(-length // stride) - 1) * stride + (kernel - 1) * dilation + 1 - length, 0)
    return total // 2, total - total // 2


def _apply(node: Node, wanted: Range, tensors: dict[tuple[Node, Range], Any], piece: Piece) -> Any:
    """The entries of a node that the piece wants."""
    length = node.inputs[0].length
    needs = node.reach.needs(*wanted, length)
    taken = [_take(source, needs, tensors, piece) for source in node.inputs]
    padding = (0, 0) if node.reach.up > 1 else node.reach.padding(*wanted, length)
    if node.role == "shift":
        return ops.pad(taken[0], [(0, 0), padding, (0, 0), (0, 0), (0, 0)]) if any(padding) else taken[0]
    if node.role == "sum":
        activation = node.layer.activation  # type: ignore[union-attr]
        total = functools.reduce(ops.add, taken)
        return total if activation is None else activation(total)
    if node.role == "layer" and padding == (node.reach.before, node.reach.after):
        y = node.layer(taken if len(taken) > 1 else taken[0])  # type: ignore[misc]
    else:
        y = _Convolution(node, padding)(taken[0])
    first = needs[0] * node.reach.up if node.reach.up > 1 else wanted[0]
    return _cut(y, (first, first + y.shape[1]), wanted)


def _take(node: Node, wanted: Range | None, tensors: dict[tuple[Node, Range], Any], piece: Piece) -> Any:
    """Entries of a node that was computed, or was given in just this stretch."""
    have = piece.nodes.get(node)
    if have is None:
        return next(tensors[key] for key in piece.inputs if key[0] is node and wanted in (None, key[1]))
    return _cut(tensors[node, have], have, wanted or have)


def _cut(x: Any, have: Range, want: Range) -> Any:
    return x if have == want else x[:, want[0] - have[0] : want[1] - have[0]]
