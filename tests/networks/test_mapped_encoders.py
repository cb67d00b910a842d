"""The res-u-net over VGG-16 by other mappings than the planar one: what conversion gives, on the common road."""

import typing

import keras
import narrow_encoder
import numpy as np
import pytest
from flat_networks import narrowed
from valueless import valueless

from planar3d.conversion.acs import VARIANTS, ACSConv3D
from planar3d.conversion.choices import KernelMapping
from planar3d.conversion.convert import convert
from planar3d.errors import Planar3DError, RecipeError
from planar3d.graph.described import layer_costs
from planar3d.inference.predictor import predict_volume
from planar3d.networks.registry import recipe_network
from planar3d.networks.settings import MappingName
from planar3d.networks.vgg16 import encoder_layer_names
from planar3d.networks.weights_file import load_network, save_weights
from planar3d.recipes import PAPER
from planar3d.training.fit import compiled
from planar3d.training.initialization import initial_network
from planar3d.training.trainer import trainer_of
from planar3d.transfer.mappings import MAPPINGS

pytestmark = pytest.mark.usefixtures("module_narrow")

TINY = PAPER.changed(size=16, decoder_filters=(4, 4, 4, 4), bridge_filters=4, frozen=())
LAST = "block4_conv3"
WINDOW = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def flat(module_narrow):
    """VGG-16 in 2D, narrow, with random weights, up to the last layer that the encoder has."""
    keras.utils.set_random_seed(0)
    with valueless():
        whole = keras.applications.VGG16(weights=None, include_top=False, input_shape=(None, None, 3))
    return narrowed(keras.Model(whole.input, whole.get_layer(LAST).output, name="vgg16"))


@pytest.fixture(scope="module")
def file(flat, tmp_path_factory):
    layers = [flat.get_layer(name) for name in encoder_layer_names(4)]
    arrays = {f"{layer.name}/{w.name}": np.array(w) for layer in layers for w in layer.weights}
    path = tmp_path_factory.mktemp("weights") / "vgg16.npz"
    np.savez(path, **arrays)
    return str(path)


def test_a_recipe_may_ask_for_any_mapping_that_there_is():
    assert set(typing.get_args(MappingName)) == {*MAPPINGS, *VARIANTS}


@pytest.mark.parametrize("mapping", ["zero", "average", "scale", "repeat", "acs", "acs_soft"])
def test_its_encoder_is_the_converted_vgg16(mapping, flat, file):
    recipe = TINY.changed(mapping=mapping, encoder_weights=file)
    network = initial_network(recipe)
    alpha = recipe.network.alpha if mapping == "scale" else None
    converted = convert(flat, mapping, depth=16, depth_pooling="match", alpha=alpha)
    for name in encoder_layer_names(4):
        for own, expected in zip(network.get_layer(name).weights, converted.get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(own, expected, err_msg=name)
    own, expected = (keras.Model(each.input, each.get_layer(LAST).output)(WINDOW) for each in (network, converted))
    np.testing.assert_array_equal(own, expected)


@pytest.mark.parametrize("mapping", ["average", "acs_soft"])
def test_it_is_trained_kept_and_predicts_on_the_common_road(mapping, tmp_path, untraced):
    few = {"encoder": narrow_encoder.NAME, "encoder_weights": "none", "decoder_filters": (4, 4)}
    recipe, last = TINY.changed(mapping=mapping, **few), "block2_conv2"
    network = initial_network(recipe)
    before = np.array(network.get_layer(last).kernel)
    trainer = compiled(trainer_of(network), recipe)
    assert np.isfinite(trainer.train_on_batch(WINDOW, np.ones((1, 16, 16, 16, 1), np.uint8))).all()
    assert not np.array_equal(before, network.get_layer(last).kernel)

    loaded, found = load_network(save_weights(network, tmp_path / "network.weights.h5", recipe))
    assert found == recipe
    voxels = np.random.default_rng(1).integers(0, 256, (32, 16, 16, 1), np.uint8)
    windowed = predict_volume(network, voxels, recipe, "windowed")
    np.testing.assert_array_equal(predict_volume(loaded, voxels, recipe, "auto", "keras"), windowed)


def test_planar_is_what_recipes_without_a_mapping_mean_and_a_depth_alone_means_averages(file):
    content = TINY.changed(encoder_weights=file).to_json()
    del content["network"]["mapping"], content["network"]["alpha"]
    planar = type(TINY).from_json(content)
    assert planar.mapping == "planar" and recipe_network(planar).get_layer(LAST).kernel_size == (1, 3, 3)
    content["network"]["encoder_depth"] = 3
    deeper, averaged = type(TINY).from_json(content), TINY.changed(encoder_weights=file, mapping="average")
    for own, expected in zip(
        *(recipe_network(r, encoder_weights=file).weights[:20] for r in (deeper, averaged)), strict=True
    ):
        np.testing.assert_array_equal(own, expected)


def test_an_encoder_of_the_table_is_converted_by_the_mapping():
    recipe = TINY.changed(encoder="resnet18", mapping="acs", decoder_filters=(4,) * 5, size=32)
    with valueless():
        network = recipe_network(recipe)
    kinds = [type(network.get_layer(f"conv2_block1_{number}_conv")) for number in (1, 2)]
    assert kinds == [ACSConv3D, ACSConv3D] and network.output_shape == (None, 16, 32, 32, 1)


def test_an_acs_layer_costs_what_its_planes_cost():
    x = keras.Input((4, 5, 6, 2))
    for mapping, planes in {"acs": 1, "acs_mean": 3}.items():
        layer = KernelMapping(mapping).convolution(7, (3, 3), padding="same")
        (cost,) = (c for c in layer_costs(keras.Model(x, layer(x))) if c.macs)
        assert cost.macs == planes * 3 * 3 * 2 * 7 * 4 * 5 * 6


def test_what_cannot_be_is_refused_with_a_sentence():
    with pytest.raises(RecipeError, match=r"mapping='cubic' is unknown; choose one of: 'planar', 'zero'"):
        TINY.changed(mapping="cubic")
    with pytest.raises(RecipeError, match="factors greater than 0 that add up to 1"):
        TINY.changed(mapping="scale", alpha="0.5,0.6")
    with pytest.raises(Planar3DError, match="acs"):
        recipe_network(TINY.changed(mapping="acs", encoder_depth=5))
