"""The figure of kernels before and after the mapping shows the same greys twice."""

import numpy as np
import pytest

from planar3d.study.planar_weights import draw_kernels


def test_both_halves_show_the_extreme_greys(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    kernels = np.zeros((3, 3, 3, 8), np.float32)
    kernels[0, 0], kernels[2, 2] = 1, -1
    path = tmp_path / "figures" / "kernels.png"
    draw_kernels(kernels, path)
    pixels = image.imread(path)[..., :3]
    assert [p.name for p in path.parent.iterdir()] == ["kernels.png"]
    width = pixels.shape[1]
    below = pixels[pixels.shape[0] // 10 :]
    for half in (below[:, : width // 2], below[:, width // 2 :]):
        assert (np.abs(half - 0.5).max(axis=-1) < 0.02).mean() > 0.02  # the zeros, mid-grey
        assert (half.max(axis=-1) < 0.02).mean() > 0.005  # the -1, black
