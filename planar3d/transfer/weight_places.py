"""The weights of a network: `layer/weight`, the possible names of each in a file, and the fitting of arrays to them."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from planar3d.errors import WeightsError
from planar3d.transfer.guards import NUMBERS
from planar3d.transfer.mappings import MAPPINGS, Tap, map_kernel
from planar3d.wording import counted

if TYPE_CHECKING:
    import keras

CONVERT_FIRST = (
    "A converted network that was saved and loaded, or cloned, no longer knows how its weights derive from 2D weights; "
    "load them into the 2D network, and convert that."
)

# Names of variables that their layer gave no name, numbered over all networks.
AUTOMATIC = re.compile(r"variable(_\d+)?", re.IGNORECASE)
# Keras' quantized layers have these, and scales beside them.
_QUANTIZED = ("int8", "uint8")


@dataclass(frozen=True)
class Origin:
    """The 2D weight from which a weight of a converted network was derived.

    It is an attribute of the variable, `weight_of_2d`, so that models built from parts of the network have it too.
    """

    # Name of the 2D weight, nested models first; empty for a weight created by the conversion.
    path: str = ""
    shape: tuple[int, ...] = ()  # of the 2D weight
    change: Callable[[np.ndarray], np.ndarray] | None = None  # from the 2D weight's values to the 3D weight's
    mapping: str = ""  # of a kernel, in short form: `planar`, `average 3`


class Weight(NamedTuple):
    """A weight by its name, `layer/weight`, and shape."""

    name: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.shape}"


class WeightPlace(NamedTuple):
    """A variable of the network with its possible names in a file.

    In a converted network it also has the names of its 2D weight.
    """

    variable: "keras.Variable"
    own: tuple[str, ...]
    flat: tuple[str, ...]
    origin: Origin | None

    @property
    def weight(self) -> Weight:
        """Its own name and shape."""
        return Weight(self.own[0], tuple(self.variable.shape))

    @property
    def precision(self) -> str:
        """The type in which its values are kept, as in conversions."""
        return self.variable.dtype if self.variable.dtype in ("float16", "float64") else "float32"

    def found_in(self, arrays: Mapping[str, np.ndarray]) -> str | None:
        """The array for it: with its own name and shape, or its 2D weight's; else one with only its name."""
        shapes = [(name, self.weight.shape) for name in self.own]
        if self.origin:
            shapes += [(name, self.origin.shape) for name in self.flat]
        there = [(name, shape) for name, shape in shapes if name in arrays]
        return next((name for name, shape in there if np.shape(arrays[name]) == shape), there[0][0] if there else None)


def places_of(network: "keras.Model") -> list[WeightPlace]:
    """Each variable of a network, in order."""
    variables = network.weights
    # None if no conversion in this process created the variable.
    origins: list[Origin | None] = [getattr(variable, "weight_of_2d", None) for variable in variables]
    own = weight_paths(network)
    flat = [origin.path if origin else path for origin, path in zip(origins, own, strict=True)]  # of a new one, none
    return list(map(WeightPlace, variables, _names(own), _names(flat), origins))


def check_numbered(used: Iterable[str], arrays: Iterable[str], places: Iterable[WeightPlace], network: str) -> None:
    """Refuse a layer's arrays without names if it has another number of weights: 0 is gamma or, without scale, beta."""

    def by_layer(names: Iterable[str]) -> Counter[str]:
        return Counter(name.rpartition("/")[0] for name in names)

    places = list(places)
    given, *held = map(by_layer, (arrays, [place.own[1] for place in places], [place.flat[1] for place in places]))
    for layer, _, name in (each.rpartition("/") for each in used):
        if name.isdecimal() and given[layer] not in (each[layer] for each in held):
            raise WeightsError(
                f"{layer} has {counted(given[layer], 'weight')} without names, but {network} needs "
                f"{held[0][layer] or held[1][layer]}, so which is which is unknown. Nothing was loaded; choose weights "
                "of this network."
            )


def _names(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """The names of each weight: `layer/weight`, `layer/number`, and that with the outermost layer, if it is unique.

    Keras 2 gives weights within `TimeDistributed` or a nested network of one layer the name of what is around it.
    """
    counts: defaultdict[str, int] = defaultdict(int)
    short = short_names(paths)
    outer = [f"{path.partition('/')[0]}/{path.rpartition('/')[2]}" for path in paths]
    seen = Counter([*short, *outer])
    names = []
    for name, around in zip(short, outer, strict=True):
        layer = name.rpartition("/")[0]
        names.append((name, f"{layer}/{counts[layer]}", *([around] if seen[around] == 1 else [])))
        counts[layer] += 1
    return names


def short_names(paths: Iterable[str]) -> list[str]:
    """Shorten paths of weights to `layer/weight`; those that are then ambiguous keep their whole path.

    >>> short_names(["vgg16/block1_conv1/kernel", "a/query/kernel", "b/query/kernel"])
    ['block1_conv1/kernel', 'a/query/kernel', 'b/query/kernel']
    """
    paths = list(paths)
    tails = ["/".join(path.split("/")[-2:]) for path in paths]
    seen = Counter(tails)
    return [tail if seen[tail] == 1 else path for path, tail in zip(paths, tails, strict=True)]


def differ_in_numbers(here: Sequence[str], there: Sequence[str]) -> bool:
    """Whether names of weights, `layer/weight`, differ only in the numbers of layers that Keras named."""
    from keras import layers

    from planar3d.transfer.keras3_layout import snake_case

    kinds, other = set(map(snake_case, vars(layers))), set(here) ^ set(there)
    unnamed = all(_unnumbered(name.rpartition("/")[0].rpartition("/")[2]) in kinds for name in other)
    return bool(other) and unnamed and sorted(map(_unnumbered, here)) == sorted(map(_unnumbered, there))


def _unnumbered(name: str) -> str:
    return re.sub(r"_\d+(?=/|$)", "", name)


def path_within(layer: Any, variable: Any) -> str:
    """The name of a layer's weight, starting with the layer's name: `block1_conv1/kernel`."""
    *around, name = variable.path.split("/")
    if AUTOMATIC.fullmatch(name):
        name = next((held for held, value in vars(layer).items() if value is variable), name)
    if layer.name not in around:
        # A layer in a wrapper has its own name; a layer renamed after building has its new name.
        return f"{layer.name}/{variable.path}" if hasattr(layer, "layer") else f"{layer.name}/{name}"
    last = len(around) - 1 - around[::-1].index(layer.name)
    return "/".join([*around[last:], name])


def weight_paths(network: "keras.Model") -> list[str]:
    """The names of a network's weights, in order, with the names of nested models in front.

    Keras' own paths omit nested functional models, so two of them may have weights with the same path.
    """
    import keras

    found: dict[int, str] = {}

    def look(model: Any, prefix: str) -> None:
        for layer in model.layers:
            if isinstance(layer, keras.Model):
                look(layer, f"{prefix}{layer.name}/")
            for variable in layer.weights:
                found.setdefault(id(variable), prefix + path_within(layer, variable))

    look(network, "")
    return [found.get(id(variable), variable.path) for variable in network.weights]


def _or_build(found: tuple[int, ...], needed: tuple[int, ...]) -> str:
    """Advice for a kernel that differs only in its number of channels."""
    for axis, whose in ((-2, "input"), (-1, "output")):
        if len(found) > 1 and np.delete(found, axis).tolist() == np.delete(needed[-len(found) :], axis).tolist():
            return f", or build it with {counted(found[axis], f'{whose} channel')} in this layer"
    return ""


def fitted_to(
    array: np.ndarray, place: WeightPlace, network: str, mapping: str, tap: Tap, alpha: Sequence[float] | None
) -> np.ndarray:
    """An array of the variable's own shape, or a 2D weight for it, as its values; a `WeightsError` if it is neither."""
    (name, shape), origin = place.weight, place.origin
    if (str(array.dtype) in _QUANTIZED) != (place.variable.dtype in _QUANTIZED):
        raise WeightsError(
            f"{name} has {array.dtype} values, but {network} needs {place.variable.dtype}. Quantized values have no "
            "meaning without their scales, so nothing was loaded; load floating-point weights, and quantize afterwards."
        )
    if array.dtype.kind not in f"{NUMBERS}V" or array.dtype.type is np.void:  # V is also bfloat16's kind
        raise WeightsError(f"{name} has {array.dtype} values, so nothing was loaded; give an array of real numbers.")
    if array.shape == shape:
        return array
    if origin and origin.change and array.shape == origin.shape:
        made_by = origin.mapping.partition(" ")[0]
        if made_by in MAPPINGS and made_by != "planar" and mapping not in ("planar", made_by):
            raise WeightsError(
                f"{name}: {network} was converted with the mapping {made_by!r}, not {mapping!r}; omit the mapping, "
                "or convert the 2D network again."
            )
        return origin.change(array.astype(place.precision))
    axes = [axis for axis in (0, 1, 2) if not origin and array.shape == (*shape[:axis], *shape[axis + 1 :])]
    if array.ndim != 4 or not axes:
        raise WeightsError(
            f"{name} has the shape {array.shape}, but {network} needs {shape}"
            + (f" or the 2D kernel {origin.shape if origin else shape[1:]}" if len(shape) == 5 else "")
            + f". Nothing was loaded; choose weights of this network{_or_build(array.shape, shape)}."
            + (f" {CONVERT_FIRST}" if array.ndim == 4 and len(shape) == 5 and not origin else "")
        )
    axis = next((axis for axis in axes if shape[axis] == 1), axes[0])
    array = array if array.dtype.kind == "f" else array.astype(place.precision)
    if shape[axis] == 1:
        return map_kernel(array, axis=axis)
    try:
        return map_kernel(array, mapping, shape[axis], axis, tap=tap, alpha=alpha)
    except ValueError as error:
        raise WeightsError(f"{name}: a 2D kernel cannot fill {shape} of {network}. {error}") from error
