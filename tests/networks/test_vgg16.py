"""A planar network on a stack of slices equals the 2D network on each slice."""

import keras
import numpy as np
import pytest
from narrow_networks import narrow_networks
from valueless import valueless

from planar3d.errors import WeightsError
from planar3d.networks import encoder_weights
from planar3d.networks.encoder_weights import fill_encoder
from planar3d.networks.planar_resunet import PlanarResUNet
from planar3d.networks.vgg16 import PlanarVGG16, encoder_layer_names
from planar3d.transfer.keras2_layout import write_legacy_h5


def _vgg16_2d():
    return keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 48, 3))


def _compare(planar, flat):
    stack = np.random.default_rng(0).uniform(-1, 1, (1, 3, 32, 48, 3)).astype(np.float32)
    by_slice = keras.Model(flat.input, flat.get_layer("block5_conv3").output)(stack[0]).numpy()
    found = planar(stack)[0]
    assert np.abs(by_slice).max() > 0
    np.testing.assert_allclose(found, by_slice, rtol=1e-4, atol=1e-4 * np.abs(by_slice).max())


def test_planar_vgg16_equals_the_2d_network_on_each_slice(tmp_path):
    flat = _vgg16_2d()
    np.savez(
        tmp_path / "flat.npz",
        **{f"{layer.name}/{v.name}": np.asarray(v) for layer in flat.layers for v in layer.weights},
    )
    _compare(PlanarVGG16((3, 32, 48, 3), weights=tmp_path / "flat.npz", depth_pooling=False), flat)


@pytest.mark.parametrize("shape", [(3, 3, 3, 64), (1, 3, 3, 3, 64)], ids=["2D kernels", "planar kernels"])
def test_a_grey_image_gives_what_its_copies_in_three_channels_give(tmp_path, shape):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "first.npz",
        **{"block1_conv1/kernel": rng.normal(size=shape), "block1_conv1/bias": rng.normal(size=64)},
    )
    image = rng.normal(size=(1, 2, 8, 8, 1)).astype(np.float32)
    found = []
    for channels in (3, 1, 5):
        inputs = keras.Input((2, 8, 8, channels))
        network = keras.Model(inputs, keras.layers.Conv3D(64, (1, 3, 3), name="block1_conv1")(inputs))
        fill_encoder(network, tmp_path / "first.npz")
        found.append(np.asarray(network(image.repeat(channels, axis=-1))))
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=1e-4, atol=1e-4)


@pytest.mark.real
def test_with_imagenet_weights_as_well(real_data):
    file = real_data / "weights/vgg16_imagenet_conv.npz"
    flat = _vgg16_2d()
    with np.load(file) as arrays:
        for name in encoder_layer_names():
            flat.get_layer(name).set_weights([arrays[f"{name}/kernel"], arrays[f"{name}/bias"]])
    _compare(PlanarVGG16((3, 32, 48, 3), weights=file, depth_pooling=False), flat)


def test_layers_and_shapes_are_those_of_the_released_encoder_file():
    with valueless():
        network = PlanarVGG16((16, 64, 64, 3), weights=None)
    convolutions = [layer.name for layer in network.layers if hasattr(layer, "kernel")]
    assert convolutions == list(encoder_layer_names()) and len(convolutions) == 13
    assert all(network.get_layer(name).kernel_size == (1, 3, 3) for name in convolutions)
    assert network.output_shape == (None, 1, 4, 4, 512)


def test_a_planar_encoder_file_fills_the_res_u_net_s_encoder(tmp_path, monkeypatch):
    narrow_networks(monkeypatch)
    encoder = PlanarVGG16((16, 32, 32, 3), weights=None)
    write_legacy_h5(tmp_path / "planar_3d_vgg.h5", encoder)
    network = PlanarResUNet((16, 32, 32, 3), encoder_weights=tmp_path / "planar_3d_vgg.h5")
    for name in encoder_layer_names(4):
        np.testing.assert_array_equal(network.get_layer(name).kernel, encoder.get_layer(name).kernel)


def test_random_weights_are_only_had_by_asking(monkeypatch):
    narrow_networks(monkeypatch)

    def nowhere():
        raise WeightsError("no source")

    monkeypatch.setattr(encoder_weights, "find_imagenet", nowhere)
    with pytest.raises(WeightsError):
        PlanarVGG16((16, 32, 32, 3))
    PlanarVGG16((16, 32, 32, 3), weights=None)
