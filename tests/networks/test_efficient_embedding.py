"""EfficientNet-B0 sees three slices as one image; what comes back has as many slices as went in."""

import keras
import numpy as np
import pytest
from flat_networks import randomized, run, volume
from keras.src.applications import efficientnet as applications

from planar3d.networks.efficient_embedding import EfficientEmbedding
from planar3d.networks.efficientnet import SCALES

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def test_the_three_slices_are_an_image_to_keras_own_network_and_its_weights(tmp_path, monkeypatch):
    factors = (1.0, 0.3)  # of filters and blocks
    monkeypatch.setitem(SCALES, "b0", factors)
    theirs = {"name": "short", "include_top": False, "weights": None, "input_shape": (32, 64, 3)}
    flat = randomized(applications.EfficientNet(*factors, 32, **theirs))
    normalization = next(layer for layer in flat.layers if isinstance(layer, keras.layers.Normalization))
    normalization.adapt_mean.assign(MEAN)
    normalization.adapt_variance.assign(DEVIATION**2)
    normalization.finalize_state()
    flat.save_weights(tmp_path / "b0.weights.h5")
    network = EfficientEmbedding(
        (6, 32, 64, 2), factors=(2,), encoder_range="grey levels", encoder_weights=tmp_path / "b0.weights.h5"
    )
    middle = [network.get_layer(name).output for name in ("slices_to_image", "top_activation")]
    image, features = map(np.array, keras.Model(network.input, middle)(100 * volume(1, 6, 32, 64, 2), training=False))
    assert image.shape == (1, 1, 32, 64, 3) and image.max() > 10
    np.testing.assert_allclose(features[:, 0], run(flat, image[:, 0]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((None, 64, 64, 1), "with its factors efficient_embedding takes 108 slices"),
        ((216, 64, 64, 1), "with its factors efficient_embedding takes 108 slices"),
        ((108, 64, 48, 1), "cols is 48"),
    ],
)
def test_shapes_that_do_not_become_an_image_are_refused(shape, sentence):
    with pytest.raises(ValueError, match=sentence):
        EfficientEmbedding(shape, encoder_weights=None)
