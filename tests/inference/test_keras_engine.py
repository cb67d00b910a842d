"""Dilated convolutions are one operation wherever that has the layer's bits."""

import keras
import numpy as np
import pytest
from inference_networks import planar_resunet, voxels
from keras import layers

from planar3d.graph.described import described
from planar3d.inference.keras_engine import KerasEngine, _Dilated, _is_dilated_exactly
from planar3d.inference.plan import make_plan
from planar3d.inference.shared import SharedInference
from planar3d.recipes import PAPER
from planar3d.training.part_layers import _dilates_natively


@pytest.mark.parametrize(
    "kernel, rates, planes, channels, activation",
    [
        ((3, 3, 3), (1, 2, 2), (32, 32), (12, 8), "relu"),
        ((3, 3, 3), (1, 2, 2), (31, 33), (24, 16), "relu"),
        ((2, 3, 3), (1, 2, 2), (32, 32), (64, 32), "tanh"),
        ((2, 3, 3), (2, 1, 3), (20, 24), (6, 5), None),
    ],
)
def test_a_convolution_dilated_at_once_has_the_layers_bits_where_it_is_said_to(
    kernel: tuple, rates: tuple, planes: tuple, channels: tuple, activation: str | None
) -> None:
    shape = {"dilation_rate": rates, "padding": "same", "activation": activation}
    layer = layers.Conv3D(channels[1], kernel, bias_initializer="random_normal", **shape)
    x = np.random.default_rng(0).normal(size=(2, 9, *planes, channels[0])).astype(np.float32)
    given = keras.Input(batch_shape=x.shape)
    expected = keras.Model(given, layer(given)).predict(x, verbose=0)
    if not _is_dilated_exactly(layer, given):
        pytest.skip("TensorFlow's kernels here sum in another order, or dilate nothing.")
    np.testing.assert_array_equal(keras.Model(given, _Dilated(layer)(given)).predict(x, verbose=0), expected)


def test_the_planar_resunet_has_such_convolutions() -> None:
    network = planar_resunet()
    dilated = [layer for layer in network.layers if max(getattr(layer, "dilation_rate", (1,))) > 1]
    exact = sum(_is_dilated_exactly(layer, layer.input) for layer in dilated)
    assert len(dilated) == 4 and (exact or not _dilates_natively())
    predict = SharedInference(make_plan(described(network), 8), KerasEngine(network), PAPER.preparation)
    predict(voxels(24, 32))  # its first and its last window
    _, first, last = (program.model for programs in predict._programs.values() for program in programs.values())
    for model in (first, last):
        assert sum(isinstance(layer, _Dilated) for layer in model.layers) == exact


@pytest.mark.parametrize(
    "settings",
    [
        {"dilation_rate": 1},
        {"dilation_rate": 2, "groups": 2},
        {"dilation_rate": 2, "data_format": "channels_first"},
        {"dilation_rate": 2, "dtype": "mixed_bfloat16"},
        {"dilation_rate": (1, 1, 2), "padding": "valid"},
    ],
    ids=lambda settings: str(settings),
)
def test_other_convolutions_stay_the_layers_own(settings: dict) -> None:
    layer = layers.Conv3D(4, 3, **{"padding": "same"} | settings)
    assert not _is_dilated_exactly(layer, layer(keras.Input((8, 8, 8, 8))))
