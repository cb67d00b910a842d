"""3D layers as 2D operations on slices, with the same weights and values, for LiteRT."""

import functools
from typing import Any

import keras
from keras import layers, ops

from planar3d.conversion.held_objects import cloned, rebuilt


class SlicewiseConv3D(layers.Conv3D):
    """A Conv3D as the sum over its depth taps of Conv2D on shifted slices; for stride 1 and one group."""

    def call(self, inputs: Any) -> Any:
        """(batch, depth, rows, cols, channels) → (batch, depth', rows', cols', filters)."""
        taps, dilation = self.kernel_size[0], self.dilation_rate[0]
        reach = (taps - 1) * dilation
        if self.padding == "same" and reach:
            inputs = ops.pad(inputs, [(0, 0), (reach // 2, reach - reach // 2), (0, 0), (0, 0), (0, 0)])
        depth = inputs.shape[1] - reach
        convolve = functools.partial(ops.conv, padding=self.padding, dilation_rate=list(self.dilation_rate[1:]))
        stretches = [_slices(inputs[:, tap * dilation : tap * dilation + depth]) for tap in range(taps)]
        terms = [convolve(stretch, self.kernel[tap]) for tap, stretch in enumerate(stretches)]
        return _finished(self, functools.reduce(ops.add, terms), depth)


class SlicewiseConv3DTranspose(layers.Conv3DTranspose):
    """A Conv3DTranspose whose kernel is as deep as its stride: each tap gives separate slices; padding 'same'."""

    def call(self, inputs: Any) -> Any:
        """(batch, depth, rows, cols, channels) → (batch, depth · stride, rows · stride, cols · stride, filters)."""
        x = _slices(inputs)
        taps = [
            ops.conv_transpose(x, self.kernel[tap], list(self.strides[1:]), "same")
            for tap in range(self.kernel_size[0])
        ]
        return _finished(self, ops.stack(taps, axis=1), inputs.shape[1] * self.kernel_size[0])


class SlicewiseMaxPooling3D(layers.MaxPooling3D):
    """A MaxPooling3D without overlap: the maximum within slices, then over groups of slices."""

    def call(self, inputs: Any) -> Any:
        """(batch, depth, rows, cols, channels) → the same, with depth, rows and cols divided by the pool."""
        pool, depth = self.pool_size, inputs.shape[1] // self.pool_size[0]
        x = ops.max_pool(_slices(inputs[:, : depth * pool[0]]), pool[1:], pool[1:], "valid")
        return ops.max(ops.reshape(x, (-1, depth, pool[0], *x.shape[1:])), axis=2)


def slicewise(network: keras.Model) -> keras.Model:
    """A copy of a functional network of known sizes, with its 3D layers slice by slice where that is exact."""
    return cloned(network, _rewritten)


def _rewritten(layer: Any) -> Any:
    kind = type(layer)
    if kind is layers.Conv3D and layer.strides == (1, 1, 1) and layer.groups == 1:
        kind = SlicewiseConv3D
    elif kind is layers.Conv3DTranspose and layer.padding == "same" and layer.kernel_size[0] == layer.strides[0]:
        if layer.dilation_rate == (1, 1, 1) and layer.output_padding is None:
            kind = SlicewiseConv3DTranspose
    elif kind is layers.MaxPooling3D and layer.padding == "valid" and layer.strides == layer.pool_size:
        kind = SlicewiseMaxPooling3D
    return rebuilt(layer, kind)


def _finished(layer: Any, slices: Any, depth: int) -> Any:
    """Slices as (batch, depth, rows, cols, filters), with the layer's bias and activation."""
    y = ops.reshape(slices, (-1, depth, *slices.shape[-3:]))
    if layer.use_bias:
        y = ops.add(y, layer.bias)
    return y if layer.activation is None else layer.activation(y)


def _slices(x: Any) -> Any:
    """(batch, depth, …) → (batch · depth, …)."""
    return ops.reshape(x, (-1, *x.shape[2:]))
