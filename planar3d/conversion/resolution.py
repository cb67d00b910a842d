"""The levels of a network: the reduction of rows and columns at each layer."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from math import prod
from typing import Any

import keras
import numpy as np
from keras import layers

from planar3d.errors import ConversionError
from planar3d.graph.keras_graph import as_graph, nodes_of, pass_through
from planar3d.sections import whole
from planar3d.wording import counted

Reduction = Fraction | None  # of rows and columns, relative to the input; None where they no longer exist

_GLOBAL = ("GlobalAveragePooling", "GlobalMaxPooling", "AdaptiveAveragePooling", "AdaptiveMaxPooling")
_GLOBAL_OPERATIONS = ("Mean", "Max", "Min", "Sum", "Amax", "Amin")
_TRANSPOSED = (layers.Conv2DTranspose, layers.Conv3DTranspose)


def uses_in(network: keras.Model, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each use of an operation in a network, nested ones as `model/layer`."""
    for node in nodes_of(network):
        operation = node.operation
        yield f"{prefix}{operation.name}", operation
        if isinstance(operation, keras.Model):
            yield from uses_in(as_graph(operation), f"{prefix}{operation.name}/")


def stride_of(operation: Any) -> Fraction:
    """The factor by which a layer divides rows and columns; less than 1 if it multiplies them."""
    operation = _of_slice(operation)
    if isinstance(operation, (layers.UpSampling2D, layers.UpSampling3D)):
        return 1 / Fraction(_in_plane(operation.size))
    strides = getattr(operation, "strides", None)
    if not isinstance(strides, (tuple, list)) or len(strides) < 2:
        return Fraction(1)
    stride = Fraction(_in_plane(strides))
    return 1 / stride if isinstance(operation, _TRANSPOSED) else stride


def reduction_behind(operation: Any, taken: Iterable[Reduction], output: Any, axes: int = 4) -> Reduction:
    """The reduction at an operation's output, from the reduction at its input.

    Tensors with fewer axes have no rows and columns.
    """
    known = [reduction for reduction in taken if reduction is not None]
    if not known or len(output.shape) < axes:
        return None
    name = type(_of_slice(operation)).__name__
    if name.startswith(_GLOBAL) or (name in _GLOBAL_OPERATIONS and output.shape[1:-1].count(1) >= 2):
        return None
    return max(known) * stride_of(operation)


def depth_factors(network: keras.Model, depth_pooling: str | Sequence[int]) -> tuple[dict[int, int], set[int]]:
    """The factor by which each resolution-changing use of a layer divides (or multiplies) depth, by the node's id.

    Args:
        depth_pooling: `"keep"`, by 1; `"match"`, as rows; or a list of factors, one for each level at which rows are
            reduced, finest first.

    Returns:
        The factors; and the nodes, by id, whose rows are reduced and whose depth may be too.

    Raises:
        ConversionError: the list has another length; or a layer with weights, or in a nested network, is used at levels
            with different factors.
    """
    spans: defaultdict[Any, set[tuple[Fraction, Fraction]]] = defaultdict(set)
    reduced: set[int] = set()

    def visit(name: str, node: Any, taken: list[Reduction]) -> list[Reduction]:
        stride = stride_of(node.operation)
        given = [reduction_behind(node.operation, taken, output, 3) for output in node.outputs]
        if given != [1]:
            reduced.add(id(node))
        if stride != 1 and given[0] is not None:
            before = given[0] / stride
            spans[node].add((min(before, given[0]), max(before, given[0])))  # the finer one first
        return given

    pass_through(network, [Fraction(1) if len(t.shape) == 4 else None for t in network.inputs], visit)
    if isinstance(depth_pooling, str) or not isinstance(depth_pooling, Sequence | np.ndarray):
        if depth_pooling not in ("keep", "match"):
            raise ConversionError(f"depth_pooling={depth_pooling!r}: 'keep', 'match' or a list of factors is needed.")
        if depth_pooling == "keep":
            return {}, set()
        strides = {node: stride_of(node.operation) for node in spans}
        return {id(node): int(max(stride, 1 / stride)) for node, stride in strides.items()}, reduced
    levels = sorted({fine for node, ends in spans.items() if stride_of(node.operation) > 1 for fine, _ in ends})
    factors = [whole("factor in depth_pooling", factor, 1, ConversionError) for factor in depth_pooling]
    if len(factors) != len(levels):
        told = "nowhere; omit depth_pooling"
        if levels:
            before = ", ".join(map(str, levels))
            told = (
                f"at {counted(levels, 'level')} (where they are already reduced by {before}), so a factor for each is "
                "needed"
            )
        raise ConversionError(f"depth_pooling={factors}: {network.name} reduces rows and columns {told}.")
    by_level = dict(zip(levels, factors, strict=True))
    found: dict[int, int] = {}
    of_layer: defaultdict[int, set[int]] = defaultdict(set)
    for node, ends in spans.items():
        layer = node.operation
        across = {prod(by_level[level] for level in levels if fine <= level < coarse) for fine, coarse in ends}
        of_layer[id(layer)] |= across
        if len(across) > 1 or (layer.weights and len(of_layer[id(layer)]) > 1):
            raise ConversionError(
                f"{layer.name} ({type(layer).__name__}) is used at levels that depth_pooling={factors} treats "
                "differently; give them the same factor."
            )
        found[id(node)] = across.pop()
    return found, reduced


def _of_slice(operation: Any) -> Any:
    """The layer that is applied to each slice, as bilinear upsampling is in converted networks, or the layer itself."""
    return operation.layer if isinstance(operation, layers.TimeDistributed) else operation


def _in_plane(sizes: Sequence[int]) -> int:
    # The second largest of two or three axes: rows and columns have equal strides, and depth has no larger one.
    return int(sorted(sizes)[-2])  # other libraries' converters give NumPy's integers
