"""A network read as a graph of layers, each with its reach along depth: which slices of its input a slice needs.

Read from the Keras graph itself, so that any functional network can be computed slice by slice, whatever its names,
levels and widths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from planar3d.errors import Planar3DError
from planar3d.graph.keras_graph import as_graph, pass_through
from planar3d.graph.padding import same_padding

Range = tuple[int, int]  # entries along depth, from and to

DEPTH = 1  # axis of slices in (batch, depth, rows, cols, channels)

# Layers whose every output slice is made of the same slice of their inputs.
_WITHIN_SLICES = (
    layers.Activation,
    layers.Add,
    layers.Average,
    layers.Dropout,
    layers.ELU,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.LeakyReLU,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.ReLU,
    layers.Rescaling,
    layers.SpatialDropout3D,
    layers.Subtract,
)
# Those that are so if they act on the channels, their axis being the last.
_ALONG_CHANNELS = (layers.BatchNormalization, layers.Concatenate, layers.LayerNormalization, layers.Softmax)


@dataclass(frozen=True)
class Reach:
    """The slices that a layer's output needs: of `extent` inputs, `stride` apart; or `up` outputs from each input.

    Attributes:
        extent: input slices from the first to the last that one output slice takes.
        stride: input slices from one output slice to the next.
        up: output slices for each input slice, of transposed convolutions and repetitions.
        before, after: slices of zeros that the layer pads at the ends of a window; negative where it drops some.
        whole: the reach is not known: every output slice is taken to need every input slice.
    """

    extent: int = 1
    stride: int = 1
    up: int = 1
    before: int = 0
    after: int = 0
    whole: bool = False

    @property
    def aligned(self) -> bool:
        """Whether a slice of the output is the same in every window that holds it and starts at its multiple."""
        return not self.whole and self.before == self.after == 0 and self.extent <= max(self.stride, self.up)

    def needs(self, first: int, end: int, length: int) -> tuple[int, int]:
        """The input slices, from and to, that output slices `first` to `end` need, of `length` in all."""
        if self.whole:
            return 0, length
        if self.up > 1:
            low, high = first // self.up, (end - 1) // self.up + 1
        else:
            low = first * self.stride - self.before
            high = (end - 1) * self.stride - self.before + self.extent
        return max(low, 0), min(high, length)

    def padding(self, first: int, end: int, length: int) -> tuple[int, int]:
        """Slices of zeros that belong before and behind the needed input slices."""
        low, high = first * self.stride - self.before, (end - 1) * self.stride - self.before + self.extent
        return max(-low, 0), max(high - length, 0)


@dataclass(eq=False, repr=False)
class Node:
    """One layer, or a part of one, in its place in the network.

    Attributes:
        layer: what is computed, or is computed in part; None for the network's input.
        inputs: the nodes that it takes.
        shape: (slices, rows, cols, channels) of its output in a window; rows and cols may be None.
        reach: along depth.
        slices_per_entry: how many of the window's slices an entry of its depth axis stands for; None if not whole.
        role: `"layer"`, the whole of it; or of a convolution `"part"`, what some of its input channels give, before the
            activation; `"shift"`, such a part moved along depth, zeros where nothing is; and `"sum"`, all parts and
            the activation.
        biased: whether a `"part"` is the one that carries the bias.
        channels: from and to, the input channels of a `"part"`.
        tap: the depth tap of the kernel that a `"part"` is alone; None for all of them.
    """

    layer: keras.Layer | None
    inputs: tuple["Node", ...]
    shape: tuple[Any, ...]
    reach: Reach
    slices_per_entry: int | None
    role: str = "layer"
    biased: bool = False
    channels: Range | None = None
    tap: int | None = None

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer.name if self.layer is not None else "input"

    @property
    def length(self) -> int:
        """Entries along depth in a window."""
        return self.shape[0]


def read_graph(network: keras.Model) -> list[Node]:
    """Read a functional network as nodes, each behind its inputs; the first is the input, the last the output.

    Args:
        network: functional, with one input (batch, depth, rows, cols, channels) of known depth and one output of as
            many slices; models nested in it are read as their layers.

    Raises:
        Planar3DError: it is not such a network.
    """
    network = as_graph(network)
    inputs, outputs = network.inputs, network.outputs
    if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 5 or len(outputs[0].shape) != 5:
        raise Planar3DError(
            f"{network.name} takes {[tuple(t.shape) for t in inputs]} and gives {[tuple(t.shape) for t in outputs]}; "
            "one input and one output (batch, depth, rows, cols, channels) are needed."
        )
    depth = inputs[0].shape[DEPTH]
    if depth is None or outputs[0].shape[DEPTH] != depth:
        raise Planar3DError(
            f"{network.name} has {depth} slices at its input and {outputs[0].shape[DEPTH]} at its output; the same "
            "known number is needed."
        )
    source = Node(None, (), tuple(inputs[0].shape[1:]), Reach(), 1)
    order = [source]

    def visit(name: str, layer_use: Any, taken: list[Node]) -> list[Node]:
        given = [_node(layer_use.operation, tuple(taken), output, depth) for output in layer_use.outputs]
        order.extend(given)
        return given

    needed = ancestors(pass_through(network, [source], visit))
    return [node for node in order if node in needed]


def ancestors(nodes: Sequence[Node]) -> set[Node]:
    """The nodes, and all that they are computed from."""
    found: set[Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.inputs
    return found


def _node(layer: Any, inputs: tuple[Node, ...], output: Any, depth: int) -> Node:
    shape = tuple(output.shape[1:])
    if len(shape) != 4 or not inputs or any(node.shape[0] is None for node in inputs) or shape[0] is None:
        raise Planar3DError(
            f"Layer {layer.name} ({type(layer).__name__}) gives {tuple(output.shape)}, not (batch, depth, rows, cols, "
            "channels) of known depth; use method='windowed'."
        )
    if _joins(layer):
        # What is joined twice is joined once: the first result need not be kept for the second.
        inputs = tuple(leaf for source in inputs for leaf in (source.inputs if _joins(source.layer) else (source,)))
    per_entry = depth // shape[0] if depth % shape[0] == 0 else None
    # One value for all slices joins them, as the weights of squeeze and excitation do.
    spread = len({node.length for node in inputs}) > 1
    return Node(layer, inputs, shape, Reach(whole=True) if spread else reach_of(layer, inputs[0].length), per_entry)


def _joins(layer: Any) -> bool:
    return isinstance(layer, layers.Concatenate) and _acts_on_channels(layer)


def reach_of(layer: Any, length: int) -> Reach:
    """A layer's reach along depth, for inputs of `length` slices; `whole` where it is not known."""
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return Reach(whole=True)
    if isinstance(layer, _WITHIN_SLICES) or _acts_on_channels(layer):
        return Reach()
    if isinstance(layer, layers.UpSampling3D):
        return Reach(extent=layer.size[0], up=layer.size[0])
    if isinstance(layer, layers.Conv3DTranspose):
        return _transposed(layer)
    if isinstance(layer, layers.Conv3D):
        extent = (layer.kernel_size[0] - 1) * layer.dilation_rate[0] + 1
        reach = _sliding(extent, layer.strides[0], layer.padding, length)
        # Keras would pad a stretch of a window otherwise than the window.
        return Reach(whole=True) if reach.stride > 1 and (reach.before or reach.after) else reach
    if isinstance(layer, (layers.MaxPooling3D, layers.AveragePooling3D)):
        reach = _sliding(layer.pool_size[0], layer.strides[0], layer.padding, length)
        # What a pooling pads is left out of the maximum or mean, so zeros would not do.
        return Reach(whole=True) if reach.before or reach.after else reach
    return Reach(whole=True)


def _acts_on_channels(layer: Any) -> bool:
    axis = getattr(layer, "axis", None)
    axes: Sequence[int] = axis if isinstance(axis, (list, tuple)) else [axis]  # type: ignore[list-item]
    return isinstance(layer, _ALONG_CHANNELS) and all(a in (-1, 4) for a in axes)


def _sliding(extent: int, stride: int, padding: str, length: int) -> Reach:
    if padding == "valid":
        return Reach(extent, stride)
    before, after = same_padding(length, extent, stride)
    return Reach(extent, stride, before=before, after=after)


def _transposed(layer: layers.Conv3DTranspose) -> Reach:
    kernel, stride = layer.kernel_size[0], layer.strides[0]
    # Where neighbouring inputs share an output, or none reaches it, whole windows are computed.
    if kernel != stride or layer.dilation_rate[0] != 1 or layer.output_padding is not None:
        return Reach(whole=True)
    return Reach(extent=kernel, up=stride)
