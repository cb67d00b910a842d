"""The torch network that the package is measured against computes the same."""

import sys
from pathlib import Path

import numpy as np
import pytest

from planar3d.networks.planar_resunet import PlanarResUNet

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def torch(torch, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield torch
    sys.modules.pop("torch_network", None)


def test_the_torch_network_gives_the_keras_network_s_probabilities(torch):
    from torch_network import torch_network

    keras_network = PlanarResUNet((16, 32, 48, 3), encoder_weights=None, decoder_filters=(8, 6, 4, 5), bridge_filters=7)
    rng = np.random.default_rng(0)
    for weight in keras_network.weights:
        # Biases begin as zeros; none may be forgotten.
        weight.assign(weight.numpy() + 0.02 * rng.standard_normal(weight.shape))
    arrays = {f"{layer.name}/{w.name}": w.numpy() for layer in keras_network.layers for w in layer.weights}
    x = rng.random((2, 16, 32, 48, 3), np.float32)
    expected = keras_network.predict_on_batch(x)
    with torch.inference_mode():
        found = torch_network(arrays)(torch.from_numpy(x).permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1).numpy()
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-6)
