"""Adapting a 2D network to another number of input channels: RGB kernels for one or several modalities."""

from typing import Any

import numpy as np
from keras import layers

from planar3d.conversion.held_objects import is_kerass_own
from planar3d.conversion.place import Step

# Layers that treat all channels alike, in any number; after them, channels are still those of the input.
_ANY_CHANNELS = (
    layers.AveragePooling2D,
    layers.CenterCrop,
    layers.Cropping2D,
    layers.Dropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.MaxPooling2D,
    layers.ReLU,
    layers.Resizing,
    layers.UpSampling2D,
    layers.ZeroPadding2D,
)
# Functions of keras.activations that combine channels.
_ACROSS_CHANNELS = ("glu", "log_softmax", "softmax", "sparsemax")


def spread(given: int, wanted: int) -> np.ndarray:
    """Weights (given, wanted) that combine the given channels into the wanted ones.

    Equal channels give equal channels. Fewer channels than wanted are averaged into each; as many or more are assigned
    cyclically, and channels with the same target are averaged.

    >>> spread(1, 3)
    array([[1., 1., 1.]])
    >>> spread(2, 3)
    array([[0.5, 0.5, 0.5],
           [0.5, 0.5, 0.5]])
    """
    if given < wanted:
        return np.full((given, wanted), 1 / given)
    turns = np.eye(wanted)[np.arange(given) % wanted]
    return turns / turns.sum(axis=0)


def takes_any(operation: Any) -> bool:
    """Whether a layer processes any number of channels separately."""
    if type(operation) is layers.Rescaling:
        return np.ndim(operation.scale) == np.ndim(operation.offset) == 0
    if type(operation) is layers.Activation:
        function = operation.activation
        return is_kerass_own(function) and function.__name__ not in _ACROSS_CHANNELS
    return type(operation) in _ANY_CHANNELS and getattr(operation, "noise_shape", None) is None


def fitted(kernel: np.ndarray, given: int) -> np.ndarray:
    """A kernel (…, cin, cout) for other input channels; for one, the sum over its channels."""
    weights = spread(given, kernel.shape[-2]).astype(kernel.dtype)
    return np.einsum("gc,...co->...go", weights, kernel)


def spreading(given: int, wanted: int, name: str, dtype: Any) -> Step:
    """A fixed 1×1×1 convolution to the wanted channels, for layers that treat each channel differently."""
    layer = layers.Conv3D(wanted, 1, use_bias=False, trainable=False, name=name, dtype=dtype)
    return Step(layer, [spread(given, wanted)[np.newaxis, np.newaxis, np.newaxis]], f"channels {given} to {wanted}")
