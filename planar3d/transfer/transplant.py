"""A network filled from named arrays, and the report of what went where."""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from planar3d.errors import WeightsError
from planar3d.transfer.arrays import read_arrays
from planar3d.transfer.digests import identify, vgg16_digests
from planar3d.transfer.known_files import INPUTS, KnownFile, recognize
from planar3d.transfer.mappings import Tap, map_kernel
from planar3d.transfer.naming import short_names

if TYPE_CHECKING:
    import keras

_SHOWN = 6


class Weight(NamedTuple):
    """A weight by its name, `layer/weight`, and shape."""

    name: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.shape}"


@dataclass(frozen=True)
class Report:
    """What a transplantation did.

    Attributes:
        matched: weights of the network that were filled, with their shapes there.
        missing: weights of the network that the arrays do not have, and that stay as they were.
        unused: arrays that the network has no place for.
        identity: whose VGG-16 convolutions the arrays hold, by digest.
        file: the file they came from, if any.
        known: what is known of that file, by its digest.
    """

    matched: tuple[Weight, ...]
    missing: tuple[Weight, ...]
    unused: tuple[Weight, ...]
    identity: str
    file: str | None = None
    known: KnownFile | None = None

    def __str__(self) -> str:
        start = f"{self.file}: " if self.file else ""
        has_vgg16 = not vgg16_digests().keys().isdisjoint(weight.name for weight in self.matched)
        whose = f"; VGG-16 convolutions: {self.identity}" if has_vgg16 else ""
        lines = [f"{start}{len(self.matched)} weights matched{whose}"]
        if self.known:
            lines.append(f"from {self.known.origin}; licence: {self.known.licence}; expects {INPUTS[self.known.input]}")
        if self.missing:
            lines.append(f"{len(self.missing)} missing, left as they were: {_listed(self.missing)}")
        if self.unused:
            lines.append(f"{len(self.unused)} unused: {_listed(self.unused)}")
        return "\n".join(lines)


def transplant(
    network: "keras.Model",
    arrays: Mapping[str, np.ndarray],
    *,
    mapping: str = "planar",
    tap: Tap = "center",
    alpha: Sequence[float] | None = None,
    strict: bool = False,
) -> Report:
    """Fill a network's weights from arrays of the same names, all of them or, on an error, none.

    Arrays of the same shape are loaded as they are. A 2D kernel for a 3D layer is mapped: as a plane where the layer's
    kernel is one slice deep, and by `mapping` where it is deeper.

    Args:
        network: a built Keras network.
        arrays: by `layer/weight`; `layer/0`, `layer/1`, … count a layer's weights in its own order.
        mapping: how 2D kernels fill kernels deeper than one slice, as in `map_kernel`.
        tap: for the mapping `"zero"`, as in `map_kernel`.
        alpha: for the mapping `"scale"`, as in `map_kernel`.
        strict: whether a weight of the network that is missing in the arrays is an error.

    Returns:
        The report of matched, missing and unused weights with their shapes.

    Raises:
        WeightsError: nothing matched, a shape does not fit, or with `strict` something is missing.
    """
    places = _places(network)
    used: set[str] = set()
    filled, matched, missing = [], [], []
    for names, variable in places:
        place = Weight(names[0], tuple(variable.shape))
        found = next((name for name in names if name in arrays), None)
        if found is None:
            missing.append(place)
            continue
        filled.append((variable, _fitted(arrays[found], place, network.name, mapping, tap, alpha)))
        matched.append(place)
        used.add(found)
    unused = tuple(Weight(name, np.shape(array)) for name, array in arrays.items() if name not in used)
    if not matched:
        raise WeightsError(
            f"Nothing matched: {network.name} has {_listed(missing) or 'no weights'}, the arrays are "
            f"{_listed(unused) or 'none'}. Layers are filled by name; choose weights of this network."
        )
    if strict and missing:
        raise WeightsError(
            f"{len(missing)} weights of {network.name} are missing: {_listed(missing)}. "
            f"Only {len(matched)} were found; choose weights of the whole network."
        )
    for variable, array in filled:
        variable.assign(array)
    return Report(tuple(matched), tuple(missing), unused, identify(arrays))


def load_weights(
    network: "keras.Model", file: str | os.PathLike[str], strict: bool = False, *, mapping: str = "planar"
) -> Report:
    """Fill a network from a weights file by layer name, as the released files are loaded.

    Args:
        network: a built Keras network.
        file: `.h5` of Keras 2 or 3, weights only or a whole model, `.weights.h5`, `.keras`, `.npz` or `.onnx`, or the
            name of a published model.
        strict: whether a weight of the network that is missing in the file is an error.
        mapping: how 2D kernels fill kernels deeper than one slice.

    Returns:
        The report of matched, missing and unused weights, whether the VGG-16 convolutions are ImageNet's, and, of a
        file that is known, where it comes from and what it expects to see.

    Raises:
        WeightsError: the file cannot be read, nothing matched, a shape does not fit, or with `strict` something is
            missing.
    """
    return fill_from(file, lambda arrays: transplant(network, arrays, mapping=mapping, strict=strict))


def fill_from(file: str | os.PathLike[str], fill: Callable[[dict[str, np.ndarray]], Report]) -> Report:
    """Fill a network with what a file holds; the report says which file that is, and errors name it."""
    try:
        report = fill(read_arrays(file))
    except WeightsError as error:
        named = str(file) in str(error)
        raise error if named else WeightsError(f"{os.fspath(file)}: {error}") from error
    return replace(report, file=os.fspath(file), known=recognize(file) if Path(file).is_file() else None)


def _places(network: "keras.Model") -> list[tuple[tuple[str, str], "keras.Variable"]]:
    """Each variable of the network with the two names it may have in a file: by its weight's name, and by number."""
    variables = network.weights
    counts: defaultdict[str, int] = defaultdict(int)
    places = []
    for name, variable in zip(short_names(variable.path for variable in variables), variables, strict=True):
        layer = name.rpartition("/")[0]
        places.append(((name, f"{layer}/{counts[layer]}"), variable))
        counts[layer] += 1
    return places


def _fitted(
    array: np.ndarray, place: Weight, network: str, mapping: str, tap: Tap, alpha: Sequence[float] | None
) -> np.ndarray:
    if array.shape == place.shape:
        return array
    if array.ndim != 4 or array.shape != place.shape[1:]:
        raise WeightsError(
            f"{place.name} has the shape {array.shape}, and {network} needs {place.shape}"
            + (f" or the 2D kernel {place.shape[1:]}" if len(place.shape) == 5 else "")
            + ". Nothing was loaded; choose weights of this network."
        )
    depth = place.shape[0]
    if depth == 1:
        return map_kernel(array)
    try:
        return map_kernel(array, mapping, depth, tap=tap, alpha=alpha)
    except ValueError as error:
        raise WeightsError(f"{place.name}: a 2D kernel cannot fill {place.shape} of {network}. {error}") from error


def _listed(weights: Sequence[Weight]) -> str:
    more = f", and {len(weights) - _SHOWN} more" if len(weights) > _SHOWN else ""
    return ", ".join(map(str, weights[:_SHOWN])) + more
