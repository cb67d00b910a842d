"""The pieces of a plan as Keras models: the network's own layers, on stretches of slices."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from planar3d.errors import Planar3DError
from planar3d.graph.depth_graph import Node
from planar3d.graph.keras_graph import applied, arguments_with, forget_uses, pass_through
from planar3d.graph.layers import KINDS
from planar3d.graph.reach import Range
from planar3d.inference.plan import Piece, StretchShape
from planar3d.inference.shared import ALIGNMENT
from planar3d.training.backends import as_written, on_gpu

UseKey = tuple[str, tuple[int, ...]]  # of a layer at one place: its name and the numbers of its inputs, see `Layer`


class KerasEngine:
    """Computes pieces with Keras, in the arithmetic of the network's layers."""

    dtype: Any = np.dtype("float32")

    def __init__(self, network: keras.Model) -> None:
        self._uses: dict[UseKey, Any] = {}  # the nodes of Keras

        def visit(name: str, node: Any, taken: list[int]) -> list[int]:
            if len(node.outputs) > 1:
                raise Planar3DError(f"Layer {name} gives {len(node.outputs)} outputs; use method='windowed'.")
            if (use := (name, tuple(taken))) in self._uses:  # with other arguments, say
                raise Planar3DError(f"Layer {name} is used twice on the same input; use method='windowed'.")
            self._uses[use] = node
            return [len(self._uses)]  # as in `described`, after the one input

        pass_through(network, [0], visit)

    def program(self, piece: Piece, shapes: Sequence[StretchShape]) -> "KerasProgram":
        return KerasProgram(piece, shapes, self._uses)


class KerasProgram:
    """A piece as a Keras model.

    On a CPU with TensorFlow, stretches are read in place, since copying them takes longer than some layers.

    Attributes:
        output_shapes: (entries, rows, cols, channels) of each output.
    """

    def __init__(self, piece: Piece, shapes: Sequence[StretchShape], uses: Mapping[UseKey, Any]) -> None:
        given = [keras.Input(batch_shape=(1, *shape)) for shape in shapes]
        tensors = dict(zip(piece.inputs, given, strict=True))
        uncut: dict[Node, tuple[Any, int]] = {}  # convolutions before they are cropped, and their first entries
        for node, wanted in piece.nodes.items():
            use = uses.get((node.layer.name, node.layer.inputs)) if node.layer else None
            tensors[node, wanted] = _apply(node, use, wanted, tensors, piece, uncut)
        self.model = keras.Model(given, [_take(node, None, tensors, piece) for node in piece.outputs])
        forget_uses(self.model)
        self.output_shapes: list[StretchShape] = [tuple(t.shape[1:]) for t in self.model.outputs]
        in_place = keras.backend.backend() == "tensorflow" and not on_gpu()
        self._run = as_written(self._on_tensorflow() if in_place else self._predict)

    def __call__(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        for place, result in zip(outputs, self._run([stretch[None] for stretch in inputs]), strict=True):
            place[:] = np.asarray(result)[0]

    def free(self) -> None:
        """Nothing is kept between calls."""

    def _predict(self, batch: Sequence[np.ndarray]) -> list[Any]:
        return keras.tree.flatten(self.model.predict_on_batch(batch))

    def _on_tensorflow(self) -> Callable[[Sequence[np.ndarray]], list[Any]]:
        import tensorflow as tf

        given = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in self.model.inputs]
        function = tf.function(lambda given: keras.tree.flatten(self.model(given, training=False)), autograph=False)
        # TensorFlow takes programs that are each traced at their first call for one that is traced again and again.
        compute = function.get_concrete_function(given)
        return lambda batch: compute([_in_place(array) for array in batch])


def _in_place(array: np.ndarray) -> Any:
    """A TensorFlow tensor in an array's own memory if possible, else a copy."""
    import tensorflow as tf

    if array.flags.c_contiguous and array.flags.writeable and array.ctypes.data % ALIGNMENT == 0:
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return tf.convert_to_tensor(array)


class _Dilated(layers.Layer):
    """A dilated convolution as one operation, where TensorFlow rearranges the volume before and after it."""

    def __init__(self, layer: layers.Conv3D) -> None:
        super().__init__(dtype=layer.dtype_policy, trainable=False)
        self.of = (layer,)  # in a tuple, so that Keras does not track it

    def call(self, x: Any) -> Any:
        """Apply the layer to (batch, depth, rows, cols, channels)."""
        import tensorflow as tf

        from planar3d.training.convolutions import dilated

        (layer,) = self.of
        y = dilated(x, layer.kernel.value, layer.dilation_rate)
        y = ops.add(y, layer.bias) if layer.use_bias else y
        # Grappler fuses a convolution with its activation where nothing is between, and a fused ELU has other bits.
        return layer.activation(y if layer.activation is keras.activations.relu else tf.ensure_shape(y, y.shape))


def _is_dilated_exactly(layer: Any, x: Any) -> bool:
    """Whether `_Dilated` has the bits of a layer for such inputs; not in bf16, where fusing the bias rounds less."""
    if type(layer) is not layers.Conv3D or keras.backend.backend() != "tensorflow" or on_gpu():
        return False
    if max(layer.dilation_rate) == 1 or layer.groups > 1 or layer.data_format == "channels_first":
        return False
    if layer.padding != "same":  # graphs of TensorFlow would take the output for larger than it is
        return False
    sizes = tuple(layer.kernel.shape), layer.dilation_rate, tuple(x.shape[2:4])
    return layer.compute_dtype == "float32" and _dilates_exactly(*sizes)


@functools.cache
def _dilates_exactly(kernel: tuple[int, ...], rates: tuple[int, ...], planes: tuple[int, ...]) -> bool:
    """Whether both ways give the same bits for random values: sizes and processor decide the order of the sums.

    Slices are convolved alike, so the sample has as few as one output needs.
    """
    import tensorflow as tf

    from planar3d.training.convolutions import dilated, in_graph

    depth = (kernel[0] - 1) * rates[0] + 1
    x = tf.random.stateless_uniform((1, depth, *planes, kernel[3]), seed=(0, 0), minval=-1)
    taps = tf.random.stateless_uniform(kernel, seed=(0, 1), minval=-1)
    rearranged = in_graph(lambda x, k: tf.nn.convolution(x, k, padding="SAME", dilations=rates), x, taps)
    try:
        found = in_graph(lambda x, k: dilated(x, k, rates), x, taps)
    except tf.errors.OpError:  # not with every kernel library
        return False
    return bool(tf.reduce_all(found == rearranged))


class _Part(layers.Layer):
    """The result of some input channels, and possibly one depth tap, of a convolution."""

    def __init__(self, node: Node, layer: Any) -> None:
        super().__init__(dtype=layer.dtype_policy, trainable=False)
        # In a tuple, so that Keras does not track the network's layer as a part of this one.
        self.of = (node, layer)

    def call(self, x: Any) -> Any:
        """Apply the part of the kernel, and the bias if this part has it."""
        node, layer = self.of
        strides, dilation = list(layer.strides), layer.dilation_rate
        convolve = ops.conv_transpose if isinstance(layer, layers.Conv3DTranspose) else ops.conv
        y = convolve(x, node.kernel, strides, layer.padding, dilation_rate=dilation)
        return ops.add(y, ops.reshape(layer.bias, (1, 1, 1, 1, layer.filters))) if node.biased else y


def _apply(
    node: Node,
    use: Any,
    wanted: Range,
    tensors: dict[tuple[Node, Range], Any],
    piece: Piece,
    uncut: dict[Node, tuple[Any, int]],
) -> Any:
    """The entries of a node that the piece needs, by the network's operation, which parts of one do not have."""
    length = node.inputs[0].length
    taken = [_take(source, node.reach.needs(*wanted, source.length), tensors, piece) for source in node.inputs]
    if node.role == "shift":
        padding = node.reach.padding(*wanted, length)
        return ops.pad(taken[0], [(0, 0), padding, (0, 0), (0, 0), (0, 0)]) if any(padding) else taken[0]
    if node.role == "sum":
        total = functools.reduce(ops.add, taken)
        return total if use.operation.activation is None else use.operation.activation(total)
    if node.inputs[0] in uncut and _stays_joined(node):
        x, first = uncut[node.inputs[0]]
        y = applied(use.operation, x)
        uncut[node] = y, first
        return _cut(y, (first, first + y.shape[1]), wanted)
    if node.role == "part":
        y = _Part(node, use.operation)(taken[0])
    elif use is None or node.kind == "Concatenate":  # of more than the layer's inputs, if it joins another's
        y = applied(layers.Concatenate() if use is None else use.operation, taken)
    else:
        args, kwargs = arguments_with(use, taken)
        kwargs.pop("training", None)  # a prediction is none, whatever the network was built with
        exact = _is_dilated_exactly(use.operation, taken[0])
        y = _Dilated(use.operation)(taken[0]) if exact else applied(use.operation, *args, **kwargs)
    # A layer pads its stretch like a window. Entries that see those zeros are cropped: this costs a few more slices,
    # and avoids a copy of the largest tensors in TensorFlow for padding along depth only.
    first = wanted[0] if node.reach.stride > 1 else node.reach.needs(*wanted, length)[0] * node.reach.up
    if node.kind == "Conv3D":
        uncut[node] = y, first
    return _cut(y, (first, first + y.shape[1]), wanted)


def _stays_joined(node: Node) -> bool:
    """Whether nothing may come between a layer and the convolution before it.

    Grappler fuses an ELU with a convolution, also across layers that do nothing in a prediction, and a fused ELU has
    other bits.
    """
    if node.kind == "Activation":
        return node.layer.activation in ("elu", "linear")  # type: ignore[union-attr]
    return node.kind == "ELU" or KINDS.get(node.kind) is KINDS["Identity"]


def _take(node: Node, wanted: Range | None, tensors: dict[tuple[Node, Range], Any], piece: Piece) -> Any:
    have = piece.holding(node, wanted)
    return _cut(tensors[node, have], have, wanted or have)


def _cut(x: Any, have: Range, want: Range) -> Any:
    return x if have == want else x[:, want[0] - have[0] : want[1] - have[0]]
