"""DS-Net gives back as many slices as it took, of every depth from which its factors make three."""

import numpy as np
import pytest
from flat_networks import run, volume
from narrow_networks import narrow_networks

from planar3d.networks.ds_net import DSNet

NARROW = {"filters": (2, 2, 2, 2), "encoder_weights": None}


@pytest.mark.parametrize(
    ("depth", "forms"),
    [(97, {}), (144, {"up_kernels": (), "up_strides": (), "convolutions": 2, "full_resolution": 4})],
    ids=["released", "paper"],
)
def test_every_depth_comes_back_and_volumes_of_a_batch_are_apart(depth, forms, monkeypatch):
    narrow_networks(monkeypatch)
    network = DSNet((depth, 32, 32, 1), **NARROW, **forms)
    voxels = volume(2, depth, 32, 32, 1)
    both = run(network, voxels)
    assert both.shape == (2, depth, 32, 32, 3)
    np.testing.assert_allclose(run(network, voxels[1:]), both[1:], atol=1e-5)
    assert np.abs(both[0] - both[1]).max() > 1e-4


@pytest.mark.parametrize("depth", [96, 145, None])
def test_other_depths_are_refused(depth):
    with pytest.raises(ValueError, match="with its factors ds_net takes 97 to 144 slices"):
        DSNet((depth, 32, 32, 1), **NARROW)
