"""Windows cover a volume, and composing them gives the volume again."""

import numpy as np
import pytest

from planar3d.scans.targets import threshold
from planar3d.scans.windows import compose, cut_windows, network_input


def test_256_slices_give_31_windows_that_share_the_volume_s_memory():
    volume = np.zeros((256, 2, 3), np.uint8)
    windows = cut_windows(volume)
    assert windows.shape == (31, 16, 2, 3)
    assert np.shares_memory(windows, volume)


def test_composition_takes_the_slices_of_equation_1():
    windows = np.arange(31)[:, None] * 100 + np.arange(1, 17)
    composed = compose(windows)
    assert len(composed) == 256
    np.testing.assert_array_equal(composed[:12], np.arange(1, 13))
    for window in range(1, 30):
        np.testing.assert_array_equal(composed[4 + 8 * window : 12 + 8 * window], window * 100 + np.arange(5, 13))
    np.testing.assert_array_equal(composed[-12:], 3000 + np.arange(5, 17))
    for slices in (1, 100, 255):
        np.testing.assert_array_equal(compose(windows, slices=slices), composed[:slices])


@pytest.mark.parametrize(("depth", "stride"), [(16, 8), (16, 16), (16, 4), (32, 8), (5, 3), (1, 1)])
def test_any_number_of_slices_composes_without_gap_or_overlap(depth, stride):
    for slices in range(depth, 4 * depth + 7):
        volume = np.arange(slices)
        np.testing.assert_array_equal(compose(cut_windows(volume, depth, stride), stride, slices), volume)


@pytest.mark.parametrize(("depth", "stride"), [(16, 0), (16, -8), (16, 18), (16, 7)])
def test_depths_and_strides_that_leave_gaps_are_refused(depth, stride):
    with pytest.raises(ValueError, match=r"stride|even"):
        cut_windows(np.zeros(64), depth, stride)
    with pytest.raises(ValueError, match=r"stride|even"):
        compose(np.zeros((3, depth)), stride)


def test_too_few_slices_are_refused():
    with pytest.raises(ValueError, match="15 slices"):
        cut_windows(np.zeros(15))


def test_the_paper_s_threshold_is_16_of_256():
    np.testing.assert_array_equal(threshold(np.float32([0, 16 / 256, 17 / 256, 1])), [0, 0, 1, 1])


def test_the_released_threshold_follows_the_volume_s_maximum():
    def as_released(p):
        q = (p * 255.0).astype(np.uint8)
        t = q.max() // 16
        q[q < t] = 0
        q[q > t] = 255
        return np.around(q / 255).astype(np.uint8)

    rng = np.random.default_rng(0)
    for top in (1.0, 0.5, 0.07, 0.02):
        p = (top * rng.random(5000)).astype(np.float32)
        np.testing.assert_array_equal(threshold(p, 16, "released"), as_released(p))


def test_probabilities_rounded_beyond_0_and_1_count_as_0_and_1():
    beyond, exact = np.float32([-0.009, 0.06, 1.009]), np.float32([0, 0.06, 1])
    for rule, highest in (("absolute", None), ("released", None), ("released", 1.009)):
        np.testing.assert_array_equal(threshold(beyond, 15, rule, highest), threshold(exact, 15, rule))


def test_nothing_is_marked_in_no_voxels():
    assert threshold(np.zeros((0, 2)), 16, "released").shape == threshold(np.zeros((0, 2))).shape == (0, 2)


def test_the_network_sees_minus_one_to_one_in_every_channel():
    x = network_input(np.uint8([[[0], [128], [255]]]), 3)
    assert x.shape == (1, 3, 3) and x.dtype == np.float32
    np.testing.assert_array_equal(x[0, :, 0], np.float32([-1, 0, 127 / 128]))
    np.testing.assert_array_equal(x[..., 0], x[..., 2])
    assert not x.strides[-1]  # no channel is a copy


def test_voxels_without_the_axis_of_their_image_are_refused():
    with pytest.raises(ValueError, match=r"32 images along .* axes are \(slices, rows, cols, images\)"):
        network_input(np.zeros((16, 32, 32), np.uint8))
