"""The planar res-u-net takes any converted network as its encoder."""

import keras
import numpy as np
import pytest
from flat_networks import network_of, run, volume
from keras import layers
from numpy.testing import assert_array_equal

from planar3d.conversion.convert import convert
from planar3d.errors import ConversionError, WeightsError
from planar3d.graph.keras_graph import name_of
from planar3d.networks.planar_resunet import PlanarResUNet
from planar3d.networks.weights_file import save_weights
from planar3d.recipes import PAPER


def encoder(**choices):
    flat = network_of(
        layers.Conv2D(4, 3, padding="same", name="fine"),
        layers.MaxPooling2D(),
        layers.Conv2D(5, 3, padding="same", name="middle"),
        layers.Conv2D(6, 4, strides=4, name="coarse"),
        shape=(16, 24, 3),
    )
    return convert(flat, **choices)


@pytest.mark.parametrize("choices", [{"depth": 5}, {}, {"depth": 8, "depth_pooling": "match"}, {"axis": 2}])
def test_probabilities_have_the_volume_s_size_whatever_is_done_to_depth(choices):
    network = PlanarResUNet(encoder=encoder(**choices), decoder_filters=(4, 3), bridge_filters=4)
    size = (16, 24, 8) if "axis" in choices else (choices.get("depth", 7), 16, 24)
    found = run(network, volume(1, *size, 3))
    assert found.shape == (1, *size, 1) and 0 <= found.min() <= found.max() <= 1


def test_the_encoder_s_weights_and_names_are_in_it():
    converted = encoder(depth=4)
    network = PlanarResUNet(encoder=converted, decoder_filters=(4, 3), bridge_filters=4)
    for name in ("fine", "middle", "coarse"):
        assert_array_equal(network.get_layer(name).kernel, converted.get_layer(name).kernel)
    joined = network.get_layer("up7").input
    assert [name_of(tensor) for tensor in joined] == ["trans7", "fine"]


def test_it_is_saved_and_read_back(tmp_path):
    network = PlanarResUNet(encoder=encoder(depth=4), decoder_filters=(4, 3), bridge_filters=4)
    network.save(tmp_path / "network.keras")
    voxels = volume(1, 4, 16, 24, 3)
    assert_array_equal(run(keras.saving.load_model(tmp_path / "network.keras"), voxels), run(network, voxels))


def test_weights_that_no_recipe_loads_again_are_not_saved(tmp_path):
    network = PlanarResUNet(encoder=encoder(depth=4), decoder_filters=(4, 3), bridge_filters=4)
    with pytest.raises(WeightsError, match=r"planar_resunet is not the network .* paper builds.*'mine' \+ '\.keras'"):
        save_weights(network, tmp_path / "mine.weights.h5", PAPER)
    smaller = PlanarResUNet((16, 32, 32, 3), encoder_weights=None, decoder_filters=(4,) * 4, bridge_filters=4)
    with pytest.raises(WeightsError, match="change the recipe to its sizes"):
        save_weights(smaller, tmp_path / "mine.weights.h5", PAPER)
    assert not list(tmp_path.iterdir())


def test_vgg16_as_a_converted_encoder_is_the_paper_s_network_but_for_its_coarsest_level():
    flat = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
    volumes = convert(flat, depth=16, depth_pooling="match")
    up_to_block4 = keras.Model(volumes.input, volumes.get_layer("block4_pool").output)
    sizes = {"decoder_filters": (4, 4, 4, 4), "bridge_filters": 4}
    ours = PlanarResUNet((16, 32, 32, 3), encoder_weights=None, **sizes)
    found = PlanarResUNet(encoder=up_to_block4, **sizes)
    layers_of = {layer.name: layer.output.shape for layer in found.layers}
    assert {layer.name: layer.output.shape for layer in ours.layers[1:]}.items() <= layers_of.items()
    assert np.prod(found.output_shape[1:]) == 16 * 32 * 32


def test_filters_are_needed_for_as_many_levels_as_the_encoder_has():
    with pytest.raises(ValueError, match=r"decoder_filters=\(256, 128, 64, 32\): .* has 2 levels"):
        PlanarResUNet(encoder=encoder(), decoder_filters=(256, 128, 64, 32))


def test_levels_that_do_not_divide_are_refused():
    flat = network_of(layers.Conv2D(4, 3), layers.MaxPooling2D(), shape=(15, 15, 3))
    with pytest.raises(ConversionError, match="does not divide it"):
        PlanarResUNet(encoder=convert(flat), decoder_filters=(4,), bridge_filters=4)


@pytest.mark.parametrize(("levels", "filters"), [(2, [64, 32]), (5, [256, 256, 128, 64, 32])])
def test_a_decoder_of_any_height_has_the_paper_s_filters(levels, filters):
    halved = [layers.Conv2D(4, 3, strides=2, padding="same") for _ in range(levels)]
    network = PlanarResUNet(encoder=convert(network_of(*halved, shape=(64, 64, 1)), depth=2))
    found = [network.get_layer(f"trans{6 + number}").filters for number in range(levels)]
    assert found == filters and network.output_shape == (None, 2, 64, 64, 1)
