"""Depthwise convolutions of volumes, computed on images.

On CPUs, TensorFlow supports them on volumes only through XLA, which takes much longer (benchmarks/RESULTS.md).
"""

from functools import partial
from typing import Any

import keras
from keras import layers


def computed_on_images(conv: layers.Conv3D) -> layers.Conv3D:
    """Compute a grouped convolution as the sum of 2D depthwise ones per depth tap, on a CPU with TensorFlow.

    Configuration, kernel and files are Keras' own, and values are equal up to rounding, so saved networks do not need
    this package. Keras computes groups of several channels, unequal strides in rows and columns, and dilated kernels.
    The layer has its channels last; it is modified and returned.
    """
    if keras.backend.backend() == "tensorflow" and conv.groups > 1:
        conv.convolution_op = partial(_convolved, conv)
    return conv


def _convolved(conv: layers.Conv3D, x: Any, kernel: Any) -> Any:
    """(batch, depth, rows, cols, channels) → (batch, depth', rows', cols', channels · multiplier)."""
    import tensorflow as tf

    (stride, rows, cols), (taps, *window) = conv.strides, conv.kernel_size
    alike = rows == cols and max(conv.dilation_rate) == 1 and conv.groups == x.shape[-1]
    if not alike or tf.config.list_physical_devices("GPU"):
        return layers.Conv3D.convolution_op(conv, x, kernel)

    def sizes(tensor: Any) -> list[Any]:
        return [tf.shape(tensor)[i] if n is None else n for i, n in enumerate(tensor.shape)]

    # float32 also within bf16, in which TensorFlow's depthwise convolutions take two to three times as long.
    wide, flat = tf.cast(x, "float32"), tf.reshape(tf.cast(kernel, "float32"), (taps, *window, x.shape[-1], -1))
    batch, slices, *plane = sizes(x)
    given = -(-slices // stride) if conv.padding == "same" else (slices - taps) // stride + 1
    needed, reach = (given - 1) * stride + taps, -(-taps // stride)
    before = _not_negative(needed - slices) // 2 if conv.padding == "same" else 0
    length = (given - 1 + reach) * stride
    behind = length - before - slices
    # Ends are counted from the end: behind a padded Conv3D, TensorFlow's graphs by oneDNN take tensors for shorter than
    # they are, and would drop a slicing to that length.
    if stride > 1:
        wide = wide[:, : min(behind, 0) or None if isinstance(behind, int) else length - before]
    wide = tf.pad(wide, [(0, 0), (before, _not_negative(behind)), (0, 0), (0, 0), (0, 0)])
    # A reshape selects every stride-th slice: a strided slice takes several times as long as its convolution.
    phases = (
        tf.unstack(tf.reshape(wide, (batch, length // stride, stride, *plane)), stride, 2) if stride > 1 else [wide]
    )
    total = 0.0
    for tap in range(taps):
        first, phase = divmod(tap, stride)
        images = tf.reshape(phases[phase][:, first : first + 1 - reach or None], (-1, *plane))
        total += tf.nn.depthwise_conv2d(images, flat[tap], (1, rows, cols, 1), conv.padding.upper())
    return tf.cast(tf.reshape(total, (-1, given, *sizes(total)[1:])), x.dtype)


def _not_negative(number: Any) -> Any:
    import tensorflow as tf

    return max(number, 0) if isinstance(number, int) else tf.maximum(number, 0)
