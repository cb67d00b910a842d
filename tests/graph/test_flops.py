"""Multiply-accumulates counted by hand, layer kind by layer kind, and networks whose papers state theirs."""

import keras
import pytest
from keras import layers

from planar3d.graph.described import layer_costs

# A layer, what it takes, and kernel elements times positions, written out.
BY_HAND = [
    (layers.Conv3D(5, (1, 3, 3), padding="same"), (4, 6, 8, 3), 3 * 5 * 9 * (4 * 6 * 8)),
    (layers.Conv3D(5, 3), (4, 6, 8, 3), 3 * 5 * 27 * (2 * 4 * 6)),
    (layers.Conv3D(5, 3, dilation_rate=(1, 2, 2), padding="same"), (4, 6, 8, 3), 3 * 5 * 27 * (4 * 6 * 8)),
    (layers.Conv3D(6, 3, groups=3, padding="same"), (4, 6, 8, 3), 1 * 6 * 27 * (4 * 6 * 8)),
    (layers.Conv3DTranspose(5, 2, strides=2), (4, 6, 8, 3), 3 * 5 * 8 * (4 * 6 * 8)),
    (layers.Conv2D(5, 3, strides=2, padding="same"), (6, 8, 4), 4 * 5 * 9 * (3 * 4)),
    (layers.Conv2D(5, 3, padding="same", data_format="channels_first"), (4, 6, 8), 4 * 5 * 9 * (6 * 8)),
    (layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), (6, 8, 4), 4 * 2 * 9 * (6 * 8)),
    (layers.SeparableConv2D(5, 3, padding="same"), (6, 8, 4), 4 * 9 * (6 * 8) + 4 * 5 * (6 * 8)),
    (layers.SeparableConv2D(5, 3, strides=2, padding="same"), (6, 8, 4), (4 * 9 + 4 * 5) * (3 * 4)),
    (layers.Dense(5), (7,), 7 * 5),
    (layers.Dense(5), (6, 8, 4), 4 * 5 * (6 * 8)),
    (layers.MaxPooling3D(2), (4, 6, 8, 3), 0),
    (layers.BatchNormalization(), (6, 8, 4), 0),
]


def _alone(layer, shape):
    x = keras.Input(shape)
    return keras.Model(x, layer(x))


def _macs(network, shape=None):
    return sum(cost.macs for cost in layer_costs(network, shape))


@pytest.mark.parametrize(("layer", "shape", "macs"), BY_HAND, ids=lambda value: getattr(value, "name", ""))
def test_a_layer_costs_its_kernel_at_every_position(layer, shape, macs):
    (cost,) = layer_costs(_alone(layer, shape))
    assert (cost.name, cost.macs, cost.parameters) == (layer.name, macs, layer.count_params())
    assert cost.output_shape[1:] == layer.output.shape[1:]


@pytest.mark.parametrize(
    ("application", "giga"),
    [("MobileNet", 0.569), ("EfficientNetB0", 0.39)],
)
def test_networks_of_known_cost(application, giga):
    """Howard et al. 2017, table 4; Tan & Le 2019, table 2."""
    network = getattr(keras.applications, application)(weights=None)
    costs = layer_costs(network)
    assert sum(cost.macs for cost in costs) / 1e9 == pytest.approx(giga, rel=0.02)
    assert sum(cost.parameters for cost in costs) == network.count_params()


def test_a_model_within_a_model_is_counted_for_what_it_is_given():
    inner = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3, padding="same")], name="inner")
    x = keras.Input((6, 8, 3))
    network = keras.Model(x, layers.Conv2D(2, 1)(layers.UpSampling2D()(inner(x))))
    costs = {cost.name: cost.macs for cost in layer_costs(network)}
    assert costs["inner/" + inner.layers[0].name] == 3 * 4 * 9 * (6 * 8)
    assert sum(costs.values()) == 3 * 4 * 9 * (6 * 8) + 4 * 2 * (12 * 16)


def test_a_shared_layer_works_twice_and_has_its_parameters_once():
    shared, a, b = layers.Dense(4), keras.Input((4,)), keras.Input((3, 4))
    network = keras.Model([a, b], [shared(a), shared(b)])
    costs = layer_costs(network)
    assert sorted(cost.macs for cost in costs) == [16, 48]
    assert sum(cost.parameters for cost in costs) == network.count_params() == 20


def test_what_is_folded_into_the_batch_is_counted_as_often_as_it_runs():
    x = keras.Input((3, 6, 8, 4))
    maps = keras.ops.reshape(keras.ops.transpose(x, (0, 4, 2, 3, 1)), (-1, 6, 8, 3))
    network = keras.Model(x, layers.Dense(2)(layers.Conv2D(5, 3, padding="same")(maps)))
    assert _macs(network) == 4 * (3 * 5 * 9 + 5 * 2) * (6 * 8)


def test_counting_leaves_the_network_s_graph_as_it_was():
    network = _alone(layers.Conv2D(4, 3), (6, 8, 3))
    before = [layer.output.shape for layer in network.layers], len(network.layers[-1]._inbound_nodes)
    layer_costs(network)
    assert before == ([layer.output.shape for layer in network.layers], len(network.layers[-1]._inbound_nodes))


def test_a_network_of_any_size_is_counted_for_the_size_that_is_given():
    network = _alone(layers.Conv3D(2, 3, padding="same"), (None, None, None, 1))
    assert _macs(network, (4, 6, 8, 1)) == 2 * 27 * (4 * 6 * 8)
    with pytest.raises(ValueError, match="needs all sizes except the batch"):
        layer_costs(network)


@pytest.mark.parametrize("layer", [layers.PReLU(), layers.LayerNormalization([1, 2, 3]), layers.Normalization((1, 3))])
def test_slopes_and_normalizations_by_position_are_no_kernels(layer):
    (cost,) = layer_costs(_alone(layer, (6, 8, 3)))
    assert (cost.macs, cost.parameters) == (0, layer.count_params())


def test_a_layer_of_an_unknown_kind_is_refused_rather_than_left_out():
    with pytest.raises(ValueError, match="is a LSTM"):
        layer_costs(_alone(layers.LSTM(3, name="memory"), (5, 2)))
