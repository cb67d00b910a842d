"""Small networks with the layer names of VGG-16, and files as Keras 2 with TensorFlow 1 wrote them."""

import h5py
import keras
import numpy as np
import pytest


@pytest.fixture
def flat_network():
    """Two 2D convolutions: 3 to 4 to 5 channels."""
    return _network(keras.layers.Conv2D, (8, 8, 3), 3)


@pytest.fixture
def planar_network():
    """The same two convolutions, planar."""
    return _network(keras.layers.Conv3D, (2, 8, 8, 3), (1, 3, 3))


def _network(convolution, shape, kernel):
    inputs = keras.Input(shape, name="input")
    x = convolution(4, kernel, padding="same", name="block1_conv1")(inputs)
    network = keras.Model(inputs, convolution(5, kernel, padding="same", name="block1_conv2")(x), name="tiny")
    rng = np.random.default_rng(1)
    network.set_weights([rng.normal(size=w.shape).astype(np.float32) for w in network.get_weights()])
    return network


@pytest.fixture
def values(flat_network):
    """The 2D network's arrays by name."""
    return {f"{layer.name}/{w.name}": np.asarray(w) for layer in flat_network.layers for w in layer.weights}


def write_keras2(path, layers, root="", as_bytes=True):
    """Write a `.h5` as Keras 2.2.4 does: layers maps a layer's name to its [(variable name, array), …]."""

    def encoded(names):
        return np.array([name.encode() for name in names]) if as_bytes else list(names)

    with h5py.File(path, "w") as file:
        group = file.create_group(root) if root else file
        group.attrs["layer_names"] = encoded(layers)
        group.attrs["backend"] = b"tensorflow"
        group.attrs["keras_version"] = b"2.2.4"
        for layer, weights in layers.items():
            inside = group.create_group(layer)
            inside.attrs["weight_names"] = encoded([name for name, _ in weights]) if weights else np.zeros(0, "S1")
            for name, array in weights:
                inside[name] = array
    return path


@pytest.fixture
def released_file(tmp_path, values):
    """A weights-only file of the release: named variables, and layers without any."""

    def write(variable="{layer}/{weight}:0", root="", as_bytes=True, name="released.h5"):
        layers = {"input": [], "block1_conv1": [], "block1_conv2": [], "block1_pool": []}
        for key, array in values.items():
            layer, weight = key.split("/")
            letter = {"kernel": "W", "bias": "b"}[weight]
            layers[layer].append((variable.format(layer=layer, weight=weight, letter=letter), array))
        return write_keras2(tmp_path / name, layers, root, as_bytes)

    return write
