"""2D networks for conversions: random weights, and what they give for each slice of a volume."""

from contextlib import contextmanager

import keras
import numpy as np
from numpy.testing import assert_array_equal

from planar3d.graph.keras_graph import layers_within


def randomized(network, seed=0):
    """Fill all weights with random numbers; variances and what is divided by stay positive."""
    rng = np.random.default_rng(seed)
    for weight in network.weights:
        spread = 1 / np.sqrt(max(np.prod(weight.shape[:-1]), 1))
        low, high = (0.5, 1.5) if weight.name in ("gamma", "moving_variance", "variance") else (-2 * spread, 2 * spread)
        if weight.dtype.startswith("float"):
            weight.assign(rng.uniform(low, high, weight.shape))
    for layer in layers_within(network):
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return network


def narrowed(network, filters=8):
    """The layers of a network, with so many filters each, and random weights."""

    def narrow(layer):
        config = layer.get_config()
        return type(layer).from_config(config | dict.fromkeys({"filters"} & config.keys(), filters))

    return keras.models.clone_model(network, clone_function=narrow)


def volume(*shape, seed=1):
    """Random voxels, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run(network, inputs):
    """The network's single output."""
    return np.asarray(network(inputs, training=False))


def by_slice(network, voxels, axis=0):
    """What a 2D network gives for the slices of volumes (batch, …, channels), depth put back where it lay."""
    slices = np.moveaxis(voxels, 1 + axis, 1)
    results = run(network, slices.reshape(-1, *slices.shape[2:]))
    stacked = results.reshape(*slices.shape[:2], *results.shape[1:])
    return np.moveaxis(stacked, 1, 1 + axis) if stacked.ndim == 5 else stacked


def assert_same(found, expected):
    """Two networks have the same weights, in order."""
    for one, other in zip(found.weights, expected.weights, strict=True):
        assert_array_equal(one, other, err_msg=one.path)


@contextmanager
def unchanged(network):
    """The block leaves a network's weights as they were."""
    before = network.get_weights()
    yield
    for old, new in zip(before, network.get_weights(), strict=True):
        assert_array_equal(old, new)


def network_of(*layers, shape=(8, 10, 4)):
    """A network of layers, one behind the other, with random weights."""
    inputs = x = keras.Input(shape, name="image")
    for layer in layers:
        x = layer(x)
    return randomized(keras.Model(inputs, x, name="flat"))
