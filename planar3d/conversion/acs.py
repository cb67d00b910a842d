"""ACS convolutions: a 2D kernel that lies in the axial, coronal and sagittal planes of a volume (Yang et al. 2021)."""

import math
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from planar3d.graph.description import Layer, Shape
from planar3d.graph.layers import KINDS, LayerKind

VARIANTS = ("acs", "acs_mean", "acs_soft")


@keras.saving.register_keras_serializable(package="planar3d")
class ACSConv3D(layers.Conv2D):
    """A 2D convolution kernel applied in three planes of a volume.

    In the variant `"acs"` the output channels are split in three groups of (nearly) equal size, and the kernel of each
    lies in another plane; in `"acs_mean"` all of the kernel lies in all planes, and their results are averaged; in
    `"acs_soft"` they are weighted by a softmax of three trainable numbers. Planes are counted by the axis that they
    are one slice thick in, `axis` first.

    Takes (batch, depth, rows, cols, channels) and gives the same sizes divided by `strides`, as the 2D layer does in
    the plane; along depth ends are padded so that no slice is lost.

    Args:
        filters, kernel_size: as in the 2D layer; square kernels where the padding is `"valid"`, strides are more than
            1, or there are groups.
        strides: (depth, rows, cols).
        padding: as in the 2D layer.
        dilation_rate: in every direction.
        axis: of depth among the three axes.
        variant: one of `VARIANTS`.
        kwargs: what the 2D layer takes besides.

    Source: Yang et al. 2021, "Reinventing 2D convolutions for 3D images", section III.
    """

    # Keras' convolutions keep kernel and bias alone, and would lose the planes.
    save_own_variables = layers.Layer.save_own_variables
    load_own_variables = layers.Layer.load_own_variables

    def __init__(
        self,
        filters: int,
        kernel_size: tuple[int, int],
        strides: tuple[int, int, int] = (1, 1, 1),
        padding: str = "same",
        dilation_rate: int | tuple[int, int] = 1,
        axis: int = 0,
        variant: str = "acs",
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, kernel_size, padding=padding, dilation_rate=dilation_rate, **kwargs)
        if variant not in VARIANTS:
            raise ValueError(f"variant={variant!r} is unknown; choose one of: {', '.join(map(repr, VARIANTS))}.")
        self.strides = tuple(strides)
        self.axis = axis
        self.variant = variant
        # One convolution with the planes laid into a cube serves where planes by themselves would sample other places.
        self._cube = self.groups > 1 or padding == "valid" or max(self.strides) > 1
        if self._cube and len(set(self.kernel_size)) > 1:
            raise ValueError(f"the kernel {self.kernel_size} must be square to fit three planes with these settings.")

    def build(self, input_shape: Any) -> None:
        """Make the 2D layer's weights, and the planes' where they are soft."""
        super().build(input_shape)
        if self.variant == "acs_soft":
            self.planes = self.add_weight(shape=(3,), initializer="zeros", name="planes")

    def call(self, inputs: Any) -> Any:
        """Apply the planes, the bias and the activation."""
        kernels = self._planar_kernels(ops.cast(self.kernel, inputs.dtype))
        if self._cube:
            cube = self._joined([self._in_cube(kernel, axis) for axis, kernel in kernels])
            y = self._convolved(self._padded(inputs), cube)
        else:
            y = self._joined([self._convolved(inputs, kernel) for _, kernel in kernels])
        return self.activation(y + ops.cast(self.bias, y.dtype) if self.use_bias else y)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(batch, depth, rows, cols, filters)."""
        extents = [self.dilation_rate[0] * (size - 1) for size in self._cube_size()]
        sizes = []
        for number, (length, extent, stride) in enumerate(zip(input_shape[1:4], extents, self.strides, strict=True)):
            lost = extent if self.padding == "valid" and number != self.axis else 0
            sizes.append(None if length is None else -(-(length - lost) // stride))
        return (input_shape[0], *sizes, self.filters)

    def get_config(self) -> dict[str, Any]:
        """What the layer is made by."""
        return {**super().get_config(), "axis": self.axis, "variant": self.variant}

    def _planar_kernels(self, kernel: Any) -> list[tuple[int, Any]]:
        """The kernel of each plane, with the axis that it is one slice thick in."""
        flat = [self.axis, *(axis for axis in range(3) if axis != self.axis)]
        ends = _group_ends(self.filters) if self.variant == "acs" else [(0, self.filters)] * 3
        return [
            (axis, ops.expand_dims(kernel[..., first:end], axis))
            for axis, (first, end) in zip(flat, ends, strict=True)
            if first < end
        ]

    def _joined(self, parts: list[Any]) -> Any:
        """Side by side as channels, or averaged."""
        if self.variant == "acs":
            return ops.concatenate(parts, -1)
        shares = ops.softmax(self.planes) if self.variant == "acs_soft" else ops.full((3,), 1 / 3)
        return sum(part * ops.cast(shares[number], part.dtype) for number, part in enumerate(parts))

    def _cube_size(self) -> list[int]:
        size = list(self.kernel_size)
        size.insert(self.axis, self.kernel_size[0])
        return size

    def _in_cube(self, kernel: Any, axis: int) -> Any:
        size = self.kernel_size[0]
        widths = [(0, 0)] * 5
        widths[axis] = ((size - 1) // 2, size // 2)
        return ops.pad(kernel, widths)

    def _padded(self, inputs: Any) -> Any:
        if self.padding != "valid":
            return inputs
        extent = self.dilation_rate[0] * (self.kernel_size[0] - 1)
        widths = [(0, 0)] * 5
        widths[1 + self.axis] = (extent // 2, extent - extent // 2)
        return ops.pad(inputs, widths)

    def _convolved(self, inputs: Any, kernel: Any) -> Any:
        return ops.conv(inputs, kernel, self.strides, self.padding, None, self.dilation_rate[0])


def _group_ends(filters: int) -> list[tuple[int, int]]:
    """From and to of three groups of output channels; what is left over by three goes to the first ones."""
    ends = np.cumsum([0, *(filters // 3 + (number < filters % 3) for number in range(3))]).tolist()
    return list(pairwise(ends))


def _macs(layer: Layer, _: Shape, output: Shape) -> int:
    """As its planes by themselves would cost."""
    planes = 1 if layer.variant == "acs" else 3
    return planes * math.prod(layer.kernel.shape) * math.prod(output[1:4])  # type: ignore[arg-type]


KINDS["ACSConv3D"] = LayerKind(macs=_macs, settings=("variant",))
