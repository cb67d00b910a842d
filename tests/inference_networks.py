"""Small networks of other shapes than the planar res-u-net, for what must hold of any."""

import functools
from typing import Any

import keras
import narrow_encoder
import numpy as np
from keras import layers

from planar3d.networks.planar_resunet import PlanarResUNet


@functools.cache
def planar_resunet(depth: int = 16, size: int = 32, channels: int = 3) -> keras.Model:
    """With the whole VGG-16; built once, and changed by no test."""
    return _resunet((depth, size, size, channels), "vgg16", (24, 16, 8, 8))


@functools.cache
def narrow_resunet() -> keras.Model:
    """With two levels; built once, and changed by no test."""
    return new_narrow_resunet()


def new_narrow_resunet() -> keras.Model:
    return _resunet((16, 32, 32, 3), narrow_encoder.NAME, (16, 8))


def _resunet(shape: tuple[int, ...], encoder: str, filters: tuple[int, ...]) -> keras.Model:
    keras.utils.set_random_seed(0)
    sizes = {"decoder_filters": filters, "bridge_filters": 16}
    return with_biases(PlanarResUNet(shape, encoder=encoder, encoder_weights=None, **sizes))


@functools.cache
def small_unet(depth: int = 8, levels: int = 2, repeat: bool = False, size: int | None = 16) -> keras.Model:
    """One channel, odd names, batch normalization, additions, average pooling, and depth kept by the first pooling.

    Built once, and changed by no test.
    """
    keras.utils.set_random_seed(1)
    inputs = keras.Input((depth, size, size, 1))
    x = layers.Rescaling([0.9], offset=[0.1])(inputs)
    skips = []
    for level in range(levels):
        pool = (1 if level == 0 else 2, 2, 2)
        x = layers.Conv3D(4 + level, (1, 3, 3), padding="same", use_bias=False)(x)
        x = layers.ReLU(0.7)(layers.BatchNormalization()(x))
        skips.append((x, pool))
        x = layers.AveragePooling3D(pool)(x)
    x = layers.Conv3D(8, 3, padding="same", activation="relu")(x)
    for skip, pool in reversed(skips):
        x = layers.UpSampling3D(pool)(x) if repeat else layers.Conv3DTranspose(6, pool, strides=pool)(x)
        x = layers.Concatenate()([skip, x])
        y = layers.Conv3D(5, (3, 3, 3), padding="same", dilation_rate=(2, 1, 1), activation="tanh")(x)
        x = layers.Add()([y, layers.Conv3D(5, 1)(x)])
    outputs = layers.Conv3D(1, (2, 1, 1), padding="same", activation="sigmoid")(x)
    return with_biases(keras.Model(inputs, outputs, name="small_unet"))


def with_biases(network: keras.Model) -> keras.Model:
    """Biases and statistics other than 0 and 1, which would hide where they are left out."""
    random = np.random.default_rng(0)
    for layer in network.layers:
        for variable in layer.weights:
            if len(variable.shape) == 1:
                variable.assign(np.abs(random.normal(0.5, 0.2, variable.shape)))
    return network


def voxels(slices: int, size: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (slices, size, size, 1), dtype=np.uint8)
