"""Planar convolutions of each channel by itself, computed on images.

On CPUs TensorFlow has grouped convolutions of volumes by XLA alone. With them a training step of a planar res-u-net
over EfficientNet-Lite0 takes 14 times as long (two windows of 16×32×32, two cores of an AMD EPYC).
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from planar3d.training.convolutions import Gradients


class Depthwise:
    """A convolution with a group for each channel and a kernel of one slice.

    Args:
        strides: of depth, and of rows and columns alike.
        padding: `"same"` or `"valid"`.
    """

    def __init__(self, strides: tuple[int, int], padding: str) -> None:
        self.depth_stride = strides[0]
        self.window = {"strides": [1, strides[1], strides[1], 1], "padding": padding.upper()}

    def forward(self, parts: Sequence[Any], kernel: Any, bias: Any) -> Any:
        """The output, as `PartwiseOperation` has it."""
        images, slices = self._images(parts)
        y = tf.nn.depthwise_conv2d(images, _flat(kernel, images), **self.window)
        y = tf.reshape(y, (-1, slices, *y.shape[1:]))
        return tf.nn.bias_add(tf.cast(y, kernel.dtype), bias)

    def gradients(self, parts: Sequence[Any], needed: Sequence[bool], kernel: Any, upstream: Any) -> Gradients:
        """The kernel's gradient and the parts', as `PartwiseOperation` has them."""
        images, slices = self._images(parts)
        flat, towards = _flat(kernel, images), tf.cast(tf.reshape(upstream, (-1, *upstream.shape[2:])), "float32")
        of_kernel = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=images, filter_sizes=flat.shape, out_backprop=towards, **self.window
        )
        if not any(needed):
            return tf.reshape(of_kernel, kernel.shape), [None] * len(parts)
        of_images = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
            input_sizes=tf.shape(images), filter=flat, out_backprop=towards, **self.window
        )
        of_slices = tf.reshape(of_images, (-1, slices, *images.shape[1:]))
        depth = parts[0].shape[1]
        if self.depth_stride > 1:  # slices between those that are taken get none
            passed_over = [tf.zeros_like(of_slices)] * (self.depth_stride - 1)
            of_slices = tf.stack([of_slices, *passed_over], axis=2)
            of_slices = tf.reshape(of_slices, (-1, slices * self.depth_stride, *images.shape[1:]))[:, :depth]
        split = tf.split(of_slices, [part.shape[-1] for part in parts], axis=-1)
        of_parts = [g if wanted else None for g, wanted in zip(split, needed, strict=True)]
        return tf.reshape(of_kernel, kernel.shape), of_parts

    def _images(self, parts: Sequence[Any]) -> tuple[Any, int]:
        """The slices that are taken, one after another, float32, and how many a volume has."""
        x = tf.concat(parts, axis=-1)[:, :: self.depth_stride]
        return tf.cast(tf.reshape(x, (-1, *x.shape[2:])), "float32"), x.shape[1]


def _flat(kernel: Any, images: Any) -> Any:
    """(1, rows, cols, 1, channels · multiplier) → (rows, cols, channels, multiplier), float32."""
    return tf.cast(tf.reshape(kernel, (*kernel.shape[1:3], images.shape[-1], -1)), "float32")
