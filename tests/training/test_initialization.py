"""Random layers scaled by data give variance 1, and so a calm start behind features of any size."""

import keras
import narrow_encoder
import numpy as np
import pytest

from planar3d.errors import RecipeError
from planar3d.networks.encoders import match_input_range
from planar3d.networks.registry import find_architecture
from planar3d.recipes import MODERN
from planar3d.training.initialization import initial_network, layers_named, scale_to_unit_variance

pytestmark = pytest.mark.usefixtures("untraced")

TINY = MODERN.changed(
    **{"crop": 32, "size": 32, "precision": "float32", "encoder": narrow_encoder.NAME, "encoder_weights": "none"},
    **{"decoder_filters": (8, 4), "bridge_filters": 8},
)


def _inputs(scale=1.0):
    return scale * np.random.default_rng(0).normal(size=(2, 16, 32, 32, 3)).astype(np.float32)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_every_scaled_layer_gives_variance_1_before_its_activation(scale):
    network = initial_network(TINY)
    names = layers_named(network, TINY, "unit_variance")
    assert names[:3] == ["conv51", "conv52", "trans6"] and names[-1] == "conv10" and len(names) == 9
    scale_to_unit_variance(network, names, _inputs(scale))
    for name in names:
        layer = network.get_layer(name)
        activation, layer.activation = layer.activation, keras.activations.linear
        given = keras.Model(network.input, layer.output).predict_on_batch(_inputs(scale))
        layer.activation = activation
        assert np.std(given) == pytest.approx(1, rel=1e-3)


def test_an_encoder_of_divided_biases_gives_its_features_divided():
    network = initial_network(TINY.changed(encoder_range="unit"))
    names = find_architecture("planar-resunet").groups(network)["encoder"]
    assert len(names) == 4
    for name in names:
        network.get_layer(name).bias.assign(np.random.default_rng(1).normal(size=network.get_layer(name).bias.shape))
    features = keras.Model(network.input, network.get_layer("block2_conv2").output)
    expected = features.predict_on_batch(_inputs(128)) / 128
    match_input_range(map(network.get_layer, names))
    np.testing.assert_allclose(features.predict_on_batch(_inputs()), expected, rtol=1e-3, atol=1e-5)
    assert np.abs(expected).max() > 0.01


def test_layers_that_were_not_named_stay_as_they_were():
    network, untouched = initial_network(TINY), initial_network(TINY)
    scale_to_unit_variance(network, ["conv51"], _inputs())
    for layer, other in zip(network.layers, untouched.layers, strict=True):
        same = all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), other.get_weights(), strict=True))
        assert same == (layer.name != "conv51")
        assert getattr(layer, "activation", None) == getattr(other, "activation", None)


def test_a_layer_that_gives_one_value_everywhere_is_refused():
    network = initial_network(TINY)
    layer = network.get_layer("conv51")
    layer.kernel.assign(np.zeros(layer.kernel.shape))
    with pytest.raises(RecipeError, match="conv51"):
        scale_to_unit_variance(network, ["conv51"], _inputs())
