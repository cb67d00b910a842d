"""What training, weights files and reports need to know of a network, beside the function that builds it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from planar3d.errors import RecipeError, WeightsError
from planar3d.scans.labels import Targets
from planar3d.sections import Section
from planar3d.transfer.weight_places import places_of

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class WeightSource:
    """Where the 2D weights of an encoder come from."""

    attribution: str  # whose its ImageNet weights are
    # From `"imagenet"` or a file to words on where that is; a `WeightsError` where it cannot be found.
    find: Callable[[str], str]

    def origin(self, weights: str) -> str:
        """Where the weights are that a recipe's `encoder_weights` asks for; they are looked for."""
        return "none (random)" if weights == "none" else self.find(weights)

    def credit(self, weights: str) -> str:
        """Whose they are."""
        known = {"none": "random initialization", "imagenet": self.attribution}
        return known.get(weights, f"{Path(weights).name}, whose licence is not stated")


def _nowhere(weights: str) -> str:
    raise WeightsError(f"The network starts from random weights, not from {weights}; set encoder_weights=none.")


_NO_SOURCE = WeightSource("random initialization", _nowhere)


def _none(of: Any) -> dict[str, Any]:
    return {}


def _no_features(arguments: Arguments) -> Mapping[str, int]:
    raise RecipeError("cached_features is not known to be exact for this network; set cached_features=none.")


@dataclass(frozen=True)
class Architecture:
    """A network that has a name.

    Attributes:
        build: from `input_shape` (depth, rows, cols, channels), `weights`, `encoder_weights` and arguments of its own
            to the network.
        arguments: from its settings and the targets in a recipe to its own arguments, JSON values; a `RecipeError`
            where they do not fit.
        divisors: what depth, rows and cols must be multiples of.
        groups: the names of its layers with weights, in groups that cover them all.
        head: the name of the layer that gives the output.
        source: of its encoder's weights; by default there are none.
        feature_levels: what of a frozen encoder may be computed once a scan: names of layers, and how many slices one
            entry of their depth axis stands for; a `RecipeError` where windows do not share an encoder's features.
        told: what of a recipe the arrays of a weights file tell, by field: of files that do not say it themselves.
    """

    build: Callable[..., keras.Model]
    arguments: Callable[[Any, Targets], dict[str, Any]]
    divisors: Callable[[Arguments], tuple[int, int, int]]
    groups: Callable[[keras.Model], dict[str, list[str]]]
    head: str
    source: Callable[[Arguments], WeightSource] = lambda arguments: _NO_SOURCE
    feature_levels: Callable[[Arguments], Mapping[str, int]] = _no_features
    told: Callable[[Mapping[str, np.ndarray]], dict[str, Any]] = _none


def own_arguments(settings: Section, targets: Targets, outputs: str = "outputs") -> dict[str, Any]:
    """A network's arguments: its settings but for the weights that it begins with, and the targets' output.

    Args:
        targets: give the channels of the output and its activation.
        outputs: the name of the argument that is the number of channels.
    """
    own = {name: value for name, value in settings.to_json().items() if name not in ("name", "encoder_weights")}
    return own | {outputs: targets.outputs, "activation": targets.activation}


def check_input_shape(input_shape: Sequence[int | None], divisors: Sequence[int], whose: str) -> None:
    """Raise a `ValueError` unless an input is (depth, rows, cols, channels), the first three as the divisors ask.

    Args:
        input_shape: sizes, or None where they are open.
        divisors: of depth, rows and cols.
    """
    if len(input_shape) != 4:
        raise ValueError(f"input_shape={tuple(input_shape)}: (depth, rows, cols, channels) is needed.")
    for axis, length, divisor in zip(("depth", "rows", "cols"), input_shape[:3], divisors, strict=True):
        if length is not None and (length <= 0 or length % divisor):
            raise ValueError(
                f"input_shape={tuple(input_shape)}: {axis} is {length}, but {whose} halves it level by level, so it "
                f"must be a multiple of {divisor}."
            )


def check_depth(input_shape: Sequence[int | None], least: int, most: int, whose: str) -> None:
    """Raise a `ValueError` unless the depth is known and one that a network squeezes to the slices that it needs."""
    depth = input_shape[0]
    if depth is None or not least <= depth <= most:
        allowed = f"{least} to {most}" if least < most else f"{most}"
        raise ValueError(f"input_shape={tuple(input_shape)}: with its factors {whose} takes {allowed} slices.")


def groups_by_prefix(beginnings: Mapping[str, str | tuple[str, ...]]) -> Callable[[keras.Model], dict[str, list[str]]]:
    """Groups of layers by how their names begin; all others are the encoder."""

    def groups(network: keras.Model) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {"encoder": [], **{group: [] for group in beginnings}}
        for name in layers_with_weights(network):
            group = next((group for group, beginning in beginnings.items() if name.startswith(beginning)), "encoder")
            found[group].append(name)
        return found

    return groups


def layers_with_weights(network: keras.Model) -> list[str]:
    """The names of a network's layers that have weights, in its order."""
    return [layer.name for layer in network.layers if layer.weights]


def weight_shapes(network: keras.Model) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's weights by `layer/weight`."""
    return dict(place.weight for place in places_of(network))
