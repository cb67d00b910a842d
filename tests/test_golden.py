"""Preparation, composition and the published model's masks are what they were."""

import json

import numpy as np
import pytest
from golden_items import ARRAYS, DIGESTS, computed, conditions, digest


def assert_close(found, expected):
    """By another processor or other libraries sums round otherwise: a grey level or a voxel of the mask differs."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    differing = found != expected
    if expected.max() > 1:
        assert np.abs(found.astype(int) - expected).max() <= 1 and differing.mean() <= 1e-3
    else:
        assert differing.sum() <= 0.002 * max(found.sum(), expected.sum()) + 2


def test_nothing_golden_has_changed(tmp_path, built_once):
    pytest.importorskip("nilearn")
    recorded = json.loads(DIGESTS.read_text()).get(conditions(), {})
    with np.load(ARRAYS) as kept:
        names = set(kept.files)
        for name, array in computed(tmp_path):
            if name in recorded:
                assert digest(array) == recorded[name], f"{name} differs by {np.sum(array != kept[name])} voxels"
            assert_close(array, kept[name])
            assert array.any(), name
            names.remove(name)
    assert not names
