"""A network as a graph of layers, each with its reach along depth: the input slices that an output slice needs.

It is read from the network's description, so that any functional network can be computed slice by slice, whatever its
names, levels and widths.

A convolution over concatenated features is the sum of the convolutions over each. The sum over encoder features, which
all windows share, is computed once per slice: in the planar res-u-net, two thirds of every level's first convolution.
`split` rewrites a graph accordingly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
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
        """The layer's kernel, or its channels and tap in a `"part"`; None without one."""
        of_all: Any = getattr(self.layer, "kernel", None)
        if self.channels is None:
            return of_all
        first, end = self.channels
        # In transposed convolutions, the input channels are last.
        kernel = of_all[..., first:end] if self.kind == "Conv3DTranspose" else of_all[..., first:end, :]
        return kernel if self.tap is None else kernel[self.tap : self.tap + 1]


def read_graph(network: Description) -> list[Node]:
    """Read a network as nodes, each after its inputs; the first is the input, the last the output.

    Raises:
        Planar3DError: it has not one input (batch, depth, rows, cols, channels) of known depth, and one such output.
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
            f"The depth of {network.name} is {depth} at its input and {outputs[0][DEPTH]} at its output; both must be "
            "the same known number."
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


def split(graph: Sequence[Node], shared: set[Node]) -> list[Node]:
    """The graph with sums of separate convolutions over shared and other channels; it is equal up to rounding."""
    graph_out: list[Node] = []
    new: dict[Node, Node] = {}

    def add(node: Node) -> Node:
        graph_out.append(node)
        return node

    for node in graph:
        if parts := _parts(node, shared):
            terms = [term for part in parts for term in _terms(node, new, part, add)]
            new[node] = add(Node(node.layer, tuple(terms), node.shape, Reach(), node.slices_per_entry, role="sum"))
        else:
            inputs = tuple(new[source] for source in node.inputs)
            new[node] = add(node if inputs == node.inputs else replace(node, inputs=inputs))
    needed = ancestors([graph_out[-1]])
    return [node for node in graph_out if node in needed]


def _node(layer: Layer, inputs: tuple[Node, ...], depth: int) -> Node:
    shape = layer.shape[1:]
    if len(shape) != 4 or not inputs or shape[0] is None:
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
    """Whether a layer concatenates channels."""
    return layer is not None and layer.kind == "Concatenate" and not reach_of(layer, 1).whole


@dataclass(frozen=True)
class _Part:
    """Adjacent inputs of a concatenation that are all shared or all unshared, and their channels."""

    sources: tuple[Node, ...]
    channels: Range
    shared: bool
    leads: bool  # the first unshared one, which adds the bias


def _parts(node: Node, shared: set[Node]) -> list[_Part]:
    """The parts of a convolution's input; none if it is not mixed or cannot be split."""
    splits = node.kind in ("Conv3D", "Conv3DTranspose") and getattr(node.layer, "groups", 1) == 1
    if not splits or node.reach.whole or node.reach.stride > 1 or not _joins(node.inputs[0].layer):
        return []
    parts: list[_Part] = []
    end = 0
    for is_shared, adjacent in groupby(node.inputs[0].inputs, shared.__contains__):
        sources = tuple(adjacent)
        first, end = end, end + sum(source.shape[-1] for source in sources)
        leads = not is_shared and all(part.shared for part in parts)
        parts.append(_Part(sources, (first, end), is_shared, leads))
    return parts if len(parts) > 1 else []


def _terms(node: Node, new: dict[Node, Node], part: _Part, add: Callable[[Node], Node]) -> list[Node]:
    layer: Any = node.layer
    sources = tuple(new[source] for source in part.sources)
    joined = sources[0]
    if len(sources) > 1:
        shape = (*joined.shape[:3], part.channels[1] - part.channels[0])
        beside = Layer("Concatenate", f"part of {layer.name}", settings={"axis": -1})
        joined = add(Node(beside, sources, shape, Reach(), joined.slices_per_entry))
    made = partial(Node, layer, (joined,), role="part", channels=part.channels)
    if not part.shared or node.reach.aligned:
        biased = part.leads and bool(layer.use_bias)
        return [add(made(node.shape, node.reach, node.slices_per_entry, biased=biased))]
    # The ends of a window cut off taps, so each tap is shared separately, and windows shift it into place.
    terms = []
    for tap in range(layer.kernel_size[0]):
        alone = add(made((joined.length, *node.shape[1:]), Reach(), joined.slices_per_entry, tap=tap))
        shift = tap * layer.dilation_rate[0] - node.reach.before
        reach = Reach(before=-shift, after=shift)
        moved = Node(layer, (alone,), node.shape, reach, node.slices_per_entry, role="shift")
        terms.append(add(moved) if shift else alone)
    return terms
