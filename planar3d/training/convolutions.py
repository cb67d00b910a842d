"""3D convolutions of a channel-wise concatenation without creating it, with only the needed gradients.

The input of a decoder's convolution concatenates up-sampled features with an encoder's. A convolution of concatenated
channels is the sum of the convolutions of its parts; if the encoder is frozen, the gradient of its part is not
needed, but TensorFlow's own gradient computes it anyway. Each class computes the sum and its exact gradients for one
kind of layer, in the fastest correct way found, on CPUs with AVX-512 and with AMX.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import tensorflow as tf

Gradients = tuple[Any, list[Any]]


class PartwiseOperation(Protocol):
    """The operation of a layer, without activation."""

    def forward(self, parts: Sequence[Any], kernel: Any, bias: Any) -> Any:
        """The output (batch, depth, rows, cols, filters) for parts (batch, depth, rows, cols, channels of the part)."""

    def gradients(self, parts: Sequence[Any], needed: Sequence[bool], kernel: Any, upstream: Any) -> Gradients:
        """The gradients of the kernel and of each part, None where not needed."""


def dilated(x: Any, kernel: Any, rates: Sequence[int]) -> Any:
    """A 'same' convolution of stride 1 in one operation; tf.nn.convolution rearranges the volume before and after."""
    return tf.raw_ops.Conv3D(input=x, filter=kernel, strides=[1] * 5, padding="SAME", dilations=[1, *rates, 1])


def in_graph(function: Callable[..., Any], *tensors: Any) -> Any:
    """Compute a function once, as TensorFlow computes it in a graph.

    It is traced on request: TensorFlow warns of several functions that are each traced at their first call.
    """
    return tf.function(function, autograph=False).get_concrete_function(*tensors)(*tensors)


class Convolution:
    """A 'same' convolution of stride 1, with optional dilation in rows and columns.

    In bf16, oneDNN's gradient of a 3D kernel reads uninitialized memory: for some shapes it is intermittently wrong,
    from 2 % to NaN, or ends the process. There, it is summed over 2D gradients per depth tap, which are correct and
    equally fast.

    Args:
        dilation: of rows and columns; where it is not 1, the input's size must be a multiple of it, and the kernel odd.
    """

    def __init__(self, dilation: tuple[int, int]) -> None:
        self.dilation = dilation

    def forward(self, parts: Sequence[Any], kernel: Any, bias: Any) -> Any:
        kernels = _kernels(kernel, parts, axis=3)
        *others, last = (dilated(x, k, (1, *self.dilation)) for x, k in zip(parts, kernels, strict=True))
        # In this order, oneDNN fuses the bias, the other terms and ReLU into the last convolution.
        return sum(others, tf.nn.bias_add(last, bias))

    def gradients(self, parts: Sequence[Any], needed: Sequence[bool], kernel: Any, upstream: Any) -> Gradients:
        of_parts = [
            tf.raw_ops.Conv3DBackpropInputV2(input_sizes=tf.shape(x), filter=k, out_backprop=upstream, **self._window())
            if wanted
            else None
            for x, k, wanted in zip(parts, _kernels(kernel, parts, axis=3), needed, strict=True)
        ]
        of_kernel = self._by_taps if upstream.dtype == tf.bfloat16 else self._at_once
        return of_kernel(parts, kernel.shape, upstream), of_parts

    def _at_once(self, parts: Sequence[Any], shape: Any, upstream: Any) -> Any:
        # A dilated convolution is a plain one on each of the grids of its taps, which is faster.
        upstream = self._grids(upstream)
        of_parts = [
            tf.raw_ops.Conv3DBackpropFilterV2(
                input=self._grids(x),
                filter_sizes=(*shape[:3], x.shape[-1], shape[-1]),
                out_backprop=upstream,
                strides=[1] * 5,
                padding="SAME",
            )
            for x in parts
        ]
        return tf.concat(of_parts, axis=3)

    def _by_taps(self, parts: Sequence[Any], shape: Any, upstream: Any) -> Any:
        depth, before = upstream.shape[1], (shape[0] - 1) // 2
        taps = []
        for shift in range(-before, shape[0] - before):
            if abs(shift) >= depth:
                taps.append(tf.zeros(shape[1:], "float32"))
            else:
                taps.append(tf.concat([self._tap(x, shape, upstream, shift) for x in parts], axis=2))
        return tf.stack(taps)

    def _tap(self, x: Any, shape: Any, upstream: Any, shift: int) -> Any:
        """The gradient of the tap that takes slice n + shift of the input to slice n of the output."""
        if not shift:
            return self._of_images(shape, _images(x), _images(upstream))
        n = abs(shift)
        later, earlier = (x, upstream) if shift > 0 else (upstream, x)
        # All volumes in a row, sliced without a copy, minus the products of slices from different volumes.
        pairs = [(_images(later)[n:], _images(earlier)[:-n]), (_images(later[1:, :n]), _images(earlier[:-1, -n:]))]
        row, across = (self._of_images(shape, *(pair if shift > 0 else pair[::-1])) for pair in pairs)
        return row - across

    def _of_images(self, shape: Any, images: Any, upstream: Any) -> Any:
        found = tf.raw_ops.Conv2DBackpropFilter(
            input=images,
            filter_sizes=(*shape[1:3], images.shape[-1], shape[-1]),
            out_backprop=upstream,
            strides=[1] * 4,
            padding="SAME",
            dilations=[1, *self.dilation, 1],
        )
        return tf.cast(found, "float32")

    def _window(self) -> dict[str, Any]:
        return {"strides": [1] * 5, "padding": "SAME", "dilations": [1, 1, *self.dilation, 1]}

    def _grids(self, x: Any) -> Any:
        return x if self.dilation == (1, 1) else tf.space_to_batch(x, (1, *self.dilation), [(0, 0)] * 3)


class UpConvolution:
    """A transposed convolution with stride equal to its kernel size: one matrix product, then a rearrangement."""

    def forward(self, parts: Sequence[Any], kernel: Any, bias: Any) -> Any:
        x = tf.concat(parts, axis=-1)
        size, filters = kernel.shape[:3], kernel.shape[3]
        y = tf.matmul(as_rows(x), _as_matrix(kernel), transpose_b=True)
        (depth, height, width), batch = x.shape[1:4], tf.shape(x)[0]
        y = tf.reshape(y, (batch, depth, height, width, *size, filters))
        y = tf.transpose(y, (0, 1, 4, 2, 5, 3, 6, 7))
        y = tf.reshape(y, (batch, depth * size[0], height * size[1], width * size[2], filters))
        # Not before: fused, oneDNN's product takes longer in bf16 than both separately.
        return tf.nn.bias_add(y, bias)

    def gradients(self, parts: Sequence[Any], needed: Sequence[bool], kernel: Any, upstream: Any) -> Gradients:
        size, filters = kernel.shape[:3], kernel.shape[3]
        depth, height, width = parts[0].shape[1:4]
        y = tf.reshape(upstream, (-1, depth, size[0], height, size[1], width, size[2], filters))
        y = tf.reshape(tf.transpose(y, (0, 1, 3, 5, 2, 4, 6, 7)), (-1, size[0] * size[1] * size[2] * filters))
        of_parts = [
            tf.reshape(tf.matmul(y, _as_matrix(k)), tf.shape(x)) if wanted else None
            for x, k, wanted in zip(parts, _kernels(kernel, parts, axis=4), needed, strict=True)
        ]
        of_kernels = [tf.matmul(y, as_rows(x), transpose_a=True) for x in parts]
        return tf.reshape(tf.concat(of_kernels, axis=-1), kernel.shape), of_parts


class Pointwise:
    """A convolution with a kernel of one voxel: a matrix product."""

    def forward(self, parts: Sequence[Any], kernel: Any, bias: Any) -> Any:
        kernels = _kernels(kernel, parts, axis=3)
        first, *others = (tf.matmul(as_rows(x), k[0, 0, 0]) for x, k in zip(parts, kernels, strict=True))
        y = tf.nn.bias_add(sum(others, first), bias)
        return tf.reshape(y, (-1, *parts[0].shape[1:4], kernel.shape[-1]))

    def gradients(self, parts: Sequence[Any], needed: Sequence[bool], kernel: Any, upstream: Any) -> Gradients:
        y = as_rows(upstream)
        of_parts = [
            tf.reshape(tf.matmul(y, k[0, 0, 0], transpose_b=True), tf.shape(x)) if wanted else None
            for x, k, wanted in zip(parts, _kernels(kernel, parts, axis=3), needed, strict=True)
        ]
        of_kernels = [tf.matmul(as_rows(x), y, transpose_a=True) for x in parts]
        return tf.reshape(tf.concat(of_kernels, axis=0), kernel.shape), of_parts


def _kernels(kernel: Any, parts: Sequence[Any], axis: int) -> list[Any]:
    """The kernel's slices of input channels for each part."""
    return [kernel] if len(parts) == 1 else tf.split(kernel, [part.shape[-1] for part in parts], axis=axis)


def as_rows(x: Any) -> Any:
    """A tensor as the matrix of its channels, (voxels of the batch, channels)."""
    return tf.reshape(x, (-1, x.shape[-1]))


def _as_matrix(kernel: Any) -> Any:
    return tf.reshape(kernel, (-1, kernel.shape[-1]))


def _images(x: Any) -> Any:
    """The slices of all volumes, one after another."""
    return tf.reshape(x, (-1, *x.shape[2:]))
