"""The zeros that Keras puts around what convolutions and poolings take, axis by axis, as TensorFlow has them."""

from collections.abc import Sequence
from typing import Any

from planar3d.errors import Planar3DError

Range = tuple[int, int]  # before and behind, or from and to


def same_padding(length: int, extent: int, stride: int) -> Range:
    """Zeros before and behind an axis of so many entries under `padding="same"`; what is odd comes behind.

    Args:
        length: entries of the axis.
        extent: entries that a kernel spans, its dilation included.
        stride: entries from one place of the kernel to the next.
    """
    return halves(max((-(-length // stride) - 1) * stride + extent - length, 0))


def layer_padding(
    name: str, layer: Any, extents: Sequence[int], dilations: Sequence[int], lengths: Sequence[int | None]
) -> list[Range]:
    """Zeros before and behind each axis of what a convolution or pooling takes.

    Args:
        name: of the layer, for the error.
        layer: gives padding and strides.
        extents, dilations: of its kernel or pool.
        lengths: entries of each axis, None where they are open.

    Raises:
        Planar3DError: an open axis whose padding depends on its length.
    """
    pads = []
    for extent, dilation, stride, length in zip(extents, dilations, layer.strides, lengths, strict=True):
        reach = (extent - 1) * dilation + 1
        if layer.padding == "valid":
            pads.append((0, 0))
        elif length is None and stride > 1:
            raise Planar3DError(
                f"Layer {name} pads an axis of unknown length at stride {stride}; build the network with known sizes."
            )
        else:
            # At stride 1 the length does not matter.
            pads.append(same_padding(length or reach, reach, stride))
    return pads


def transposed_padding(extent: int, stride: int, padding: str) -> tuple[Range, int]:
    """What a transposed convolution cuts off before and behind an axis, and the zeros that it adds behind.

    `"same"` gives input · stride entries; `"valid"` all that the kernel reaches, and at least as many.
    """
    surplus = extent - stride
    return halves(max(surplus, 0) if padding == "same" else 0), max(-surplus, 0)


def halves(total: int) -> Range:
    """A number in two parts, the larger behind."""
    return total // 2, total - total // 2
