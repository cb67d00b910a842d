"""The zero padding of convolutions and poolings in Keras, axis by axis, as in TensorFlow."""

from collections.abc import Sequence
from typing import Any

from planar3d.errors import Planar3DError

Range = tuple[int, int]  # before and after, or from and to


def same_padding(length: int, extent: int, stride: int) -> Range:
    """Zeros before and after an axis with `padding="same"`; an odd one is added after.

    Args:
        length: entries of the axis.
        extent: entries spanned by a kernel, including its dilation.
        stride: entries from one position of the kernel to the next.
    """
    return halves(max((-(-length // stride) - 1) * stride + extent - length, 0))


def extents_of(layer: Any) -> list[int]:
    """Entries of each axis spanned by a layer's kernel, including its dilation, or by its pool."""
    if hasattr(layer, "pool_size"):
        return [*layer.pool_size]
    return [(size - 1) * dilation + 1 for size, dilation in zip(layer.kernel_size, layer.dilation_rate, strict=True)]


def layer_padding(name: str, layer: Any, lengths: Sequence[int | None]) -> list[Range]:
    """Zeros before and after each axis of the input of a convolution or pooling.

    Args:
        name: of the layer, for the error.
        layer: with its padding and strides.
        lengths: entries of each axis, None if unknown.

    Raises:
        Planar3DError: the padding of an axis depends on its unknown length.
    """
    pads = []
    for extent, stride, length in zip(extents_of(layer), layer.strides, lengths, strict=True):
        if layer.padding == "valid":
            pads.append((0, 0))
        elif length is None and stride > 1:
            raise Planar3DError(
                f"Layer {name} pads an axis of unknown length at stride {stride}; build the network with known sizes."
            )
        else:
            # At stride 1 the length does not matter.
            pads.append(same_padding(length or extent, extent, stride))
    return pads


def transposed_padding(extent: int, stride: int, padding: str) -> tuple[Range, int]:
    """Entries that a transposed convolution crops before and after an axis, and zeros that it adds after.

    `"same"` gives input · stride entries; `"valid"` all entries that the kernel reaches, and at least as many.
    """
    surplus = extent - stride
    return halves(max(surplus, 0) if padding == "same" else 0), max(-surplus, 0)


def halves(total: int) -> Range:
    """A number in two halves, the larger second."""
    return total // 2, total - total // 2
