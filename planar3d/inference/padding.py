"""The zeros that Keras puts around what convolutions and poolings take, axis by axis, as TensorFlow has them."""

Range = tuple[int, int]  # before and behind, or from and to


def same_padding(length: int, extent: int, stride: int) -> Range:
    """Zeros before and behind an axis of so many entries under `padding="same"`; what is odd comes behind.

    Args:
        length: entries of the axis.
        extent: entries that a kernel spans, its dilation included.
        stride: entries from one place of the kernel to the next.
    """
    return halves(max((-(-length // stride) - 1) * stride + extent - length, 0))


def transposed_padding(extent: int, stride: int, padding: str) -> tuple[Range, int]:
    """What a transposed convolution cuts off before and behind an axis, and the zeros that it adds behind.

    `"same"` gives input · stride entries; `"valid"` all that the kernel reaches, and at least as many.
    """
    surplus = extent - stride
    return halves(max(surplus, 0) if padding == "same" else 0), max(-surplus, 0)


def halves(total: int) -> Range:
    """A number in two parts, the larger behind."""
    return total // 2, total - total // 2
