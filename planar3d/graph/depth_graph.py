"""A network read as a graph of layers, each with its reach along depth: which slices of its input a slice needs.

Read from the network's description, so that any functional network can be computed slice by slice, whatever its names,
levels and widths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from planar3d.errors import Planar3DError
from planar3d.graph.description import Description, Layer
from planar3d.graph.layers import reach_of
from planar3d.graph.padding import Range
from planar3d.graph.reach import Reach

DEPTH = 1  # axis of slices in (batch, depth, rows, cols, channels)


@dataclass(eq=False, repr=False)
class Node:
    """One layer, or a part of one, in its place in the network."""

    layer: Layer | None  # what is computed, or is computed in part; None for the network's input
    inputs: tuple["Node", ...]  # the nodes that it takes
    shape: tuple[Any, ...]  # (slices, rows, cols, channels) of its output in a window; rows and cols may be None
    reach: Reach  # along depth
    # How many of the window's slices an entry of its depth axis stands for; None if not whole.
    slices_per_entry: int | None
    # `"layer"`, the whole of it; or of a convolution `"part"`, what some of its input channels give, before the
    # activation; `"shift"`, such a part moved along depth, zeros where nothing is; and `"sum"`, all parts and the
    # activation.
    role: str = "layer"
    biased: bool = False  # whether a `"part"` is the one that carries the bias
    channels: Range | None = None  # from and to, the input channels of a `"part"`
    tap: int | None = None  # the depth tap of the kernel that a `"part"` is alone; None for all of them

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
        """Entries along depth in a window."""
        return self.shape[0]

    @property
    def kernel(self) -> Any:
        """The channels and the tap of the layer's kernel that a `"part"` is."""
        assert self.layer is not None and self.channels is not None
        first, end = self.channels
        of_all = self.layer.kernel
        # Of transposed convolutions the channels taken stand last.
        kernel = of_all[..., first:end] if self.layer.kind == "Conv3DTranspose" else of_all[..., first:end, :]
        return kernel if self.tap is None else kernel[self.tap : self.tap + 1]


def read_graph(network: Description) -> list[Node]:
    """Read a network as nodes, each behind its inputs; the first is the input, the last the output.

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
    """The nodes, and all that they are computed from."""
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
        # What is joined twice is joined once: the first result need not be kept for the second.
        inputs = tuple(leaf for source in inputs for leaf in (source.inputs if _joins(source.layer) else (source,)))
    per_entry = depth // shape[0] if depth % shape[0] == 0 else None
    # One value for all slices joins them, as the weights of squeeze and excitation do.
    spread = len({node.length for node in inputs}) > 1
    return Node(layer, inputs, shape, Reach(whole=True) if spread else reach_of(layer, inputs[0].length), per_entry)


def _joins(layer: Layer | None) -> bool:
    return layer is not None and layer.kind == "Concatenate" and not reach_of(layer, 1).whole
