"""The contrast of a synthetic head is a FLAIR scan's, drawn anew for each."""

import numpy as np
import pytest

from planar3d.training.synthesis.anatomy import TISSUES, Anatomy
from planar3d.training.synthesis.contrast import Contrast


@pytest.fixture(scope="module")
def drawn():
    return [Contrast.drawn(np.random.default_rng(seed)) for seed in range(200)]


def test_tissues_have_the_order_of_flair_in_every_head(drawn):
    """Fluid is dark, cortex as bright as white matter or brighter, bone and air darkest; vessels and fluid may flow."""
    for contrast in drawn:
        of = contrast.of
        assert of("white") == 1 <= of("cortex") <= 1.55
        assert of("cortex") <= of("insula") + 1e-6 and of("thalamus") < of("cortex") and of("striatum") < 1.6
        assert max(of("ventricle"), of("third and fourth ventricle")) <= 0.5 and of("fluid") < 0.65
        assert of("air") <= 0.02 <= of("bone") < 0.2 and 0.25 <= of("muscle") < of("cortex")
        assert (contrast.signals >= 0).all() and (contrast.spreads >= 0).all()
        assert contrast.signals.dtype == contrast.spreads.dtype == np.float32
    cortex = np.array([contrast.of("cortex") for contrast in drawn])
    assert np.median(cortex) < 1.2 and cortex.max() > 1.45  # most are near the lower end
    bright = np.mean([contrast.of("vessel") > 0.6 for contrast in drawn])
    flowing = np.mean([contrast.spreads[TISSUES.index("fluid")] > 0.1 for contrast in drawn])
    assert 0.1 < bright < 0.3 and 0.4 < flowing < 0.6


def test_white_matter_is_brighter_at_the_ventricles_and_most_at_their_horns():
    shape, middle = (60, 90, 50), np.array([30, 45, 25])
    labels = np.full(shape, TISSUES.index("white"), np.uint8)
    labels[:, :, :12] = TISSUES.index("cortex")
    labels[28:33, 25:66, 22:29] = TISSUES.index("ventricle")
    anatomy = Anatomy(labels, np.eye(4))
    contrast = Contrast(np.ones(len(TISSUES)), np.ones(len(TISSUES)), ((1.0, 0.3), (4.0, 0.2), (9.0, 0.1)))
    box, added = contrast.around_ventricles(anatomy)
    whole = np.zeros(shape)
    whole[box] = added
    assert not whole[labels != TISSUES.index("white")].any()
    _, y, z = middle
    beside = whole[33:, y, z]
    at_horn = whole[33:, 25, z]
    assert beside[0] == pytest.approx(max(0.3 * np.exp(-1), 0.1 * np.exp(-1 / 81)), rel=1e-4)  # 1 mm from the wall
    assert (np.diff(beside[:14]) < 0).all() and beside[8] == pytest.approx(0.1 * np.exp(-1), rel=1e-4)
    assert at_horn[2] == pytest.approx(0.2 * np.exp(-9 / 16), rel=1e-4) and at_horn[2] > beside[2]
    np.testing.assert_allclose(whole[33:, 65, z], at_horn)
    bare = Anatomy(np.full(shape, TISSUES.index("white"), np.uint8), np.eye(4))
    assert not contrast.around_ventricles(bare)[1].any()
