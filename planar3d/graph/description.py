"""A network described in plain values: its layers in order, what each takes, its settings, and its arrays beside it.

It is made of a Keras graph (`graph/keras_graph.py`) or read from JSON, and is all that plans, counts of work and the
operators of other runtimes know of a network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int | None, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Layer:
    """A layer where a network applies it; its settings and arrays are its attributes as well, as they are in Keras."""

    # Its class in Keras, `ops.` before that of an operation; of a class that computes in its own way the name, and
    # `own ` before one that Keras has too.
    kind: str
    name: str  # in the network, `model/layer` within a nested one
    inputs: tuple[int, ...] = ()  # what it takes, by number: the network's inputs, then what its layers give, in order
    shape: Shape = ()  # of its output, in Keras' order of axes, the batch first
    # Numbers, texts and tuples of them, by the attributes' names.
    settings: Mapping[str, Any] = field(default_factory=dict)
    # By their names in the layer: NumPy's, or the variables of Keras.
    arrays: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        for held in () if name.startswith("_") else (self.settings, self.arrays):
            if name in held:
                return held[name]
        raise AttributeError(f"Layer {self.name} ({self.kind}) has no {name}.")


@dataclass(frozen=True, eq=False)
class Description:
    """A network as its layers, each behind those that it takes."""

    name: str  # of the network
    inputs: tuple[Shape, ...]  # the shapes that it takes, the batch first
    layers: tuple[Layer, ...]  # in order
    outputs: tuple[int, ...]  # what it gives, by number as a layer's inputs

    @property
    def output_shapes(self) -> list[Shape]:
        """The shapes that it gives."""
        shapes = [*self.inputs, *(layer.shape for layer in self.layers)]
        return [shapes[number] for number in self.outputs]

    def follow(self, given: Sequence[Any], visit: Callable[[Layer, list[Any]], Any]) -> list[Any]:
        """Pass values of any kind through the network.

        Args:
            given: one for each input.
            visit: from a layer and the values that it takes to the one that it gives.

        Returns:
            The values of the inputs, then of the layers, in order.
        """
        values = list(given)
        for layer in self.layers:
            values.append(visit(layer, [values[number] for number in layer.inputs]))
        return values
