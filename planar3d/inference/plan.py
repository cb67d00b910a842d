"""The slices of each layer that a scan needs: computed once where windows agree, trimmed where they differ.

Overlapping windows repeat computations as long as no layer combines slices beyond their own group: blocks 1-4 of the
planar res-u-net, for windows that start at multiples of 8. After that, the composition keeps only a stretch of each
window, and each layer computes only the inputs of that stretch. Both follow from the layers' reach along depth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from planar3d.errors import Planar3DError
from planar3d.graph.depth_graph import Node, ancestors, read_graph, split
from planar3d.graph.description import Description
from planar3d.graph.reach import Range
from planar3d.recipes import Recipe
from planar3d.scans.windows import window_starts
from planar3d.wording import counted

StretchShape = tuple[int, ...]  # entries along depth, rows, cols, channels


@dataclass(frozen=True)
class Piece:
    """Layers computed together, each on a stretch of its entries along depth."""

    # Inputs: nodes, and entries from and to. One node may be given in several stretches.
    inputs: tuple[tuple[Node, Range], ...]
    nodes: dict[Node, Range]  # nodes to compute, in order, and the entries from and to
    outputs: tuple[Node, ...]  # requested nodes
    features: bool  # whether the outputs are inputs of other pieces; otherwise they are the network's

    def holding(self, node: Node, wanted: Range | None = None) -> Range:
        """The available entries of a node with the needed ones: all computed, or a given stretch."""
        given = [ends for source, ends in self.inputs if source is node]
        return self.nodes.get(node) or (wanted if wanted in given else given[0])

    def macs(self) -> int:
        """Multiply-accumulates of its convolutions."""
        return sum(_macs(node, end - first) for node, (first, end) in self.nodes.items())


@dataclass(frozen=True)
class Plan:
    """The computation of a scan."""

    depth: int  # of the windows
    stride: int  # also the slices computed at a time in the shared part, as entries of shared nodes divide it
    shared: Piece  # from these slices of the scan to its outputs, the frontier: the nodes that windows use
    # From these to the kept slices of a window (Kolarik 2020, eq. 1): for the `"first"`, a `"middle"` and the `"last"`
    # window, and `"whole"` for a single window.
    windows: dict[str, Piece]

    def reached(self, piece: Piece) -> int:
        """The slices from a window's start that must be computed before the window."""
        return max(end * per_entry(node) for node, (_, end) in piece.inputs)

    def oldest(self, node: Node, piece: Piece) -> int:
        """The first entry of a frontier node used by the piece of a window, counted from the window's start."""
        return min((first for taken, (first, _) in piece.inputs if taken is node), default=0)

    def capacity(self, node: Node) -> int:
        """Entries of a frontier node in memory at once: those of a window and of the next stride."""
        reached = max(self.reached(piece) for piece in self.windows.values())
        window, added = -(-reached // self.stride) * self.stride // per_entry(node), self.stride // per_entry(node)
        return max(window, window - self.oldest(node, self.windows["middle"]) + added)

    def macs(self, windows: int) -> int:
        """Multiply-accumulates of a scan with this number of windows, for a network of known sizes."""
        strides = windows - 1 + -(-self.depth // self.stride)
        return strides * self.shared.macs() + sum(piece.macs() for piece in self.pieces(windows))

    def pieces(self, windows: int) -> list[Piece]:
        """The pieces for this number of windows, one per window."""
        names = ["first", *["middle"] * (windows - 2), "last"] if windows > 1 else ["whole"]
        return [self.windows[name] for name in names]


def make_plan(network: Description, stride: int, exact: bool = True) -> Plan:
    """Plan the computation of a scan by a network in windows of its depth.

    Args:
        network: (1, depth, rows, cols, channels) to (1, depth, rows, cols, …).
        stride: slices from one window to the next.
        exact: keep every layer's arithmetic. Otherwise, convolutions over shared and unshared channels are split into
            a shared and an unshared sum; results then differ by rounding.

    Raises:
        Planar3DError: windows of this network share nothing, or its graph cannot be read.
    """
    graph = read_graph(network)
    depth = graph[0].length
    shared = _shared(graph, stride)
    if shared == {graph[0]}:
        first = next(node for node in graph[1:] if graph[0] in node.inputs)
        raise Planar3DError(
            f"Windows of {network.name} at stride {stride} share nothing: {first.name} ({first.kind}), "
            "at its input, already combines slices that no other window has. Use method='windowed'."
        )
    if not exact:
        graph = split(graph, shared)
        shared = _shared(graph, stride)
    output = graph[-1]
    margin = (depth - stride) // 2
    end = depth - margin
    kept = {"first": (0, end), "middle": (margin, end), "last": (margin, depth), "whole": (0, depth)}
    demanded = {stretch: _demand(graph, shared, output, stretch) for stretch in kept.values()}
    frontier = tuple(node for node in graph if node in shared and node in demanded[kept["whole"]])
    needed = ancestors(frontier)
    whole = {node: (0, stride // per_entry(node)) for node in graph[1:] if node in needed}
    # Windows with equal kept slices use one piece.
    pieces = {stretch: _piece(graph, shared, ranges, output) for stretch, ranges in demanded.items()}
    once = Piece(inputs=((graph[0], (0, stride)),), nodes=whole, outputs=frontier, features=True)
    return Plan(depth, stride, once, {name: pieces[stretch] for name, stretch in kept.items()})


def why_apart(recipe: Recipe) -> str:
    """Why the tiles of a recipe cannot share computations; empty if they can."""
    if recipe.tiles.shape[1:] != (0, 0) or recipe.tiles.overlap != "crop":
        return f"the recipe {recipe.name} has tiles of {recipe.tiles.shape}, composed by {recipe.tiles.overlap!r}"
    outputs = recipe.targets.outputs
    return "" if outputs == 1 else f"the recipe {recipe.name} has {counted(outputs, 'output')}"


def describe_work(network: Description, recipe: Recipe) -> str:
    """A sentence on the cost of a scan of the recipe's size with shared computations; empty if windows share none."""
    if why_apart(recipe):
        return ""
    windows = len(window_starts(recipe.slices, recipe.tiles.depth, recipe.tiles.stride))
    try:
        exact, apart = (2e-12 * make_plan(network, recipe.tiles.stride, exact).macs(windows) for exact in (True, False))
    except Planar3DError:
        return ""
    return (
        f"With shared computations done once: {exact:.3g} TFLOP bit for bit, {apart:.3g} TFLOP with convolutions split "
        "into shared and unshared sums."
    )


def per_entry(node: Node) -> int:
    """Slices per entry of a shared node."""
    assert node.slices_per_entry is not None
    return node.slices_per_entry


def _shared(graph: Sequence[Node], stride: int) -> set[Node]:
    """Nodes whose entries are the same in every window that contains them."""
    shared = {graph[0]}
    for node in graph[1:]:
        starts_line_up = node.slices_per_entry is not None and stride % node.slices_per_entry == 0
        if node.reach.aligned and starts_line_up and all(source in shared for source in node.inputs):
            shared.add(node)
    return shared


def _demand(graph: Sequence[Node], shared: set[Node], output: Node, kept: Range) -> dict[Node, Range]:
    """The entries of each node that a window's kept slices depend on, back to the shared ones."""
    ranges = {output: kept}
    for node in reversed(graph):
        if node in shared:
            continue
        if node.reach.whole:
            ranges[node] = (0, node.length)
        for source in node.inputs:
            first, end = node.reach.needs(*ranges[node], source.length)
            before = ranges.get(source, (first, end))
            ranges[source] = min(first, before[0]), max(end, before[1])
    return ranges


def _piece(graph: Sequence[Node], shared: set[Node], ranges: dict[Node, Range], output: Node) -> Piece:
    nodes = {node: ranges[node] for node in graph if node not in shared}
    given = [(s, n.reach.needs(*nodes[n], s.length)) for n in nodes for s in n.inputs if s in shared]
    inputs = dict.fromkeys(given or [(output, ranges[output])])  # a shared output is given whole
    return Piece(inputs=tuple(inputs), nodes=nodes, outputs=(output,), features=False)


def _macs(node: Node, entries: int) -> int:
    """Multiply-accumulates of a number of a node's entries: kernel elements times positions."""
    if node.kernel is None or node.role in ("sum", "shift"):
        return 0
    _, rows, cols, _ = node.inputs[0].shape if node.kind == "Conv3DTranspose" else node.shape
    return int(rows * cols * (entries / node.reach.up) * math.prod(node.kernel.shape))
