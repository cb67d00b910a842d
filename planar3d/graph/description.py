"""A network described in plain values: its layers in order with inputs, settings and arrays.

It is made from a Keras graph (`graph/keras_graph.py`) or read from JSON. Plans, operation counts and the operators of
other runtimes use only the description.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Shape = tuple[int | None, ...]
_GREATEST = "greatest"  # a setting of a layer whose output convolutions in int8 round


@dataclass(frozen=True, eq=False, repr=False)
class Layer:
    """A layer at one place of a network; its settings and arrays are also attributes, as in Keras."""

    # Its class in Keras, with the prefix `ops.` for an operation; for a custom class its name, with the prefix `own `
    # if Keras has a class of that name.
    kind: str
    name: str  # in the network, `model/layer` within a nested network
    inputs: tuple[int, ...] = ()  # its inputs, by number: the network's inputs, then the layers' outputs, in order
    shape: Shape = ()  # of its output, in Keras' order of axes, the batch first
    # Numbers, texts and tuples of these, by attribute name.
    settings: Mapping[str, Any] = field(default_factory=dict)
    # By name in the layer: NumPy arrays, or variables of Keras.
    arrays: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        own = vars(self)  # empty while a copy or a pickled layer is made
        for held in () if name.startswith("_") else (own.get("settings", {}), own.get("arrays", {})):
            if name in held:
                return held[name]
        raise AttributeError(f"Layer {own.get('name')} ({own.get('kind')}) has no {name}.")


@dataclass(frozen=True, eq=False)
class Description:
    """A network as its layers, each after its inputs."""

    name: str  # of the network
    inputs: tuple[Shape, ...]  # shapes of its inputs, batch first
    layers: tuple[Layer, ...]  # in order
    outputs: tuple[int, ...]  # its outputs, by number as for a layer's inputs

    @property
    def output_shapes(self) -> list[Shape]:
        """The shapes of its outputs."""
        shapes = [*self.inputs, *(layer.shape for layer in self.layers)]
        return [shapes[number] for number in self.outputs]

    def follow(self, given: Sequence[Any], visit: Callable[[Layer, list[Any]], Any]) -> list[Any]:
        """The values of the inputs, as given, then of the layers; `visit` takes a layer and its inputs' values."""
        values = list(given)
        for layer in self.layers:
            values.append(visit(layer, [values[number] for number in layer.inputs]))
        return values


def in_int8(network: Description, greatest: Mapping[str, float]) -> Description:
    """A network whose convolutions round inputs and kernels to 8 bits, where a layer's greatest output is known.

    It is given by the layer's name, for outputs without negative values; larger ones are cut off.
    """
    noted = {name: {_GREATEST: value} for name, value in greatest.items()}
    layers = (replace(layer, settings={**layer.settings, **noted.get(layer.name, {})}) for layer in network.layers)
    return replace(network, layers=tuple(layers))


def greatest_of(layer: Layer | None) -> float | None:
    """The greatest output of a layer in int8; None in floating point."""
    return None if layer is None else layer.settings.get(_GREATEST)
