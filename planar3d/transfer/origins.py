"""Origins of a converted network's weights: the name of each 2D weight, and its mapping."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


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


def path_within(layer: Any, variable: Any) -> str:
    """The name of a layer's weight, starting with the layer's name: `block1_conv1/kernel`."""
    *around, name = variable.path.split("/")
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
