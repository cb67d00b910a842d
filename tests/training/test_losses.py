"""The loss is the paper's: cross-entropy minus Dice plus one."""

import numpy as np
import pytest

from planar3d.training.losses import bce_minus_dice, soft_dice


def test_dice_of_binary_masks_is_equation_4():
    x, y = np.float32([1, 1, 0, 0, 1]), np.float32([1, 0, 0, 1, 1])
    assert float(soft_dice(x, y)) == pytest.approx(2 * 2 / (3 + 3))


def test_smoothing_is_the_released_code_s():
    assert float(soft_dice(np.zeros(4), np.zeros(4), 1.0)) == 1
    assert float(soft_dice(np.zeros(4), np.zeros(4), 0.0)) == 0
    x = np.float32([1, 0])
    assert float(soft_dice(x, x, 1.0)) == pytest.approx((2 + 1) / (2 + 1))


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_the_loss_is_equation_5_over_the_whole_batch(smoothing):
    rng = np.random.default_rng(0)
    y = (rng.random((2, 4, 4, 4, 1)) > 0.7).astype(np.float32)
    p = rng.uniform(0.05, 0.95, y.shape).astype(np.float32)
    cross_entropy = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    dice = (2 * np.sum(y * p) + smoothing) / (np.sum(y) + np.sum(p) + smoothing)
    assert float(bce_minus_dice(smoothing)(y, p)) == pytest.approx(cross_entropy - dice + 1, rel=1e-5)


def test_the_loss_is_finite_at_certainty():
    zeros, ones = np.zeros((1, 2, 2, 2, 1), np.float32), np.ones((1, 2, 2, 2, 1), np.float32)
    for y in (zeros, ones):
        for p in (zeros, ones):
            assert np.isfinite(float(bce_minus_dice()(y, p)))
