"""The skip levels of a network, found in its graph: the encoder features that a U-Net uses."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import keras
from keras import layers

from planar3d.conversion.resolution import Reduction, reduction_behind
from planar3d.errors import ConversionError
from planar3d.graph.keras_graph import applied_again, as_graph, name_of, pass_through, unnested

# A size divisible by all usual level factors, for axes of unknown size.
_PROBED = 256
# Of the layers that `convert` puts around a layer applied to each slice.
_MOVING = re.compile(r"_(to|fro)(_\d+)?$")
# Layers that only change the borders of a level do not give its features.
_BORDERS = (layers.ZeroPadding3D, layers.Cropping3D)


@dataclass(frozen=True)
class _Entry:
    """A tensor of a network, the reduction of its rows and columns, and the numbers of its input tensors."""

    tensor: Any
    reduction: Reduction
    sources: tuple[int, ...]
    operation: Any = None
    is_moved: bool = False  # its depth was moved to the front, for a layer that is applied to each slice


def features(model3d: keras.Model, name: str | None = None) -> keras.Model:
    """The skip levels of a network: for each resolution the last tensor from which all coarser levels are computed.

    If branches leave no such tensor (as in NASNet's cells), it is the last tensor of that resolution. Padded or cropped
    tensors, and tensors pooled to a single voxel, do not count. In a network with a decoder, only the path to the
    coarsest resolution counts, without attention gates (Oktay 2018).

    Args:
        model3d: a functional 3D network with one input; nested models are searched too.
        name: name of the returned model; default: the network's name with `_features`.

    Returns:
        A model that shares the network's layers, from its input to the levels, finest first. Its outputs have the
        names of their layers.

    Raises:
        ConversionError: the network is not functional, does not have a single volume as input, or has nested layers
            of the same name.
    """
    network = as_graph(model3d)
    if len(network.inputs) != 1 or len(network.inputs[0].shape) != 5:
        raise ConversionError(
            f"{network.name} takes {[tuple(t.shape) for t in network.inputs]}; a single volume (batch, depth, rows, "
            "cols, channels) is needed to find its levels. Convert a network of images first, with planar3d.convert."
        )
    source = network.inputs[0]
    entries = _read(network, source)
    found = {n: reduction for n, entry in enumerate(entries) if (reduction := entry.reduction) and not entry.is_moved}
    coarsest = [number for number in found if found[number] == max(found.values())]
    gates = _gates(entries)
    last = max([number for number in coarsest if number not in gates] or coarsest)
    encoder = _ancestors(entries, last)
    cuts = _cuts(entries, encoder)
    levels = []
    inner = [n for n in encoder if n in found and not isinstance(entries[n].operation, _BORDERS)]
    for reduction in sorted({found[number] for number in inner}):
        here = [number for number in inner if found[number] == reduction]
        levels.append(entries[max([number for number in here if number in cuts] or here)].tensor)
    return unnested(source, levels, name or f"{network.name}_features")


def up_factors(levels: keras.Model) -> list[tuple[int, int, int]]:
    """The factors by which a decoder of `features` enlarges the three axes from level to level, coarsest first.

    A `ConversionError` if a level's sizes are not multiples of the next coarser level's sizes.
    """
    source = levels.inputs[0].shape
    probed = levels.compute_output_shape((1, *(size or _PROBED for size in source[1:4]), source[4]))
    factors = []
    for (finer, coarser), tensor in zip(pairwise([s[1:4] for s in probed]), levels.outputs, strict=False):
        if any(fine % coarse for fine, coarse in zip(finer, coarser, strict=True)):
            raise ConversionError(
                f"{levels.name} is {finer} at {name_of(tensor)} and {coarser} at the next coarser "
                "level, which does not divide it. Choose sizes that all levels divide, or an encoder with padded "
                "convolutions."
            )
        depth, rows, cols = (fine // coarse for fine, coarse in zip(finer, coarser, strict=True))
        factors.append((depth, rows, cols))
    return factors[::-1]


def _read(network: keras.Model, source: Any) -> list[_Entry]:
    """The tensors of a network, in order.

    Layers of nested networks are applied again, since their own tensors depend on other inputs.
    """
    entries = [_Entry(source, Fraction(1), ())]

    def visit(name: str, node: Any, sources: list[int]) -> range:
        taken = [entries[number] for number in sources]
        tensors = [entry.tensor for entry in taken]
        moving = isinstance(node.operation, layers.Permute) and _MOVING.search(name)
        is_own = all(tensor is own for tensor, own in zip(tensors, node.input_tensors, strict=True))
        for tensor in node.outputs if is_own else applied_again(node, tensors):
            reduction = reduction_behind(node.operation, [entry.reduction for entry in taken], tensor)
            is_moved = bool(moving[1] == "to" if moving else any(entry.is_moved for entry in taken))
            entries.append(_Entry(tensor, reduction, tuple(sources), node.operation, is_moved))
        return range(len(entries) - len(node.outputs), len(entries))

    pass_through(network, [0], visit)
    return entries


def _ancestors(entries: Sequence[_Entry], last: int) -> list[int]:
    needed = {last}
    for number in range(last, -1, -1):
        if number in needed:
            needed.update(entries[number].sources)
    return sorted(needed)


def _gates(entries: Sequence[_Entry]) -> set[int]:
    """Entries that are only used to multiply other tensors."""
    uses: dict[int, list[int]] = {number: [] for number in range(len(entries))}
    for number, entry in enumerate(entries):
        for source in entry.sources:
            uses[source].append(number)
    gates = set[int]()
    for number in reversed(uses):
        if uses[number] and all(n in gates or type(entries[n].operation).__name__ == "Multiply" for n in uses[number]):
            gates.add(number)
    return gates


def _cuts(entries: Sequence[_Entry], among: Sequence[int]) -> set[int]:
    """Entries that are the only connection from all earlier to all later entries."""
    last_use = {number: number for number in among}
    for number in among:
        for source in entries[number].sources:
            last_use[source] = number
    cuts, reached = set(), 0
    for number in among:
        if reached <= number:
            cuts.add(number)
        reached = max(reached, last_use[number])
    return cuts
