"""Keras layers that train another layer's variables faster, with the same results up to rounding."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from planar3d.training.convolutions import (
    Convolution,
    PartwiseOperation,
    Pointwise,
    UpConvolution,
    as_rows,
    in_graph,
)


class PartConvolution(layers.Layer):
    """A convolution of the parts of a concatenation, which trains the variables of the replaced layer.

    The input is the list of parts, (batch, depth, rows, cols, channels of the part), or their concatenation.

    Args:
        replaced: a built layer for which `is_replaceable` is true.
        channels: of each part.
        needed: whether the gradient of the part is needed.
    """

    def __init__(self, replaced: layers.Layer, channels: Sequence[int], needed: Sequence[bool]) -> None:
        # Parts are cast one by one, where they are used.
        super().__init__(name=replaced.name, dtype=replaced.dtype_policy, autocast=False)
        self.replaced = replaced
        self.channels, self.needed = list(channels), list(needed)
        self.operation = _operation(replaced)
        self.built = True

    @property
    def kernel(self) -> keras.Variable:
        """The replaced layer's kernel."""
        return self.replaced.kernel

    def call(self, parts: Any) -> Any:
        if not isinstance(parts, (list, tuple)):
            parts = tf.split(parts, self.channels, axis=-1)
        layer, dtype = self.replaced, self.compute_dtype
        relu = layer.activation is keras.activations.relu

        @tf.custom_gradient
        def apply(kernel: Any, bias: Any, *parts: Any) -> tuple[Any, Callable[[Any], list[Any]]]:
            narrow = tf.cast(kernel, dtype)
            y = self.operation.forward([tf.cast(part, dtype) for part in parts], narrow, tf.cast(bias, dtype))
            y = tf.nn.relu(y) if relu else y

            def gradient(upstream: Any) -> list[Any]:
                if relu:
                    upstream = tf.raw_ops.ReluGrad(gradients=upstream, features=y)
                # Cast again if the types differ, as keeping a wider copy of a part would cost its memory.
                cast = [tf.cast(part, dtype) for part in parts]
                of_kernel, of_parts = self.operation.gradients(cast, self.needed, narrow, upstream)
                # Not tf.nn.bias_add's own gradient: on a CPU it sums bf16 in bf16, and is up to 99 % off for a window.
                of_bias = tf.reduce_sum(as_rows(upstream), axis=0)
                pairs = zip(of_parts, parts, strict=True)
                towards = [None if found is None else tf.cast(found, part.dtype) for found, part in pairs]
                return [tf.cast(of_kernel, kernel.dtype), tf.cast(of_bias, bias.dtype), *towards]

            return y, gradient

        y = apply(layer.kernel.value, layer.bias.value if layer.use_bias else tf.zeros(layer.filters), *parts)
        return y if relu else layer.activation(y)

    def compute_output_spec(self, parts: Any) -> keras.KerasTensor:
        return keras.KerasTensor(self.replaced.output.shape, dtype=self.compute_dtype)

    def passed_on(self) -> np.ndarray:
        """(channels,): 1 where the concatenated input gets a gradient, else 0."""
        return np.repeat(np.array(self.needed, np.float32), self.channels)

    def over(self, replaced: layers.Layer) -> "PartConvolution":
        """The same computation with the variables and types of another layer."""
        return PartConvolution(replaced, self.channels, self.needed)


class Kept(layers.Layer):
    """An unchanged layer, applied again without a second node in its own network's graph."""

    def __init__(self, kept: layers.Layer) -> None:
        super().__init__(name=kept.name, dtype=kept.dtype_policy, autocast=False)
        self.kept = kept
        self.built = True

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self.kept(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.kept.compute_output_spec(*args, **kwargs)


def is_replaceable(layer: Any) -> bool:
    """Whether `PartConvolution` can replace a layer."""
    fits = _KINDS.get(type(layer))
    return (
        fits is not None
        and layer.data_format == "channels_last"
        and layer.activity_regularizer is None
        and None not in layer.input.shape[1:]
        and fits(layer)
    )


def _is_convolution(layer: layers.Conv3D) -> bool:
    dilation, sizes, kernel = layer.dilation_rate[1:], layer.input.shape[2:4], layer.kernel_size[1:]
    on_grids = all(n == 1 or (size % n == 0 and k % 2) for n, size, k in zip(dilation, sizes, kernel, strict=True))
    return (
        (layer.padding == "same" or layer.kernel_size == (1, 1, 1))
        and (layer.strides, layer.groups, layer.dilation_rate[0]) == ((1, 1, 1), 1, 1)
        and (dilation == (1, 1) or (on_grids and _dilates_natively()))
    )


def _is_up_convolution(layer: layers.Conv3DTranspose) -> bool:
    return layer.strides == layer.kernel_size and layer.output_padding is None  # Keras dilates no strided kernel


def _operation(layer: layers.Layer) -> PartwiseOperation:
    if type(layer) is layers.Conv3DTranspose:
        return UpConvolution()
    return Pointwise() if layer.kernel_size == (1, 1, 1) else Convolution(layer.dilation_rate[1:])


@functools.cache
def _dilates_natively() -> bool:
    """Whether this TensorFlow dilates 3D convolutions natively and correctly: with oneDNN, not with other kernels."""

    def by_itself(x: Any, kernel: Any) -> Any:
        return Convolution((2, 2)).forward([x], kernel, tf.zeros(kernel.shape[-1], kernel.dtype))

    def rearranged(x: Any, kernel: Any) -> Any:
        return tf.nn.convolution(x, kernel, padding="SAME", dilations=(1, 2, 2))

    for dtype in (tf.float32, tf.bfloat16):
        x = tf.random.stateless_normal((2, 4, 16, 16, 32), seed=(0, 0), dtype=dtype)
        kernel = tf.random.stateless_normal((3, 3, 3, 32, 32), seed=(0, 1), dtype=dtype)
        try:
            found, expected = (tf.cast(in_graph(f, x, kernel), "float32") for f in (by_itself, rearranged))
        except (tf.errors.OpError, ValueError):
            return False
        if not tf.norm(found - expected) <= 0.01 * tf.norm(expected):
            return False
    return True


_KINDS = {layers.Conv3D: _is_convolution, layers.Conv3DTranspose: _is_up_convolution}
