"""AlbuNet as its released code has it: an encoder whose convolutions have random biases."""

import keras
import numpy as np
from narrow_networks import narrow_networks
from valueless import valueless

from planar3d.networks import albunet
from planar3d.networks.albunet import ALBUNET, AlbuNet


def test_biases_of_the_encoder_are_torch_s_and_the_kernels_those_of_the_file(tmp_path, monkeypatch):
    narrow_networks(monkeypatch)
    flat = albunet.ResNet34((32, 32, 3), include_top=False, pool=2)
    flat.save_weights(tmp_path / "flat.weights.h5")
    keras.utils.set_random_seed(0)
    network = AlbuNet((1, 32, 32, 3), encoder_bias=True, encoder_weights=tmp_path / "flat.weights.h5")
    shares = []
    for name in ALBUNET.groups(network)["encoder"]:
        layer = network.get_layer(name)
        for weight, of_flat in zip(layer.weights, flat.get_layer(name).weights, strict=False):
            np.testing.assert_array_equal(np.array(weight).reshape(of_flat.shape), of_flat)
        if isinstance(layer, keras.layers.Conv3D):
            assert any(layer.bias is trained for trained in network.trainable_variables)
            # torch.nn.Conv3d: uniform within 1 / sqrt(inputs of a convolution), and not 0.
            shares.append(np.array(layer.bias) * np.sqrt(np.prod(layer.kernel.shape[:-1])))
    shares = np.concatenate(shares)
    assert abs(shares).max() <= 1
    np.testing.assert_allclose(np.quantile(shares, [0.1, 0.25, 0.5, 0.75, 0.9]), [-0.8, -0.5, 0, 0.5, 0.8], atol=0.1)


def test_of_one_slice_the_depth_layers_see_the_middle_of_their_kernels_alone(monkeypatch):
    """So the release trains AlbuNet2D: the network in 3D at a depth of 1."""
    narrow_networks(monkeypatch)
    keras.utils.set_random_seed(0)
    network = AlbuNet((1, 32, 32, 3), encoder_weights=None)
    image = np.random.default_rng(0).normal(size=(1, 1, 32, 32, 3)).astype(np.float32)
    before = np.array(network(image))
    layer = network.get_layer("depth4_conv")
    kernel = np.array(layer.kernel)
    assert kernel.shape == (3, 1, 1, 16, 16)
    layer.kernel.assign(kernel * np.float32([-3, 1, 5])[:, None, None, None, None])
    np.testing.assert_array_equal(network(image), before)
    layer.kernel.assign(kernel * np.float32([1, -3, 1])[:, None, None, None, None])
    assert np.abs(np.array(network(image)) - before).max() > 1e-3


def test_with_biases_it_has_the_parameters_of_the_released_code():
    with valueless():
        network = AlbuNet((16, 32, 32, 3), classes=4, encoder_bias=True, encoder_weights=None)
    counted = [sum(w.shape.num_elements() for w in ws) for ws in (network.trainable_weights, network.weights)]
    assert counted == [26_681_684, 26_681_684 + 20_288]
