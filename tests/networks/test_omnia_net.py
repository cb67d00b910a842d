"""Omnia-Net has the layers of its authors' code, and sees volumes slice by slice."""

import keras
import nibabel as nib
import numpy as np
import pytest
from narrow_networks import narrow_networks
from valueless import valueless

from planar3d.graph.described import layer_costs
from planar3d.networks.efficientnet import EfficientNet
from planar3d.networks.omnia_net import OMNIA_NET, OmniaNet
from planar3d.scans.preparation import ResizedSlices
from planar3d.scans.volume import Scan


def test_it_takes_the_work_computed_from_the_released_layers():
    with valueless():
        network = OmniaNet((1, None, None, 1), encoder_weights=None)
    work = sum(cost.macs for cost in layer_costs(network, (1, 256, 256, 1)))
    assert round(work / 1e9, 3) == 3.208


def test_a_volume_is_seen_slice_by_slice_as_slices_are(monkeypatch):
    narrow_networks(monkeypatch)
    keras.utils.set_random_seed(0)
    slices, volumes = OmniaNet((32, 32, 1), encoder_weights=None), OmniaNet((2, 32, 32, 1), encoder_weights=None)
    for variable in slices.non_trainable_variables:
        if "moving_variance" in variable.path:  # with the one of the beginning little of a slice reaches the output
            variable.assign(keras.random.uniform(variable.shape, 0.2, 0.6))
    for layer in slices.layers:
        if layer.weights:
            arrays = [a[None] if a.ndim == 4 else a for a in layer.get_weights()]
            same = volumes.get_layer(layer.name)
            same.set_weights([a.reshape(w.shape) for a, w in zip(arrays, same.weights, strict=True)])
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 1)).astype(np.float32)
    x[1] = 5 * x[1] + 10  # the mean over a slice is not that over the volume
    np.testing.assert_allclose(volumes(x[None])[0], slices(x), atol=2e-5)


def test_weights_of_the_encoder_are_taken_and_its_stem_is_fitted_or_drawn(tmp_path, monkeypatch):
    narrow_networks(monkeypatch)
    coloured = EfficientNet("b0", (32, 32, 3))
    coloured.save_weights(tmp_path / "b0.weights.h5")
    fitted, drawn = (
        OmniaNet((32, 32, 1), stem=stem, encoder_weights=tmp_path / "b0.weights.h5") for stem in ("fitted", "normal")
    )
    for name in ("block1a_dwconv", "block4a_project_bn", "block6a_se_reduce"):
        for network in (fitted, drawn):
            for a, b in zip(network.get_layer(name).get_weights(), coloured.get_layer(name).get_weights(), strict=True):
                np.testing.assert_array_equal(a, b)
    stem = coloured.get_layer("stem_conv").get_weights()[0]
    # What is the same in all sixteen channels gives what it gives in red, green and blue.
    np.testing.assert_allclose(fitted.get_layer("stem_conv").get_weights()[0].sum(2), stem.sum(2), atol=1e-6)
    assert np.std(drawn.get_layer("stem_conv").get_weights()[0]) == pytest.approx(1, rel=0.05)


def test_the_encoder_may_have_the_name_that_keras_applications_gives_it(monkeypatch):
    narrow_networks(monkeypatch)
    short, long = (OmniaNet((32, 32, 1), encoder=name, encoder_weights=None) for name in ("b0", "efficientnetb0"))
    assert [layer.name for layer in short.layers] == [layer.name for layer in long.layers]
    named = [OMNIA_NET.source({"encoder": name}).attribution for name in ("b4", "efficientnetb4", "b0")]
    assert named[0] == named[1] != named[2]


@pytest.mark.parametrize(("arguments", "word"), [({"encoder": "b9"}, "b9"), ({"stem": "random"}, "random")])
def test_what_does_not_exist_is_refused(arguments, word):
    with pytest.raises(ValueError, match=f"'{word}' is unknown"):
        OmniaNet((32, 32, 1), encoder_weights=None, **arguments)


def test_slices_are_resized_standardized_as_a_whole_and_brought_back():
    rng = np.random.default_rng(0)
    voxels = np.kron(rng.integers(1, 200, (6, 5)), np.ones((4, 4)))[..., None].astype(np.float32)
    scan = Scan(voxels, nib.Nifti1Image(voxels, np.diag([-0.3, -0.15, 1.5, 1])).header)
    prepared = ResizedSlices(size=40).prepare({"image": scan})
    assert prepared.voxels.shape == (1, 40, 40, 1)
    # Resized, so that mean and deviation are those of the image nearly.
    assert abs(prepared.voxels.mean()) < 0.05 and prepared.voxels.std() == pytest.approx(1, abs=0.1)
    labels = (voxels > 100).astype(np.uint8)
    aligned = prepared.align(Scan(labels, scan.header))
    back = ResizedSlices(size=40).native(
        aligned.astype(np.float32), prepared, lambda probabilities, axes: (probabilities > 0.5).astype(np.uint8)
    )
    assert back.voxels.shape == voxels.shape
    assert (back.voxels == labels).mean() > 0.97
