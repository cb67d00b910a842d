"""Where the weights of a converted network come from: each keeps the 2D weight's name and how it was made of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

_ATTRIBUTE = "weight_of_2d"


@dataclass(frozen=True)
class Origin:
    """The 2D weight that a weight of a converted network was made of."""

    # Of the 2D weight, the names of nested models first; empty for a weight that conversion made by itself.
    path: str = ""
    shape: tuple[int, ...] = ()  # of the 2D weight
    change: Callable[[np.ndarray], np.ndarray] | None = None  # from the 2D weight's values to the 3D weight's
    mapping: str = ""  # of a kernel, in a word or two: `planar`, `average 3`


def set_origin(variable: Any, origin: Origin) -> None:
    """Keep the origin with the variable, so that models made of parts of the network know it too."""
    setattr(variable, _ATTRIBUTE, origin)


def origin_of(variable: Any) -> Origin | None:
    """The origin of a variable, or None if conversion did not make it in this process."""
    return getattr(variable, _ATTRIBUTE, None)


def path_within(layer: Any, variable: Any) -> str:
    """The name of a layer's weight, from the layer's own name on: `block1_conv1/kernel`."""
    *around, name = variable.path.split("/")
    if layer.name not in around:
        # A layer within a wrapper has a name of its own; one that was renamed after it was built has the new one.
        return f"{layer.name}/{variable.path}" if hasattr(layer, "layer") else f"{layer.name}/{name}"
    last = len(around) - 1 - around[::-1].index(layer.name)
    return "/".join([*around[last:], name])


def weight_paths(network: "keras.Model") -> list[str]:
    """The name of each of a network's weights, in order, with the names of nested models before it.

    Keras' own paths leave out nested models that are functional, so two of them may hold weights of the same path.
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
