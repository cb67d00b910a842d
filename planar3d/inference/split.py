"""Convolutions over shared and unshared channels of windows, split into two sums.

A convolution over concatenated features is the sum of the convolutions over each. The sum over encoder features, which
all windows share, is computed once per slice: in the planar res-u-net, two thirds of every level's first convolution.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from planar3d.graph.depth_graph import Node, ancestors
from planar3d.graph.description import Layer
from planar3d.graph.reach import Range, Reach


def split(graph: Sequence[Node], shared: set[Node]) -> list[Node]:
    """Rewrite a graph so that convolutions over shared and other channels become sums of separate convolutions.

    The graph is in order, the output last; the returned graph too, without unused nodes, and equal up to rounding.
    """
    graph_out: list[Node] = []
    new: dict[Node, Node] = {}

    def add(node: Node) -> Node:
        graph_out.append(node)
        return node

    for node in graph:
        inputs = tuple(new[source] for source in node.inputs)
        parts = _parts(node, shared) if node not in shared else []
        if not parts:
            new[node] = node if inputs == node.inputs else replace(node, inputs=inputs)
            add(new[node])
            continue
        terms = [term for part in parts for term in _terms(node, new, part, add)]
        new[node] = add(Node(node.layer, tuple(terms), node.shape, Reach(), node.slices_per_entry, role="sum"))
    needed = ancestors([graph_out[-1]])
    return [node for node in graph_out if node in needed]


@dataclass(frozen=True)
class _Part:
    """Adjacent inputs of a concatenation that are all shared or all unshared, and their channels."""

    sources: tuple[Node, ...]
    channels: Range
    shared: bool
    leads: bool = False  # the first unshared one, which adds the bias


def _parts(node: Node, shared: set[Node]) -> list[_Part]:
    """The parts of a convolution's input; none if it is not mixed or cannot be split."""
    layer = node.layer
    splits = node.kind in ("Conv3D", "Conv3DTranspose") and getattr(layer, "groups", 1) == 1
    if not splits or node.reach.whole or node.reach.stride > 1:
        return []
    parts: list[_Part] = []
    end = 0
    joined = node.inputs[0]
    if joined.kind != "Concatenate":
        return []
    for is_shared, adjacent in groupby(joined.inputs, shared.__contains__):
        sources = tuple(adjacent)
        first, end = end, end + sum(source.shape[-1] for source in sources)
        parts.append(_Part(sources, (first, end), is_shared))
    if len(parts) < 2:
        return []
    leading = next(part for part in parts if not part.shared)
    return [replace(part, leads=part is leading) for part in parts]


def _terms(node: Node, new: dict[Node, Node], part: _Part, add: Callable[[Node], Node]) -> list[Node]:
    layer: Any = node.layer
    sources = tuple(new[source] for source in part.sources)
    joined = sources[0]
    if len(sources) > 1:
        first = sources[0]
        channels = part.channels[1] - part.channels[0]
        beside = Layer("Concatenate", f"part of {layer.name}", settings={"axis": -1})
        joined = add(Node(beside, sources, (*first.shape[:3], channels), Reach(), first.slices_per_entry))
    if not part.shared or node.reach.aligned:
        whole = Node(
            layer,
            (joined,),
            node.shape,
            node.reach,
            node.slices_per_entry,
            role="part",
            biased=part.leads and bool(layer.use_bias),
            channels=part.channels,
        )
        return [add(whole)]
    # The ends of a window cut off taps, so each tap is shared separately, and windows shift it into place.
    shape = (joined.length, *node.shape[1:])
    terms = []
    for tap in range(layer.kernel_size[0]):
        alone = Node(
            layer,
            (joined,),
            shape,
            Reach(),
            joined.slices_per_entry,
            role="part",
            channels=part.channels,
            tap=tap,
        )
        add(alone)
        shift = tap * layer.dilation_rate[0] - node.reach.before
        reach = Reach(before=-shift, after=shift)
        moved = Node(layer, (alone,), node.shape, reach, node.slices_per_entry, role="shift")
        terms.append(add(moved) if shift else alone)
    return terms
