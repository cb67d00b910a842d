"""Loading named arrays into a network, with a report of matched, missing and unused weights."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from planar3d.errors import WeightsError, path_of
from planar3d.transfer import weight_places
from planar3d.transfer.digests import identify, vgg16_arrays
from planar3d.transfer.known_files import INPUTS, KnownFile, recognize
from planar3d.transfer.mappings import Tap
from planar3d.transfer.rehearsal import digest_of, read_arrays, rehearse
from planar3d.transfer.weight_places import CONVERT_FIRST, Origin, Weight
from planar3d.wording import counted, listed

if TYPE_CHECKING:
    import keras


_SEPARABLE = ("/depthwise_kernel", "/pointwise_kernel")


@dataclass(frozen=True)
class Report:
    """The result of a transplantation."""

    matched: tuple[Weight, ...]  # weights of the network that were loaded, with their shapes in the network
    missing: tuple[Weight, ...]  # weights of the network that are not among the arrays; they are unchanged
    unused: tuple[Weight, ...]  # arrays that match no weight of the network
    identity: str  # the network that the arrays come from, if recognized by digest
    file: str | None = None  # the file of the arrays, if any
    known: KnownFile | None = None  # the entry of that file in the table of known files, by digest

    def __str__(self) -> str:
        start = f"{self.file}: " if self.file else ""
        recognizable = any(weight.name in vgg16_arrays() for weight in self.matched)
        whose = f"; VGG-16 convolutions: {self.identity}" if recognizable else ""
        lines = [f"{start}{counted(self.matched, 'weight')} matched{whose}"]
        if self.known:
            lines.append(f"from {self.known.origin}; licence: {self.known.licence}; expects {INPUTS[self.known.input]}")
        if self.missing:
            lines.append(f"{len(self.missing)} missing, left unchanged: {listed(self.missing)}")
        if self.unused:
            lines.append(f"{len(self.unused)} unused: {listed(self.unused)}")
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
    """Load arrays into a network's weights of the same names; on an error no weight is changed.

    Arrays of the same shape are loaded unchanged. In a network that `convert` made, 2D weights are mapped as in the
    conversion. In other networks a 2D kernel for a 3D layer is mapped: planar if the layer's kernel is one slice deep,
    and with `mapping` if it is deeper.

    Args:
        network: a built Keras network.
        arrays: by `layer/weight`; `layer/0`, `layer/1`, … count a layer's weights in its own order.
        mapping: mapping of 2D kernels to kernels deeper than one slice, as in `map_kernel`; a converted network uses
            the mapping of its conversion.
        tap, alpha: for the mappings `"zero"` and `"scale"`, as in `map_kernel`.
        strict: whether a weight of the network that is missing in the arrays is an error.

    Returns:
        The report of matched, missing and unused weights with their shapes.

    Raises:
        WeightsError: nothing matched, a shape does not fit, or with `strict` something is missing.
    """
    from planar3d.graph.keras_graph import check_model

    check_model(network)
    if not isinstance(arrays, Mapping):
        raise WeightsError(
            f"A dictionary of arrays by name is needed; got {type(arrays).__name__}. load_weights reads a file."
        )
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    used: set[str] = set()
    filled, missing = [], []
    places = weight_places.places_of(network)
    for place in places:
        found = place.found_in(arrays)
        if found is not None:
            filled.append((place, weight_places.fitted_to(arrays[found], place, network.name, mapping, tap, alpha)))
            used.add(found)
        elif place.origin != Origin():
            missing.append(place.weight)
    unused = tuple(Weight(name, np.shape(array)) for name, array in arrays.items() if name not in used)
    if missing and unused and weight_places.differ_in_numbers([place.weight.name for place in places], list(arrays)):
        raise WeightsError(
            f"Layers of {network.name} have no names, and Keras numbered them differently in the file: the network has "
            f"{missing[0].name}, the file {unused[0].name}. Nothing was loaded. Load the file with Keras' own "
            "load_weights into the network that it was saved from, and convert that network if it is 2D; or name the "
            "layers."
        )
    weight_places.check_numbered(used, arrays, places, network.name)
    if not filled:
        raise WeightsError(
            f"Nothing matched: the weights of {network.name} are {listed(missing)}; the arrays are "
            f"{listed(unused)}. Layers are matched by name; choose weights of this network."
        )
    halves = [weight for weight in unused if weight.name.endswith(_SEPARABLE)]
    if halves and any(len(weight.shape) == 5 for weight in missing):
        raise WeightsError(f"{network.name} has no place for {listed(halves)}. {CONVERT_FIRST}")
    if strict and missing:
        others = f" and, under other names, {listed(unused)}" if unused else ""
        raise WeightsError(
            f"{network.name} lacks {counted(missing, 'weight')}: {listed(missing)}. The file has only {len(filled)} "
            f"of its weights{others}; choose weights of the whole network."
        )
    for place, array in filled:
        with np.errstate(over="ignore"):
            held = array.astype(place.precision)
        if not np.isfinite(held).all():
            raise WeightsError(
                f"{place.weight.name} has values that are not finite in {place.variable.dtype}, the precision of "
                f"{network.name}. Nothing was loaded; build the network in another precision, or choose other weights."
            )
    for place, array in filled:
        place.variable.assign(array)
    _finish(network)
    return Report(tuple(place.weight for place, _ in filled), tuple(missing), unused, identify(arrays))


def load_weights(
    network: "keras.Model", file: str | os.PathLike[str], strict: bool = False, *, mapping: str = "planar"
) -> Report:
    """Load a weights file into a network by layer name, as for the released files.

    Args:
        network, strict, mapping: as in `transplant`.
        file: `.h5` of Keras 2 or 3, weights only or a whole model, `.weights.h5`, `.keras`, `.npz` or `.onnx`, or the
            name of a published model.

    Returns:
        The report of matched, missing and unused weights, whether VGG-16 convolutions are ImageNet's, and, for a known
        file, its origin and the input that it expects.

    Raises:
        WeightsError: the file cannot be read, or as in `transplant`.
    """
    return fill_from(file, lambda arrays: transplant(network, arrays, mapping=mapping, strict=strict))


def fill_from(file: str | os.PathLike[str], fill: Callable[[dict[str, np.ndarray]], Report]) -> Report:
    """Load a file's arrays into a network; the report and errors name the file."""
    path_of(file, "A weights file", WeightsError)
    try:
        report = fill(read_arrays(file))
    except WeightsError as error:
        named = str(file) in str(error)
        raise error if named else WeightsError(f"{os.fspath(file)}: {error}") from error
    path = Path(file)
    known = recognize(path, digest_of(path.absolute(), rehearse(path))) if path.is_file() else None
    return replace(report, file=os.fspath(file), known=known)


def _finish(network: "keras.Model") -> None:
    """Update constants that layers derive from their weights, and retrace functions that use these."""
    import keras

    from planar3d.graph.keras_graph import layers_within

    normalizations = layers_within(network, keras.layers.Normalization)
    for layer in normalizations:
        layer.finalize_state()
    if normalizations:
        network.train_function = network.test_function = network.predict_function = None
