"""What a layer needs of its input: zero padding of each axis as in TensorFlow, and the reach along depth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from planar3d.errors import Planar3DError
from planar3d.graph.description import Layer

Range = tuple[int, int]  # before and after, or from and to
_WHOLE_ROW = 16  # channels from which oneDNN reads only its input


@dataclass(frozen=True)
class Reach:
    """The reach of a layer: `extent` input slices per output slice, `stride` apart; or `up` outputs from each input."""

    extent: int = 1  # input slices from the first to the last that one output slice needs
    stride: int = 1  # input slices from one output slice to the next
    up: int = 1  # output slices for each input slice, of transposed convolutions and repetitions
    before: int = 0  # zero slices that the layer pads before a window; negative if it drops some
    after: int = 0  # the same after it
    whole: bool = False  # the reach is unknown: every output slice is assumed to need every input slice

    @property
    def aligned(self) -> bool:
        """Whether a slice of the output is the same in every window that contains it and starts at its multiple."""
        return not self.whole and self.before == self.after == 0 and self.extent <= max(self.stride, self.up)

    def needs(self, first: int, end: int, length: int) -> Range:
        """The input slices, from and to, that output slices `first` to `end` need, of `length` in all."""
        if self.whole:
            return 0, length
        if self.up > 1:
            return first // self.up, (end - 1) // self.up + 1
        low, high = self._spanned(first, end)
        low = min(max(low, 0), length)
        return low, max(min(high, length), low)

    def padding(self, first: int, end: int, length: int) -> Range:
        """Zero slices before and after the needed input slices."""
        low, high = self._spanned(first, end)
        return min(max(-low, 0), high - low), min(max(high - length, 0), high - low)

    def _spanned(self, first: int, end: int) -> Range:
        """The same, counted on into the zeros before the first input slice and after the last."""
        return first * self.stride - self.before, (end - 1) * self.stride - self.before + self.extent


def not_known(layer: Layer, length: int) -> Reach:
    """For an unknown layer: whole windows."""
    return Reach(whole=True)


def within_slices(layer: Layer, length: int) -> Reach:
    """For elementwise layers, and layers within channels."""
    return Reach()


def along_axes(layer: Layer, length: int) -> Reach:
    """For layers along one or several axes: within slices if these are the channels."""
    axes: Sequence[Any] = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    return Reach(whole=any(axis not in (-1, 4) for axis in axes))


def of_rescaling(layer: Layer, length: int) -> Reach:
    """For numbers, channels and maps that are the same on all slices, within slices; by slice, whole windows."""
    return Reach(whole=any(np.shape(value)[-4:-3] not in ((), (1,)) for value in (layer.scale, layer.offset)))


def of_slopes(layer: Layer, length: int) -> Reach:
    """For slopes that are the same on all slices, within slices."""
    return Reach(whole=layer.alpha.shape[:1] != (1,))


def of_repetition(layer: Layer, length: int) -> Reach:
    """For repeated slices."""
    return Reach(up=layer.size[0])


def of_convolution(layer: Layer, length: int) -> Reach:
    """For a convolution along depth."""
    reach = _sliding(layer, length)
    # Keras would pad a stretch of a window differently from the window.
    return Reach(whole=True) if reach.stride > 1 and reach.after else reach


def of_transposed(layer: Layer, length: int) -> Reach:
    """For a transposed convolution along depth."""
    kernel, stride = layer.kernel_size[0], layer.strides[0]
    # If neighbouring inputs share an output, or none reaches it, whole windows are computed.
    if kernel != stride or layer.dilation_rate[0] != 1 or layer.output_padding is not None:
        return Reach(whole=True)
    return Reach(up=stride)


def of_pooling(layer: Layer, length: int) -> Reach:
    """For a pooling along depth."""
    reach = _sliding(layer, length)
    # The padding of a pooling does not enter the maximum or mean, so zeros would be wrong.
    return Reach(whole=True) if reach.after else reach


def _sliding(layer: Layer, length: int) -> Reach:
    extent, stride = extents_of(layer)[0], layer.strides[0]
    before, after = (0, 0) if layer.padding == "valid" else same_padding(length, extent, stride)
    return Reach(extent, stride, before=before, after=after)


def same_padding(length: int, extent: int, stride: int) -> Range:
    """Zeros before and after an axis with `padding="same"`; an odd one is added after.

    The `extent` is that of the kernel, with its dilation.
    """
    return halves(max((-(-length // stride) - 1) * stride + extent - length, 0))


def extents_of(layer: Any) -> list[int]:
    """Entries of each axis spanned by a layer's kernel, including its dilation, or by its pool."""
    if hasattr(layer, "pool_size"):
        return [*layer.pool_size]
    return [(size - 1) * dilation + 1 for size, dilation in zip(layer.kernel_size, layer.dilation_rate, strict=True)]


def reads_beyond_slice(layer: Any, shape: Sequence[int | None]) -> bool:
    """Whether oneDNN, with AMX or AVX-512, gives wrong values of a 3D convolution in bf16, or ends the process.

    It reads beyond what the kernel slides over, of `shape`, if that is a single slice of few channels and the kernel
    is deeper.
    """
    return len(shape) == 5 and shape[1] == 1 and _sizes(layer)[0] > 1 and (shape[-1] or 0) < _WHOLE_ROW


def reads_beyond_image(layer: Any, shape: Sequence[int | None]) -> bool:
    """Whether oneDNN, with AVX-512, gives wrong gradients of a layer's kernel in bf16, or ends the process.

    It reads beyond what the kernel slides over, of `shape`: the input, or the output of a transposed convolution. The
    kernel must be deeper than several slices, or larger than the image and have a stride or be more than twice as
    large.
    """
    kernel, image = _sizes(layer), shape[1:-1]
    if len(kernel) == 3 and kernel[0] > (image[0] or kernel[0]) > 1:
        return True
    axes = list(zip(kernel, layer.strides, image, strict=True))[-2:]
    return any(size and length > size and (stride > 1 or length > 2 * size + 1) for length, stride, size in axes)


def _sizes(layer: Any) -> list[int]:
    """Entries of a kernel along each axis; those of an ACS convolution are a cube's."""
    flat = [*layer.kernel_size]
    return [max(flat)] * (len(layer.strides) - len(flat)) + flat


def layer_padding(name: str, layer: Any, lengths: Sequence[int | None]) -> list[Range]:
    """Zeros before and after each axis of the input of a convolution or pooling; unknown lengths are None.

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
