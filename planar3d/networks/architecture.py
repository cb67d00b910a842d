"""The properties of a network for training, weights files and reports, with the function that builds it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from planar3d.errors import RecipeError, WeightsError
from planar3d.graph.keras_graph import check_channels_last
from planar3d.scans.labels import Targets
from planar3d.sections import Section
from planar3d.transfer.metadata import CARD, read_metadata
from planar3d.transfer.published_models import published_models
from planar3d.transfer.weight_places import places_of

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class WeightSource:
    """The source of an encoder's 2D weights."""

    attribution: str  # attribution of its ImageNet weights
    # From `"imagenet"` or a file to a description of its location; a `WeightsError` if it is not found.
    find: Callable[[str], str]

    def origin(self, weights: str) -> str:
        """Find the weights of a recipe's `encoder_weights`, and describe their location."""
        found = "none (random)" if weights == "none" else self.find(weights)
        return f"the published model {weights}" if _licence(weights) else found

    def credit(self, weights: str) -> str:
        """Their attribution."""
        known = {"none": "random initialization", "imagenet": self.attribution}
        if licence := _licence(weights):
            return f"from the published model {weights} ({licence})"
        card = card_in(Path(weights))
        named = f"{card['name']}, {Path(weights).name}" if "name" in card else Path(weights).name
        return known.get(weights, f"{named}, whose licence is {card.get('licence', 'not stated')}")


def card_in(weights: Path) -> Mapping[str, Any]:
    """The model card of a network trained by planar3d; empty for other files."""
    return read_metadata(weights).get(CARD, {}) if weights.is_file() else {}


def _licence(weights: str) -> str:
    """The licence of a published model; empty for files, which go before a model of the same name."""
    model = None if Path(weights).is_file() else published_models().get(weights)
    return model.licence if model else ""


def _nowhere(weights: str) -> str:
    raise WeightsError(f"The network starts from random weights, not from {weights}; set encoder_weights=none.")


_NO_SOURCE = WeightSource("random initialization", _nowhere)


def _no_features(arguments: Arguments) -> Mapping[str, int]:
    raise RecipeError("cached_features is not known to be exact for this network; set cached_features=none.")


@dataclass(frozen=True)
class Architecture:
    """A named network."""

    # From `input_shape` (depth, rows, cols, channels), `weights`, `encoder_weights` and its own arguments.
    build: Callable[..., keras.Model]
    # From its settings and the targets in a recipe to its own arguments, as JSON values; a `RecipeError` if they do not
    # fit.
    arguments: Callable[[Any, Targets], dict[str, Any]]
    divisors: Callable[[Arguments], tuple[int, int, int]]  # of depth, rows and cols
    groups: Callable[[keras.Model], dict[str, list[str]]]  # names of all its layers with weights
    head: str  # the name of the output layer
    source: Callable[[Arguments], WeightSource] = lambda arguments: _NO_SOURCE  # of its encoder's weights
    # Layers of a frozen encoder whose features may be computed once per scan, with the slices per entry of their depth
    # axis; a `RecipeError` if windows do not share an encoder's features.
    feature_levels: Callable[[Arguments], Mapping[str, int]] = _no_features


def own_arguments(settings: Section, targets: Targets, outputs: str = "outputs") -> dict[str, Any]:
    """A network's arguments: its settings except initial weights, and the targets' activation and `outputs`."""
    own = {name: value for name, value in settings.to_json().items() if name not in ("name", "encoder_weights")}
    return own | {outputs: targets.outputs, "activation": targets.activation}


def check_input_shape(input_shape: Sequence[int | None], divisors: Sequence[int], whose: str) -> None:
    """Raise a `ValueError` unless an input is (depth, rows, cols, channels) of multiples of divisors, or None.

    Raises a `ConversionError` if Keras is set to channels first.
    """
    check_channels_last()
    _check_sizes(input_shape, ("depth", "rows", "cols"))
    for axis, length, divisor in zip(("depth", "rows", "cols"), input_shape[:3], divisors, strict=True):
        if length is not None and length % divisor:
            raise ValueError(
                f"input_shape={tuple(input_shape)}: {axis} is {length}, but {whose} halves it level by level, so it "
                f"must be a multiple of {divisor}."
            )


def image_input(input_shape: Sequence[int | None]) -> keras.KerasTensor:
    """The input of a network of images; a `ValueError` unless its shape is (rows, cols, channels).

    Raises a `ConversionError` if Keras is set to channels first.
    """
    check_channels_last()
    _check_sizes(input_shape, ("rows", "cols"))
    return keras.Input(input_shape, name="input")


def _check_sizes(input_shape: Sequence[int | None], axes: tuple[str, ...]) -> None:
    """Raise a `ValueError` unless the axes and the channels have sizes; those of the axes may be None."""
    sizes = input_shape if isinstance(input_shape, list | tuple) else ()
    are_whole = all(size is None or (isinstance(size, int | np.integer) and size > 0) for size in sizes)
    if len(sizes) != len(axes) + 1 or not are_whole or sizes[-1] is None:
        raise ValueError(f"input_shape={input_shape!r}: ({', '.join(axes)}, channels) is needed, of positive sizes.")


def check_depth(input_shape: Sequence[int | None], least: int, most: int, whose: str) -> None:
    """Raise a `ValueError` unless the depth is known and can be reduced to the slices that a network needs."""
    depth = input_shape[0]
    if depth is None or not least <= depth <= most:
        allowed = f"{least} to {most}" if least < most else f"{most}"
        raise ValueError(f"input_shape={tuple(input_shape)}: with its factors {whose} takes {allowed} slices.")


def groups_by_prefix(beginnings: Mapping[str, str | tuple[str, ...]]) -> Callable[[keras.Model], dict[str, list[str]]]:
    """Groups of layers by the prefix of their names; all others are the encoder."""

    def groups(network: keras.Model) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {"encoder": [], **{group: [] for group in beginnings}}
        for name in layers_with_weights(network):
            group = next((group for group, beginning in beginnings.items() if name.startswith(beginning)), "encoder")
            found[group].append(name)
        return found

    return groups


def layers_with_weights(network: keras.Model) -> list[str]:
    """The names of a network's layers with weights, in its order."""
    return [layer.name for layer in network.layers if layer.weights]


def weight_shapes(network: keras.Model) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's weights by `layer/weight`."""
    return dict(place.weight for place in places_of(network))
