"""Networks with convolutions in 8-bit integers: the greatest value of each input that a convolution rounds."""

from collections.abc import Mapping
from dataclasses import replace

from planar3d.graph.description import Description, Layer

_GREATEST = "greatest"  # a setting of the layer with that output


def in_int8(network: Description, greatest: Mapping[str, float]) -> Description:
    """A network whose convolutions round inputs and kernels to 8 bits, where a layer's greatest output is known.

    Args:
        greatest: by the name of the layer, whose output has no negative values; larger ones are cut off.
    """
    return replace(network, layers=tuple(_with(layer, greatest.get(layer.name)) for layer in network.layers))


def greatest_of(layer: Layer | None) -> float | None:
    """The greatest output of a layer in int8; None in floating point."""
    return None if layer is None else layer.settings.get(_GREATEST)


def _with(layer: Layer, greatest: float | None) -> Layer:
    return layer if greatest is None else replace(layer, settings={**layer.settings, _GREATEST: greatest})
