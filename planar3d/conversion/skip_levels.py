"""The skip levels of a network, found in its graph: what a U-Net takes from its encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import keras
from keras import layers, tree

from planar3d.conversion.resolution import Reduction, as_graph, is_graph, nodes_of, reduction_behind
from planar3d.errors import ConversionError

# A size that every usual number of levels divides, for axes of unknown size.
_PROBED = 256
# What only changes the borders of a level is none of its features.
_BORDERS = (layers.ZeroPadding3D, layers.Cropping3D)


@dataclass(frozen=True)
class _Entry:
    """A tensor of a network, how far its rows and columns are reduced, and the tensors it is made of, by number."""

    tensor: Any
    reduction: Reduction
    sources: tuple[int, ...]
    operation: Any = None


def features(model3d: keras.Model, name: str | None = None) -> keras.Model:
    """The skip levels of a network: at each resolution the last tensor of which all that is coarser is made.

    Where branches leave no such tensor (as in NASNet's cells), it is the last one of that resolution. Tensors that
    are padded or cropped, and those pooled to a single place, do not count; of a network with a decoder, only what
    leads to the coarsest resolution does.

    Args:
        model3d: a functional network of volumes with one input; models nested in it are looked into.
        name: of the model that is returned; the network's name with `_features` if None.

    Returns:
        A model that shares the network's layers, from its input to the levels, finest first; the last one is the
        coarsest. Its outputs' names are those of the layers that they come from.

    Raises:
        ConversionError: the network is not functional, or has no single volume as input.
    """
    network = as_graph(model3d)
    if len(network.inputs) != 1 or len(network.inputs[0].shape) != 5:
        raise ConversionError(
            f"{network.name} takes {[tuple(t.shape) for t in network.inputs]}; a single volume (batch, depth, rows, "
            "cols, channels) is needed to find its levels."
        )
    source = network.inputs[0]
    entries = [_Entry(source, Fraction(1), ())]
    _read(network, {id(source): 0}, entries)
    coarsest = max(entry.reduction for entry in entries if entry.reduction is not None)
    last = max(number for number, entry in enumerate(entries) if entry.reduction == coarsest)
    encoder = _ancestors(entries, last)
    cuts = _cuts(entries, encoder)
    levels = []
    for reduction in sorted({r for number in encoder if (r := entries[number].reduction) is not None}):
        here = [
            number
            for number in encoder
            if entries[number].reduction == reduction and not isinstance(entries[number].operation, _BORDERS)
        ]
        levels.append(entries[max([number for number in here if number in cuts] or here)].tensor)
    return keras.Model(source, levels, name=name or f"{network.name}_features")


def up_factors(levels: keras.Model) -> list[tuple[int, int, int]]:
    """By how much a decoder multiplies the three axes from each level to the next finer one, coarsest first.

    Args:
        levels: as `features` gives it.

    Raises:
        ConversionError: a level's sizes are no multiples of those of the next coarser one.
    """
    source = levels.inputs[0].shape
    probed = levels.compute_output_shape((1, *(size or _PROBED for size in source[1:4]), source[4]))
    factors = []
    for (finer, coarser), tensor in zip(pairwise([s[1:4] for s in probed]), levels.outputs, strict=False):
        if any(fine % coarse for fine, coarse in zip(finer, coarser, strict=True)):
            raise ConversionError(
                f"{levels.name} is {finer} at {tensor._keras_history.operation.name} and {coarser} at the next coarser "
                "level, which is no whole part of it. Choose sizes that all levels divide, or an encoder that pads its "
                "convolutions."
            )
        depth, rows, cols = (fine // coarse for fine, coarse in zip(finer, coarser, strict=True))
        factors.append((depth, rows, cols))
    return factors[::-1]


def _read(network: keras.Model, known: dict[int, int], entries: list[_Entry]) -> None:
    """Append the tensors of a network, in order; known maps its tensors to their numbers.

    Layers of nested networks are applied again, since their own tensors hang on other inputs.
    """
    for node in nodes_of(network):
        if any(id(tensor) not in known for tensor in node.input_tensors):
            continue
        sources = tuple(known[id(tensor)] for tensor in node.input_tensors)
        operation = node.operation
        if isinstance(operation, keras.Model) and is_graph(operation):
            inner = as_graph(operation)
            within = dict(zip(map(id, inner.inputs), sources, strict=True))
            _read(inner, within, entries)
            known.update((id(t), within[id(o)]) for t, o in zip(node.outputs, inner.outputs, strict=True))
            continue
        taken = {id(tensor): entries[known[id(tensor)]].tensor for tensor in node.input_tensors}
        outputs = node.outputs
        if any(taken[id(tensor)] is not tensor for tensor in node.input_tensors):
            args, kwargs = node.arguments.fill_in(taken)
            outputs = tree.flatten(operation(*args, **kwargs))
        for flat, tensor in zip(node.outputs, outputs, strict=True):
            known[id(flat)] = len(entries)
            reduction = reduction_behind(operation, [entries[number].reduction for number in sources], tensor)
            entries.append(_Entry(tensor, reduction, sources, operation))


def _ancestors(entries: Sequence[_Entry], last: int) -> list[int]:
    """An entry and all that it is made of, in order."""
    needed = {last}
    for number in range(last, -1, -1):
        if number in needed:
            needed.update(entries[number].sources)
    return sorted(needed)


def _cuts(entries: Sequence[_Entry], among: Sequence[int]) -> set[int]:
    """Entries that all later ones depend on and that alone join them to the earlier ones."""
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
