"""Convolutions round to 8 bits where the greatest values of their inputs are known; OpenVINO only."""

import keras
import narrow_encoder
import numpy as np
import pytest
from inference_networks import narrow_resunet, small_unet, voxels
from keras import layers

from planar3d.errors import Planar3DError, RecipeError
from planar3d.graph.described import described
from planar3d.graph.description import greatest_of, in_int8
from planar3d.inference.int8 import measure_greatest
from planar3d.inference.predictor import predictor
from planar3d.networks.registry import recipe_network
from planar3d.networks.weights_file import Model, save_weights
from planar3d.recipes import PAPER
from planar3d.transfer import published_models
from planar3d.transfer.metadata import greatest_in

pytest.importorskip("openvino")
from planar3d.inference.tiled import TiledInference, on_openvino

TINY = PAPER.changed(size=32, encoder=narrow_encoder.NAME, decoder_filters=(4, 4), bridge_filters=4)


def test_a_convolution_computes_with_rounded_inputs_and_kernels() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 8, 8, 2))
    x = layers.Conv3D(3, (1, 3, 3), padding="same", activation="relu", name="first")(inputs)
    network = keras.Model(inputs, layers.Conv3D(4, 3, padding="same", dilation_rate=(1, 2, 2), name="second")(x))
    window = np.random.default_rng(0).normal(size=(1, 4, 8, 8, 2)).astype("float32")
    values = keras.Model(inputs, x).predict_on_batch(window)
    greatest = float(values.max()) * 0.75  # larger ones are cut off
    compute, _ = on_openvino(in_int8(described(network), {"first": greatest}), "float32")

    step = greatest / 255
    second, (kernel, bias) = network.get_layer("second"), network.get_layer("second").get_weights()
    steps = np.abs(kernel).max(axis=(0, 1, 2, 3)) / 127
    second.set_weights([np.rint(kernel / steps) * steps, bias])
    rounded = np.clip(np.rint(values / step), 0, 255) * step
    np.testing.assert_allclose(compute(window), second(rounded), atol=2e-5)
    assert np.abs(second(values) - second(rounded)).max() > 0.01


def test_greatest_values_are_measured_of_outputs_without_negative_values() -> None:
    network = small_unet()
    windows = [np.random.default_rng(seed).normal(size=(1, 8, 16, 16, 1)).astype("float32") for seed in range(2)]
    found = measure_greatest(described(network), windows)
    kinds = {name: type(network.get_layer(name)).__name__ for name in found}
    # Transposed convolutions and rescaled inputs have negative values, and so have their concatenations.
    assert set(kinds.values()) == {"ReLU", "AveragePooling3D"}
    measured = keras.Model(network.input, [network.get_layer(name).output for name in found])
    for greatest, of_both in zip(found.values(), measured(np.concatenate(windows)), strict=True):
        assert 0.05 <= greatest / np.max(of_both) <= 1.0001
    assert found == measure_greatest(described(network), windows)


def test_a_layer_that_is_used_twice_has_the_greatest_value_of_both_uses() -> None:
    x = keras.Input((4, 8, 8, 1))
    relu, signed, last = layers.ReLU(name="relu"), layers.Rescaling(1.0, name="signed"), layers.Conv3D(1, 1)
    positive = relu(layers.Rescaling(0.1)(x))
    uses = [relu(layers.Rescaling(5.0)(x)), positive, signed(layers.Rescaling(-1.0)(x)), signed(positive)]
    network = keras.Model(x, layers.Add()([last(use) for use in uses]))
    window = np.random.default_rng(0).normal(size=(1, 4, 8, 8, 1)).astype("float32")
    found = measure_greatest(network, [window])
    assert set(found) == {"relu"} and found["relu"] > window.max()


def test_a_convolution_that_is_used_twice_rounds_the_input_that_is_measured() -> None:
    keras.utils.set_random_seed(0)
    x, last = keras.Input((4, 8, 8, 1)), layers.Conv3D(1, 3, name="last")
    positive = layers.ReLU(name="positive")(x)
    network = keras.Model(x, layers.Concatenate()([last(x), last(positive)]))
    window = np.random.default_rng(0).normal(size=(1, 4, 8, 8, 1)).astype("float32")
    found = on_openvino(in_int8(described(network), {"positive": 3.0}), "float32")[0](window)
    apart = np.abs(found - network.predict_on_batch(window)).max(axis=(0, 1, 2, 3))
    assert apart[0] < 1e-6 < 1e-4 < apart[1] < 0.05


@pytest.mark.parametrize("joined", [False, True])
def test_the_first_layer_is_measured_and_the_input_is_not(joined) -> None:
    x = keras.Input((4, 8, 8, 1))
    relu = layers.ReLU(name="relu")(x)
    taken = layers.Concatenate(name="both")([x, relu]) if joined else relu
    network = keras.Model(x, layers.Conv3D(1, 1)(taken))
    window = np.abs(np.random.default_rng(0).normal(size=(1, 4, 8, 8, 1))).astype("float32")
    assert set(measure_greatest(network, [window])) == ({"relu", "both"} if joined else {"relu"})


def test_a_single_negative_value_among_many_is_seen() -> None:
    x = keras.Input((8, 200, 200, 1))
    network = keras.Model(x, layers.Conv3D(1, 1)(layers.Rescaling(0.5, name="half")(x)))
    window = np.ones((1, 8, 200, 200, 1), "float32")
    assert set(measure_greatest(network, [window])) == {"half"}
    for place in (0, 1000, 2000, 3000):  # at random, more than half of all values are seen
        window.ravel()[place] = -1
        assert measure_greatest(network, [window]) == {}
        window.ravel()[place] = 1


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    window = TINY.preparation.as_input(voxels(16, 32))[None]
    path = tmp_path_factory.mktemp("int8") / "tiny.weights.h5"
    keras.utils.set_random_seed(0)
    network = recipe_network(TINY)
    greatest = measure_greatest(described(network), [window])
    return Model.open(save_weights(network, path, TINY, {"int8": {"greatest": greatest}}))


def test_a_scan_is_predicted_in_int8_from_the_values_in_the_card(model) -> None:
    scan = voxels(24, 32)
    wide, narrow = (
        predictor(model, TINY, engine=e, precision=p) for e, p in (("openvino", "float32"), ("auto", "int8"))
    )
    assert narrow.description.startswith("shared on OpenVINO, ")
    assert narrow.description.endswith(", convolutions in int8")
    expected, found = wide(scan), narrow(scan)
    assert 0 < np.abs(found - expected).max() < 0.05


def test_tiles_round_as_well(model) -> None:
    network = model.description()
    scan = voxels(24, 32)
    greatest = greatest_in(model.card)
    wide, narrow = (
        TiledInference(each, TINY, engine="openvino", precision="float32")(scan)
        for each in (network, in_int8(network, greatest))
    )
    assert 0 < np.abs(wide - narrow).max() < 0.05


def test_int8_is_refused_where_it_cannot_be_computed(model, monkeypatch) -> None:
    with pytest.raises(RecipeError, match="precision='int8' works on OpenVINO only; use engine='openvino' or 'auto'"):
        predictor(model, TINY, engine="keras", precision="int8")
    with pytest.raises(RecipeError, match=r"use method='shared' .* in int8, or engine='keras' in float32 or bf16\."):
        predictor(model, TINY, "windowed", precision="int8")
    with pytest.raises(Planar3DError, match="The network has no values for int8 in a model card; use another"):
        predictor(narrow_resunet(), PAPER.changed(size=32), precision="int8")
    monkeypatch.setattr("planar3d.extras.is_installed", lambda *packages: False)
    with pytest.raises(Planar3DError, match=r"OpenVINO needs openvino, which is not installed\..*pip install"):
        predictor(model, TINY, precision="int8")


@pytest.mark.parametrize(
    "said", [None, 3, {"greatest": [1]}, {"greatest": {"conv51": -1.0, "conv52": 2.0}}, {"greatest": {"a": 0.0}}]
)
def test_spoilt_values_in_a_card_are_not_used(said) -> None:
    assert greatest_in({"int8": said}) == {}


def test_a_published_model_says_what_was_measured_after_its_file_was_written(model, monkeypatch) -> None:
    line = published_models.PublishedModel("a", model.sha256, 1, "CC0", card={"agreement": [], "licence": "CC0"})
    monkeypatch.setattr(published_models, "published_models", lambda: {"a": line})
    assert model.card["agreement"] == [] and model.card["licence"] == "CC0" and "int8" in model.card


def test_the_published_model_has_values_for_int8_of_layers_that_it_has() -> None:
    opened = Model.open("ms-flair-open")
    greatest = greatest_in(opened.card)
    network = in_int8(opened.description(), greatest)
    known = {layer.name for layer in network.layers if greatest_of(layer)}
    assert known == set(greatest) >= {"block1_conv1", "conv51", "conv91"}
