"""ACS convolutions: a 2D kernel in the axial, coronal and sagittal planes of a volume (Yang et al. 2021)."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from planar3d.graph.layers import KINDS, LayerKind, macs_at_outputs
from planar3d.graph.reach import Range, halves
from planar3d.sections import check_choice

VARIANTS = ("acs", "acs_mean", "acs_soft")


@keras.saving.register_keras_serializable(package="planar3d")
class ACSConv3D(layers.Conv2D):
    """A 2D convolution kernel applied in three planes of a volume.

    In the variant `"acs"`, the output channels are split into three groups of (nearly) equal size, each with its kernel
    in another plane; in `"acs_mean"`, the whole kernel is applied in all planes and the results are averaged; in
    `"acs_soft"`, they are weighted by a softmax of three trainable numbers. Planes are ordered by their normal axis,
    `axis` first.

    To load a `.keras` file with this layer, import this module first.

    The input is (batch, depth, rows, cols, channels); the output has these sizes divided by `strides`, as the 2D layer
    in the plane; along depth, ends are padded so that no slice is lost.

    Args:
        filters, kernel_size: as in the 2D layer; kernels must be square if the padding is `"valid"`, strides are above
            1, or there are groups.
        strides: (depth, rows, cols).
        padding: as in the 2D layer.
        dilation_rate: the same for all axes.
        axis: the position of depth among the three axes.
        variant: one of `VARIANTS`.
        kwargs: other arguments of the 2D layer.

    Source: Yang et al. 2021, "Reinventing 2D convolutions for 3D images", section III.
    """

    # Keras' convolutions save only kernel and bias, and would lose the planes.
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
        check_choice("variant", variant, VARIANTS, ValueError)
        self.strides = tuple(strides)
        self.axis = axis
        self.variant = variant
        # One convolution with the planes in a cube is used where separate planes would sample other positions.
        self._cube = self.groups > 1 or padding == "valid" or max(self.strides) > 1
        if self._cube and len(set(self.kernel_size)) > 1:
            raise ValueError(
                f"the kernel {self.kernel_size} must be square to fit three planes with these settings; choose another "
                "mapping."
            )
        if len(set(self.dilation_rate)) > 1:
            raise ValueError(
                f"dilation_rate={dilation_rate}: an ACS kernel has one dilation for all axes; choose another mapping."
            )

    def build(self, input_shape: Any) -> None:
        """Create the 2D layer's weights, and the planes' weights if they are soft."""
        super().build(input_shape)
        if self.variant == "acs_soft":
            self.planes = self.add_weight(shape=(3,), initializer="zeros", name="planes")

    def call(self, inputs: Any) -> Any:
        """Apply the planes, the bias and the activation."""
        kernels = self._planar_kernels(ops.cast(self.kernel, inputs.dtype))
        if self._cube:
            size = self.kernel_size[0] - 1
            cube = self._joined([ops.pad(kernel, _along(axis, size)) for axis, kernel in kernels])
            if self.padding == "valid":
                # Zero as a tensor: else TensorFlow's graphs by oneDNN lose this padding after another, or before a
                # leaky ReLU.
                ends = _along(1 + self.axis, self.dilation_rate[0] * size)
                inputs = ops.pad(inputs, ends, constant_values=ops.zeros((), inputs.dtype))
            y = self._convolved(inputs, cube)
        else:
            y = self._joined([self._convolved(inputs, kernel) for _, kernel in kernels])
        return self.activation(y + ops.cast(self.bias, y.dtype) if self.use_bias else y)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(batch, depth, rows, cols, filters)."""
        cube = list(self.kernel_size)
        cube.insert(self.axis, cube[0])
        extents = [self.dilation_rate[0] * (size - 1) for size in cube]
        sizes = []
        for number, (length, extent, stride) in enumerate(zip(input_shape[1:4], extents, self.strides, strict=True)):
            lost = extent if self.padding == "valid" and number != self.axis else 0
            sizes.append(None if length is None else -(-(length - lost) // stride))
        return (input_shape[0], *sizes, self.filters)

    def get_config(self) -> dict[str, Any]:
        """The layer's configuration."""
        return {**super().get_config(), "axis": self.axis, "variant": self.variant}

    def _planar_kernels(self, kernel: Any) -> list[tuple[int, Any]]:
        """The kernel of each plane, with its normal axis."""
        flat = [self.axis, *(axis for axis in range(3) if axis != self.axis)]
        # The remainder goes to the first groups.
        parts = np.array_split(range(self.filters), 3) if self.variant == "acs" else [np.arange(self.filters)] * 3
        groups = [part.tolist() for part in parts]
        return [
            (axis, ops.expand_dims(kernel[..., group[0] : group[-1] + 1], axis))
            for axis, group in zip(flat, groups, strict=True)
            if group
        ]

    def _joined(self, parts: list[Any]) -> Any:
        """Concatenated as channels, or averaged."""
        if self.variant == "acs":
            return ops.concatenate(parts, -1)
        shares = ops.softmax(self.planes) if self.variant == "acs_soft" else ops.full((3,), 1 / 3)
        return sum(part * ops.cast(shares[number], part.dtype) for number, part in enumerate(parts))

    def _convolved(self, inputs: Any, kernel: Any) -> Any:
        return ops.conv(inputs, kernel, self.strides, self.padding, None, self.dilation_rate[0])


def _along(axis: int, total: int) -> list[Range]:
    """Zeros before and after each of five axes, in all along one of them."""
    return [halves(total if number == axis else 0) for number in range(5)]


KINDS["ACSConv3D"] = LayerKind(
    macs=lambda layer, *shapes: (1 if layer.variant == "acs" else 3) * macs_at_outputs(layer, *shapes),
    settings=("variant",),
)
