"""A network as a graph of layers, each with its reach along depth: the input slices that an output slice needs.

It is read from the network's description, so that any functional network can be computed slice by slice, whatever its
names, levels and widths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from planar3d.errors import Planar3DError
from planar3d.graph.description import Description, Layer
from planar3d.graph.layers import reach_of
from planar3d.graph.reach import Range, Reach

DEPTH = 1  # axis of slices in (batch, depth, rows, cols, channels)


@dataclass(eq=False, repr=False)
class Node:
    """One layer, or a part of one, at its place in the network."""

    layer: Layer | None  # the layer computed, fully or partly; None for the network's input
    inputs: tuple["Node", ...]  # the nodes of its inputs
    shape: tuple[Any, ...]  # (slices, rows, cols, channels) of its output in a window; rows and cols may be None
    reach: Reach  # along depth
    # Number of the window's slices per entry of its depth axis; None if not whole.
    slices_per_entry: int | None
    # `"layer"`: the whole layer. For a convolution also `"part"`: the result of some input channels, before the
    # activation; `"shift"`: such a part moved along depth, with zeros around; and `"sum"`: all parts and the
    # activation.
    role: str = "layer"
    biased: bool = False  # whether a `"part"` adds the bias
    channels: Range | None = None  # from and to: the input channels of a `"part"`
    tap: int | None = None  # the kernel's depth tap of a `"part"`; None for all taps

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer.name if self.layer is not None else "input"

    @property
    def kind(self) -> str:
        """The layer's kind."""
        return self.layer.kind if self.layer is not None else "input"

    @property
    def length(self) -> int:
        """Number of entries along depth in a window."""
        return self.shape[0]

    @property
    def kernel(self) -> Any:
        """The channels and the tap of the layer's kernel in a `"part"`."""
        assert self.layer is not None and self.channels is not None
        first, end = self.channels
        of_all = self.layer.kernel
        # In transposed convolutions, the input channels are last.
        kernel = of_all[..., first:end] if self.layer.kind == "Conv3DTranspose" else of_all[..., first:end, :]
        return kernel if self.tap is None else kernel[self.tap : self.tap + 1]


def read_graph(network: Description) -> list[Node]:
    """Read a network as nodes, each after its inputs; the first is the input, the last the output.

    Args:
        network: with one input (batch, depth, rows, cols, channels) of known depth and one output of as many slices.

    Raises:
        Planar3DError: it is not such a network.
    """
    inputs, outputs = network.inputs, network.output_shapes
    if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0]) != 5 or len(outputs[0]) != 5:
        raise Planar3DError(
            f"{network.name} takes {list(inputs)} and gives {outputs}; one input and one output (batch, depth, rows, "
            "cols, channels) are needed."
        )
    depth = inputs[0][DEPTH]
    if depth is None or outputs[0][DEPTH] != depth:
        raise Planar3DError(
            f"{network.name} has {depth} slices at its input and {outputs[0][DEPTH]} at its output; both must have the "
            "same known number."
        )
    source = Node(None, (), tuple(inputs[0][1:]), Reach(), 1)
    order = network.follow([source], lambda layer, taken: _node(layer, tuple(taken), depth))
    needed = ancestors([order[network.outputs[0]]])
    return [node for node in order if node in needed]


def ancestors(nodes: Sequence[Node]) -> set[Node]:
    """The nodes and all their ancestors."""
    found: set[Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.inputs
    return found


def _node(layer: Layer, inputs: tuple[Node, ...], depth: int) -> Node:
    shape = layer.shape[1:]
    if len(shape) != 4 or not inputs or any(node.shape[0] is None for node in inputs) or shape[0] is None:
        raise Planar3DError(
            f"Layer {layer.name} ({layer.kind}) gives {layer.shape}, not (batch, depth, rows, cols, channels) with "
            "known depth; use method='windowed'."
        )
    if _joins(layer):
        # Nested concatenations become one, so that the inner result is not kept.
        inputs = tuple(leaf for source in inputs for leaf in (source.inputs if _joins(source.layer) else (source,)))
    # One value for all slices combines them, as in squeeze and excitation.
    spread = len({node.length for node in inputs}) > 1
    reach = Reach(whole=True) if spread else reach_of(layer, inputs[0].length)
    # Windows cannot share the entries of a pooling that leaves slices over: those of the next window lie elsewhere.
    apart = {(node.slices_per_entry or 0) * reach.stride for node in inputs}
    per_entry = depth // shape[0] if apart == {depth / shape[0] * reach.up} and depth % shape[0] == 0 else None
    return Node(layer, inputs, shape, reach, per_entry)


def _joins(layer: Layer | None) -> bool:
    return layer is not None and layer.kind == "Concatenate" and not reach_of(layer, 1).whole
