"""The planar 3D res-u-net is the one of the paper and of the released weight files."""

import keras
import numpy as np
import pytest
from narrow_networks import narrow_networks
from valueless import valueless

import planar3d as p3
from planar3d.errors import WeightsError
from planar3d.graph.described import layer_costs
from planar3d.networks.planar_resunet import PlanarResUNet
from planar3d.networks.registry import recipe_network
from planar3d.networks.vgg16 import encoder_layer_names
from planar3d.networks.weights_file import load_network, read_recipe, save_weights
from planar3d.recipes import PAPER

# Kernel (depth, rows, cols), filters, output (depth, rows, cols): the paper's figure 4 and the released layer names.
TABLE = {
    "block1_conv2": ((1, 3, 3), 64, (16, 256, 256)),
    "block2_conv2": ((1, 3, 3), 128, (8, 128, 128)),
    "block3_conv3": ((1, 3, 3), 256, (4, 64, 64)),
    "block4_conv3": ((1, 3, 3), 512, (2, 32, 32)),
    "conv51": ((1, 3, 3), 512, (1, 16, 16)),
    "conv52": ((1, 3, 3), 512, (1, 16, 16)),
    "trans6": ((2, 2, 2), 256, (2, 32, 32)),
    "conv61": ((2, 3, 3), 256, (2, 32, 32)),
    "conv62": ((2, 3, 3), 256, (2, 32, 32)),
    "trans7": ((2, 2, 2), 128, (4, 64, 64)),
    "conv71": ((3, 3, 3), 128, (4, 64, 64)),
    "conv72": ((3, 3, 3), 128, (4, 64, 64)),
    "trans8": ((2, 2, 2), 64, (8, 128, 128)),
    "conv81": ((3, 3, 3), 64, (8, 128, 128)),
    "conv82": ((3, 3, 3), 64, (8, 128, 128)),
    "trans9": ((2, 2, 2), 32, (16, 256, 256)),
    "conv91": ((3, 3, 3), 32, (16, 256, 256)),
    "conv92": ((3, 3, 3), 32, (16, 256, 256)),
    "conv10": ((1, 1, 1), 1, (16, 256, 256)),
}
CONCATENATED = {"conc52": 1024, "up6": 768, "conc62": 1024, "up7": 384, "conc72": 512, "up8": 192, "conc82": 256}
SMALL = {"input_shape": (16, 32, 32, 3), "encoder_weights": None, "decoder_filters": (8, 6, 4, 2), "bridge_filters": 8}


@pytest.fixture(scope="module")
def full_size():
    with valueless():
        return PlanarResUNet(encoder_weights=None)


@pytest.fixture
def narrow(monkeypatch):
    narrow_networks(monkeypatch)


def test_it_has_the_paper_s_parameters_and_work(full_size):
    assert full_size.count_params() == 22_870_881
    assert sum(cost.macs for cost in layer_costs(full_size)) == pytest.approx(335.2e9, rel=1e-3)


def test_every_layer_has_the_name_kernel_and_output_of_the_table(full_size):
    for name, (kernel, filters, output) in TABLE.items():
        layer = full_size.get_layer(name)
        assert layer.kernel_size == kernel, name
        assert tuple(layer.output.shape[1:]) == (*output, filters), name
    for name, channels in (CONCATENATED | {"up9": 96, "conc92": 128}).items():
        assert full_size.get_layer(name).output.shape[-1] == channels, name


def test_the_first_convolution_of_each_level_is_dilated_within_slices(full_size):
    dilated = {layer.name: layer.dilation_rate for layer in full_size.layers if hasattr(layer, "dilation_rate")}
    for name, rate in dilated.items():
        assert rate == ((1, 2, 2) if name in ("conv61", "conv71", "conv81", "conv91") else (1, 1, 1)), name


def test_activations_are_relu_but_for_the_up_convolutions_and_the_output(full_size):
    for layer in full_size.layers:
        if hasattr(layer, "kernel"):
            expected = "linear" if layer.name.startswith("trans") else "sigmoid" if layer.name == "conv10" else "relu"
            assert layer.activation.__name__ == expected, layer.name


@pytest.mark.parametrize("shape", [(16, 32, 48, 3), (32, 16, 16, 3), (48, 32, 32, 1), (16, None, None, 3)])
def test_any_multiple_of_16_goes(shape, narrow):
    network = PlanarResUNet(**(SMALL | {"input_shape": shape}))
    sizes = [n or 64 for n in shape]
    assert network(np.zeros((1, *sizes), np.float32)).shape == (1, *sizes[:3], 1)


@pytest.mark.parametrize("shape", [(8, 32, 32, 3), (16, 40, 32, 3), (16, 32, 250, 3)])
def test_other_sizes_are_refused(shape):
    with pytest.raises(ValueError, match="multiple of 16"):
        PlanarResUNet(shape, encoder_weights=None)


def test_a_misspelled_range_and_the_softmax_of_one_output_are_refused(narrow):
    with pytest.raises(ValueError, match="encoder_range='image' is unknown; choose one of: 'unit', 'imagenet'"):
        PlanarResUNet(**SMALL, encoder_range="image")
    with pytest.raises(ValueError, match="softmax of one output"):
        PlanarResUNet(**SMALL, activation="softmax")


def test_it_is_saved_and_loaded_without_custom_objects_in_safe_mode(tmp_path, narrow):
    network = PlanarResUNet(**SMALL)
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras", safe_mode=True)
    x = np.random.default_rng(0).random((1, 16, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(loaded(x), network(x))


def test_a_weights_file_carries_its_recipe_and_fills_its_network(tmp_path, narrow):
    recipe = PAPER.changed(size=32, decoder_filters=(8, 6, 4, 2), bridge_filters=8)
    network = PlanarResUNet(**SMALL)
    path = save_weights(network, tmp_path / "best.weights.h5", recipe)
    assert read_recipe(path) == recipe
    loaded, found = load_network(path)
    assert found == recipe
    for a, b in zip(network.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [p.name for p in tmp_path.iterdir()] == ["best.weights.h5"]


def test_a_weights_file_of_another_network_is_refused(tmp_path, narrow):
    PlanarResUNet(**SMALL).save_weights(tmp_path / "small.weights.h5")
    with pytest.raises(WeightsError, match="none of its arrays is as large as decoder_filters=256,128,64,32"):
        load_network(tmp_path / "small.weights.h5", PAPER)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(WeightsError):
        load_network(tmp_path / "other.weights.h5")


def test_a_released_weights_file_fills_the_network_by_name(tmp_path, narrow):
    from planar3d.transfer.keras2_layout import write_legacy_h5

    trained, fresh = PlanarResUNet(**SMALL), PlanarResUNet(**SMALL)
    write_legacy_h5(tmp_path / "planar_cross_1.h5", trained)
    report = p3.load_weights(fresh, tmp_path / "planar_cross_1.h5")
    assert not report.missing and not report.unused
    for a, b in zip(trained.weights, fresh.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_encoder_is_planar_unless_it_is_asked_to_be_deeper(narrow):
    planar, deeper = PlanarResUNet(**SMALL), PlanarResUNet(**SMALL, encoder_depth=3)
    assert all(planar.get_layer(name).kernel_size == (1, 3, 3) for name in encoder_layer_names(4))
    assert all(deeper.get_layer(name).kernel_size == (3, 3, 3) for name in encoder_layer_names(4))
    for ours, theirs in zip(planar.layers, deeper.layers, strict=True):
        assert ours.name == theirs.name and ours.output.shape == theirs.output.shape
        if hasattr(ours, "kernel_size") and not ours.name.startswith("block"):
            assert ours.kernel_size == theirs.kernel_size, ours.name
    assert recipe_network(PAPER.changed(size=32, encoder_depth=3)).get_layer("block4_conv3").kernel_size == (3, 3, 3)
    with pytest.raises(ValueError, match="odd number of slices"):
        PlanarResUNet(**SMALL, encoder_depth=2)


def test_averaged_kernels_give_what_planar_ones_give_where_slices_are_equal(tmp_path, narrow):
    network = PlanarResUNet(**SMALL)
    flat = {name: network.get_layer(name).weights for name in encoder_layer_names(4)}
    arrays = {f"{name}/{w.name}": np.array(w).reshape(w.shape[-4:]) for name, weights in flat.items() for w in weights}
    np.savez(tmp_path / "flat.npz", **arrays)
    slices = np.repeat(np.random.default_rng(0).random((1, 1, 32, 32, 3), np.float32), 16, axis=1)

    def features(depth):
        network = PlanarResUNet(**(SMALL | {"encoder_weights": tmp_path / "flat.npz"}), encoder_depth=depth)
        return keras.Model(network.input, network.get_layer("block1_conv2").output)(slices).numpy()

    planar, averaged = features(1), features(3)
    assert planar.std() > 0
    # Two convolutions see two slices of zeros beyond either end.
    np.testing.assert_allclose(averaged[:, 2:-2], planar[:, 2:-2], rtol=1e-4, atol=1e-4 * planar.max())
    assert np.abs(averaged[:, 0] - planar[:, 0]).max() > 0.1 * planar.max()
