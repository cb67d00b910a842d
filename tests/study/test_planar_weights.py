"""The planar encoder is written as Keras 3 and as the original release would, with its figure."""

import os

import numpy as np
import pytest

import planar3d as p3
from planar3d.errors import WeightsError
from planar3d.locks import CLAIM, holder_of
from planar3d.networks import vgg16
from planar3d.networks.vgg16 import PlanarVGG16, encoder_layer_names
from planar3d.study import planar_weights
from planar3d.study.planar_weights import write_planar_weights

pytestmark = pytest.mark.usefixtures("module_narrow")


@pytest.fixture(scope="module")
def kernels_2d(module_narrow, tmp_path_factory):
    """A file of random 2D VGG-16 kernels of few channels."""
    rng = np.random.default_rng(0)
    arrays, channels = {}, 3
    sizes = [filters for filters, count in vgg16.BLOCKS for _ in range(count)]
    for name, filters in zip(encoder_layer_names(), sizes, strict=True):
        arrays[f"{name}/kernel"] = rng.standard_normal((3, 3, channels, filters), np.float32)
        arrays[f"{name}/bias"] = rng.standard_normal(filters, np.float32)
        channels = filters
    path = tmp_path_factory.mktemp("weights") / "flat.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("format", ["keras", "h5"])
def test_the_written_file_holds_the_2d_kernels_as_planes_and_is_no_source_of_others(
    kernels_2d, tmp_path, monkeypatch, format
):
    monkeypatch.setattr(planar_weights, "_COUNT", 2)  # kernels that are drawn, of which each takes a moment
    drawn, holders, told = planar_weights.draw_kernels, [], []
    monkeypatch.setattr(
        planar_weights, "draw_kernels", lambda *given: holders.append(holder_of(tmp_path / CLAIM)) or drawn(*given)
    )
    path, figure = write_planar_weights(tmp_path, str(kernels_2d), format, told.append)
    assert "the user's own" in told[0] and figure.stat().st_size > 1000
    assert [holder.pid for holder in holders] == [os.getpid()]  # no other process removes the half-written figure
    network = PlanarVGG16((16, 32, 32, 3), weights=None)
    report = p3.load_weights(network, path)
    assert len(report.matched) == 26 and not report.missing and not report.unused
    with np.load(kernels_2d) as arrays:
        for name in encoder_layer_names():
            np.testing.assert_array_equal(network.get_layer(name).kernel[0], arrays[f"{name}/kernel"])
    with pytest.raises(WeightsError, match="2D kernels"):
        write_planar_weights(tmp_path / "again", str(path), format, told.append)
    assert not (tmp_path / "again").exists()


def test_layers_that_the_source_lacks_are_not_written_at_random(kernels_2d, tmp_path):
    with np.load(kernels_2d) as arrays:
        np.savez(tmp_path / "first.npz", **{name: arrays[name] for name in arrays if name.startswith("block1")})
    with pytest.raises(WeightsError, match=r"first\.npz does not fit the encoder vgg16: it lacks 22 weights: block2"):
        write_planar_weights(tmp_path / "out", str(tmp_path / "first.npz"), "keras", lambda text: None)
    assert not (tmp_path / "out").exists()
