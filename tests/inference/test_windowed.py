"""Windowed inference is the network on every window, composed by equation 1."""

import keras
import numpy as np
import pytest

from planar3d.inference.predictor import predict_volume
from planar3d.recipes import PAPER
from planar3d.scans.windows import compose, cut_windows, network_input

RECIPE = PAPER.changed(size=16, channels=1)


def _depth_blur():
    """A network whose output at a slice depends on its window, so that composition shows."""
    x = keras.Input((16, 4, 4, 1))
    y = keras.layers.Conv3D(1, (5, 1, 1), padding="same", activation="sigmoid")(x)
    return keras.Model(x, y)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("slices", [16, 64, 69])
def test_a_volume_equals_its_windows_composed(batch_size, slices):
    voxels = np.random.default_rng(0).integers(0, 255, (slices, 4, 4), np.uint8)
    network = _depth_blur()
    expected = compose(network(network_input(cut_windows(voxels), 1))[..., 0], 8, slices)
    found = predict_volume(network, voxels, RECIPE, "windowed", batch_size=batch_size)
    assert found.shape == voxels.shape and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_progress_reaches_the_last_window():
    seen = []
    voxels = np.zeros((64, 4, 4), np.uint8)
    predict_volume(
        _depth_blur(), voxels, RECIPE, "windowed", batch_size=2, progress=lambda done, of: seen.append((done, of))
    )
    assert seen == [(2, 7), (4, 7), (6, 7), (7, 7)]
