"""Measuring the greatest values that convolutions in 8-bit integers keep of their inputs."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from planar3d.graph.description import Description
from planar3d.inference.tiled import description_of, on_openvino

if TYPE_CHECKING:
    import keras

_SAMPLE = 200_000  # values of a layer's output in a window
_SHARES = np.geomspace(0.05, 1, 60)  # of the greatest value, tried


def measure_greatest(network: "keras.Model | Description", windows: Sequence[np.ndarray]) -> dict[str, float]:
    """Measure the greatest values for `precision="int8"` on windows of scans, as a model card states them in `int8`.

    For each layer whose output a Conv3D takes, the value is chosen that loses least, in squares, by rounding to 8 bits
    and cutting off what is larger. Layers with negative outputs are left out: their convolutions stay in floating
    point.

    Args:
        network: itself or its description, with one input and one output (batch, depth, rows, cols, channels).
        windows: float32 (1, depth, rows, cols, channels), of scans that it was trained on, as it takes them.

    Returns:
        By layer name.
    """
    found, network = defaultdict[str, list[float]](list), description_of(network)
    for number in sorted(_taken(network)):
        compute, _ = on_openvino(replace(network, outputs=(number,)), "float32")
        values = np.concatenate([_sample(compute(window)) for window in windows])
        greatest = _least_loss(values) if values.min() >= 0 < values.max() else 0.0
        found[network.layers[number - len(network.inputs)].name].append(greatest)
    # A layer that is used several times has one value.
    return {name: max(uses) for name, uses in found.items() if all(uses)}


def _taken(network: Description) -> set[int]:
    """The numbers of the values that convolutions take, alone or concatenated with others."""
    inputs = len(network.inputs)

    def parts(number: int) -> Iterable[int]:
        layer = network.layers[number - inputs]
        yield number
        if layer.kind == "Concatenate":
            for part in layer.inputs:
                if part >= inputs:
                    yield from parts(part)

    taken = {number for layer in network.layers if layer.kind == "Conv3D" for number in layer.inputs}
    return {part for number in taken if number >= inputs for part in parts(number)}


def _sample(output: np.ndarray) -> np.ndarray:
    """Some values of an output, with its least and greatest."""
    chosen = np.random.default_rng(0).integers(0, output.size, _SAMPLE)
    return np.append(output.ravel()[chosen], [output.min(), output.max()])


def _least_loss(values: np.ndarray) -> float:
    def loss(greatest: float) -> float:
        step = greatest / 255
        return float(np.mean((np.clip(np.rint(values / step), 0, 255) * step - values) ** 2))

    return min((float(share * values.max()) for share in _SHARES), key=loss)
