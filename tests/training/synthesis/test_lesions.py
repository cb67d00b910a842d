"""Lesions of patients keep their place, shape and volume in another head, but for what is drawn."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from planar3d.training.synthesis import lesions as lesions_module
from planar3d.training.synthesis.anatomy import LESION_TISSUE, TISSUES, Anatomy
from planar3d.training.synthesis.lesions import LesionShapes, _paint, place_lesions

SHAPE, MIDDLE = (100, 130, 110), np.array([50, 70, 55])


@pytest.fixture
def anatomy():
    """White matter in MNI space, whose origin is `MIDDLE`."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:90, 15:115, 10:100] = TISSUES.index("white")
    labels[48:53, 60:80, 55:60] = TISSUES.index("ventricle")
    labels[10:90, 15:30] = TISSUES.index("cortex")
    head = Anatomy(labels, np.eye(4))
    head.__dict__["template"] = np.column_stack([np.eye(3), -MIDDLE])
    return head


WHITE = Anatomy(np.full(SHAPE, TISSUES.index("white"), np.uint8), np.eye(4))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """One patient with a large lesion and small ones, one of them below the brain, stored from right to left."""
    folder = tmp_path_factory.mktemp("masks")
    mask = np.zeros((91, 109, 131), np.uint8)
    affine = np.array([[-1.0, 0, 0, 45], [0, 1, 0, -50], [0, 0, 1, -80], [0, 0, 0, 1]])
    for corner, size in (
        ((20, 10, 20), (20, 12, 9)),
        ((-20, 30, 30), (4, 5, 6)),
        ((5, -30, -20), (3, 3, 3)),
        ((5, -30, -75), (2, 3, 4)),
    ):
        i, j, k = np.rint(np.linalg.inv(affine)[:3] @ [*corner, 1]).astype(int)
        mask[i - size[0] + 1 : i + 1, j : j + size[1], k : k + size[2]] = 1
    mask[5, 5, 5:9] = 1  # four voxels are no lesion
    nib.save(nib.Nifti1Image(mask, affine), folder / "patient.nii")
    return LesionShapes.read(folder)


def test_shapes_have_their_place_in_mni_space_and_the_frequency_is_highest_there(shapes):
    order = np.argsort(-shapes.volumes)
    assert shapes.volumes[order].tolist() == [20 * 12 * 9, 4 * 5 * 6, 27, 24]
    assert shapes.sizes[order].tolist() == [[20, 12, 9], [4, 5, 6], [3, 3, 3], [2, 3, 4]]
    np.testing.assert_allclose(
        shapes.centers[order], [[29.5, 15.5, 24], [-18.5, 32, 32.5], [6, -29, -19], [5.5, -29, -73.5]], atol=1e-4
    )
    frequency = shapes.frequency
    assert frequency.mean() == pytest.approx(1)
    np.testing.assert_allclose(frequency, frequency[::-1])  # the lattice is symmetric about the midline
    for x, y, z in shapes.centers:
        at = (
            np.rint(np.add([[x, y, z], [-x, y, z]], [80, 112, 64]) / 4).astype(int).clip(0)
        )  # at the border, one beyond
        assert (frequency[tuple(at.T)] > 0.3 * frequency.max()).all()
    assert frequency[0, 0, 0] < 0.01


def _painted(anatomy, shape, center, matrix, gain=0.5, seed=0):
    placed = np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32)
    still = np.zeros(SHAPE, np.float32)
    return _paint(anatomy, placed, shape, np.array(center), matrix, gain, still, np.random.default_rng(seed)), placed


def test_a_lesion_is_painted_where_and_as_its_matrix_says():
    """Every axis has its own length: mixed axes, a transposed or an inverse matrix would give another box."""
    shape = np.zeros((30, 10, 16), bool)
    shape[:, :, :8] = shape[:15] = True
    for matrix, size in (
        (np.eye(3), (30, 10, 16)),
        (np.eye(3) / 1.5, (45, 15, 24)),
        (np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]), (16, 30, 10)),  # the anatomy's j, k, i are the shape's axes
    ):
        added, (share, level) = _painted(WHITE, shape, (40, 95, 60.0), matrix)
        inside = share > 0.5
        assert added == np.count_nonzero(inside)
        assert added == pytest.approx(shape.sum() / abs(np.linalg.det(matrix)), rel=0.09)
        (box,) = ndimage.find_objects(inside.astype(int))
        np.testing.assert_allclose([part.stop - part.start for part in box], size, atol=2)
        np.testing.assert_allclose([(part.stop + part.start - 1) / 2 for part in box], (40, 95, 60), atol=1.1)
        cut = np.sign(np.linalg.solve(matrix, [1.0, 0, 1])).astype(int)  # the corner of the shape that lacks
        corner = np.array([40, 95, 60]) + cut * np.array(size) // 3
        assert share[tuple(corner)] < 0.5 < share[tuple(2 * np.array([40, 95, 60]) - corner)]
        np.testing.assert_allclose(level[inside], 1.5)
        assert (level[share == 0] == 1).all() and share.max() <= 1 and share.min() >= 0


def test_of_two_lesions_the_larger_share_stays_and_no_voxel_counts_twice(anatomy):
    shape = np.ones((12, 12, 12), bool)
    _, placed = _painted(anatomy, shape, (30, 95, 60), np.eye(3), gain=0.9)
    first = placed[0].copy()
    again = _paint(
        anatomy, placed, shape, np.array([38.0, 95, 60]), np.eye(3), 0.2, 0 * first, np.random.default_rng(0)
    )
    assert again == np.count_nonzero((placed[0] > 0.5) & (first <= 0.5)) < 0.9 * 12**3
    assert (placed[0] >= first).all() and placed[1][30, 95, 60] == pytest.approx(1.9)
    assert placed[1][43, 95, 60] == pytest.approx(1.2)


def test_a_lesion_reaches_for_the_ventricle_near_it_and_not_for_one_far_away(anatomy):
    shape = np.ones((7, 7, 7), bool)
    near, (share, _) = _painted(anatomy, shape, (58, 70, 57), np.eye(3))  # its wall is at 52
    far, _ = _painted(anatomy, shape, (80, 70, 57), np.eye(3))
    assert near > 1.2 * far and share[53, 70, 57] > 0.4


@pytest.mark.parametrize("axis", range(3))
def test_a_lesion_at_or_beyond_the_border_of_a_map_adds_only_what_lies_inside(axis):
    """One whose box touched the outermost plane alone ended in an IndexError."""
    shape, last = np.ones((5, 5, 5), bool), SHAPE[axis] - 1
    inside, _ = _painted(WHITE, shape, MIDDLE, np.eye(3))
    for beyond in np.arange(0, 12, 0.5):
        added = []
        for place in (-beyond, last + beyond):
            center = MIDDLE.astype(float)
            center[axis] = place
            added.append(_painted(WHITE, shape, center, np.eye(3))[0])
        assert added[0] == added[1] <= 0.65 * inside and (beyond < 4 or added[0] == 0) and (beyond or added[0])


def test_a_large_lesion_stays_in_place_or_is_mirrored_with_all_of_its_patient(anatomy, shapes):
    sides = set()
    volume = shapes.volumes.max()
    for seed in (3, 4, 5, 7):
        share, _ = place_lesions(anatomy, shapes, volume, 0.5, np.random.default_rng(seed))
        assert 0.8 * volume < np.count_nonzero(share > 0.5) < 1.35 * volume  # what comes last is scaled to the rest
        labels, _ = ndimage.label(share > 0.5)
        largest = labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1
        center = np.argwhere(largest).mean(axis=0) - MIDDLE
        np.testing.assert_allclose(np.abs(center), np.abs(shapes.centers[np.argmax(shapes.volumes)]), atol=18)
        sides.add(np.sign(center[0]))
    assert sides == {-1, 1}


def test_small_lesions_move_to_where_lesions_are_frequent_and_large_ones_do_not_grow_beyond_the_volume(
    anatomy, shapes, monkeypatch
):
    monkeypatch.setattr(lesions_module, "_MOVED", 1.0)
    monkeypatch.setattr(lesions_module, "_SHARES", (0, 1, 0, 0))  # deep white matter
    frequent = np.zeros((41, 49, 38))
    frequent[24:, 28:] = 50  # right of 16 mm, in front of 0
    shapes.__dict__["frequency"] = frequent
    try:
        share, level = place_lesions(anatomy, shapes, 900.0, 0.4, np.random.default_rng(0))
    finally:
        del shapes.__dict__["frequency"]
    inside = share > 0.5
    x, y, _ = (np.argwhere(inside) - MIDDLE).T
    assert np.mean((x > 10) & (y > -6)) > 0.9
    assert not share[~LESION_TISSUE[anatomy.labels]].any()
    assert 0.7 * 900 < np.count_nonzero(inside) < 1.35 * 900
    assert level[inside].mean() == pytest.approx(1.4, abs=0.12)


def test_no_head_is_filled_with_lesions(shapes):
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[5:25, 5:25, 5:25] = TISSUES.index("white")
    small = Anatomy(labels, np.eye(4))
    small.__dict__["template"] = np.column_stack([np.eye(3), np.full(3, -15)])
    share, _ = place_lesions(small, shapes, 1e6, 0.5, np.random.default_rng(0))
    assert 0.2 * 20**3 < np.count_nonzero(share > 0.5) < 0.55 * 20**3
