import base64
import zlib

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial import distance
from stored_scans import CODES, scan_along

from planar3d.errors import ScanError
from planar3d.evaluation.viewer import LONGEST, WHITE, prepare_pictures

SPACING = (1.0, 1.2, 3.0)
OBLIQUE = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, -0.15, 0.1) @ np.diag(SPACING), (-20, 30, 7))


def stored(voxels, axes="RAS", affine=None):
    straight = nib.affines.from_matvec(np.diag(SPACING), (-20, 30, 7))
    return scan_along(axes, voxels, straight if affine is None else affine)


@pytest.fixture
def head():
    """A bright ellipsoid without symmetry in much air, and a mask of two lesions inside."""
    i, j, k = np.ogrid[-1.5:1.5:30j, -1.5:1.5:36j, -1.5:1.5:14j]
    voxels = np.where(i**2 + j**2 + k**2 < 0.9, 500 + 100 * (i + j + k), 5).astype(np.int16)
    mask = np.zeros(voxels.shape, np.uint8)
    mask[10:13, 18:22, 6:9] = 1
    mask[19, 12, 5] = 1
    return voxels, mask


def unpacked(content, name):
    stream = zlib.decompress(base64.b64decode(content["volumes"][name]))
    return np.frombuffer(stream, np.uint8).reshape(content["shape"], order="F")


def shown_voxels(matrix, marked):
    """Where the marked voxels of what is shown lie under a matrix."""
    return nib.affines.apply_affine(matrix, np.argwhere(marked))


def as_set(points):
    return {tuple(point) for point in np.rint(points).astype(int)}


def test_pictures_do_not_depend_on_how_the_scan_is_stored(head):
    voxels, mask = head
    upright = prepare_pictures(stored(voxels), stored(mask))
    for axes in CODES:
        turned = prepare_pictures(stored(voxels, axes), stored(mask, axes))
        for name, volume in upright.volumes.items():
            np.testing.assert_array_equal(turned.volumes[name], volume, err_msg=axes)
        np.testing.assert_allclose(turned.affine, upright.affine, atol=1e-4, err_msg=axes)
        assert turned.start == upright.start, axes


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL", "PIR"])
def test_the_mask_unpacks_to_the_voxels_of_the_file(head, axes):
    voxels, mask = head
    content = prepare_pictures(stored(voxels, axes), stored(mask, axes)).to_json()
    found = shown_voxels(np.array(content["to_stored"]), unpacked(content, "mask"))
    assert as_set(found) == as_set(np.argwhere(stored(mask, axes).voxels))


def test_places_in_mm_are_those_of_the_file_also_where_it_is_oblique(head):
    voxels, mask = head
    scan, marked = stored(voxels, affine=OBLIQUE), stored(mask, affine=OBLIQUE)
    pictures = prepare_pictures(scan, marked)
    for voxel in np.argwhere(marked.voxels):
        place = pictures.place(nib.affines.apply_affine(scan.affine, voxel))
        assert pictures.volumes["mask"][place] == 1
        np.testing.assert_allclose(nib.affines.apply_affine(pictures.to_stored, place), voxel, atol=1e-6)


def test_air_is_cut_off_but_no_lesion_in_it(head):
    voxels, mask = head
    cut = prepare_pictures(stored(voxels), stored(mask))
    assert all(a < b for a, b in zip(cut.shape, voxels.shape, strict=True))
    mask[-1, -1, -1] = 1
    whole = prepare_pictures(stored(voxels), stored(mask))
    assert whole.volumes["mask"].sum() == mask.sum()


def test_intensities_above_white_can_still_be_told_apart(head):
    voxels, mask = head
    voxels[16, 19, 7], voxels[17, 19, 7] = 700, 750
    shown = prepare_pictures(stored(voxels), stored(mask)).volumes["scan"]
    second, first = np.sort(shown.ravel())[-2:]
    assert shown.min() == 0
    assert first > second > WHITE


def test_a_fine_scan_is_reduced_and_no_lesion_is_lost():
    shape = (2 * LONGEST - 100, 40, LONGEST)
    rng = np.random.default_rng(0)
    voxels, mask = rng.uniform(50, 100, shape).astype(np.float32), rng.random(shape) < 1e-4
    pictures = prepare_pictures(stored(voxels), stored(mask.astype(np.uint8)))
    assert pictures.shape == (LONGEST, 40, LONGEST)
    assert pictures.native == (shape[0] / LONGEST, 1, 1)
    # Nothing moves by more than half a shown voxel.
    marked = shown_voxels(pictures.to_stored, pictures.volumes["mask"])
    apart = distance.cdist(np.argwhere(mask), marked, "chebyshev")
    farthest = max(apart.min(axis=0).max(), apart.min(axis=1).max())
    assert 0 < farthest <= pictures.native[0] / 2


def test_the_place_of_a_voxel_of_a_reduced_scan_is_the_shown_voxel_that_contains_it():
    voxels = np.random.default_rng(0).normal(100, 5, (300, 511, 7)).astype(np.float32)
    mask = np.zeros(voxels.shape, np.uint8)
    mask[10:290, 10:500:7, 2] = np.eye(280, 70)
    scan, lesions = (
        scan_along("LAS", voxels, np.diag([0.5, 0.4, 3, 1])),
        scan_along("LAS", mask, np.diag([0.5, 0.4, 3, 1])),
    )
    pictures = prepare_pictures(scan, lesions)
    places = nib.affines.apply_affine(lesions.affine, np.argwhere(lesions.voxels))
    assert len(places) == 70 and all(pictures.volumes["mask"][pictures.place(place)] for place in places)


def test_means_of_a_reduced_scan_keep_its_level():
    voxels = np.full((2 * LONGEST - 100, 8, 8), 80, np.float32)
    voxels[:, :, :4] = 20
    shown = prepare_pictures(stored(voxels), stored(np.zeros(voxels.shape, np.uint8))).volumes["scan"]
    assert set(np.unique(shown)) == {0, WHITE}


def test_probabilities_are_kept_to_the_nearest_of_255(head):
    voxels, mask = head
    probability = np.random.default_rng(0).random(voxels.shape).astype(np.float32)
    pictures = prepare_pictures(stored(voxels), stored(mask), stored(probability))
    i, j, k = np.rint(shown_voxels(pictures.to_stored, np.ones(pictures.shape))).astype(int).T
    assert np.abs(pictures.volumes["probability"].ravel() / 255 - probability[i, j, k]).max() <= 0.5 / 255 + 1e-6


def test_every_target_has_its_mask_and_colour_and_no_small_one_is_lost():
    shape = (2 * LONGEST, 20, 20)
    labels = np.full(shape, 2, np.uint8)
    labels[::2, 7, 7] = 1  # half of the voxels that become one
    masks = {"whole": labels > 0, "core": labels == 1}
    scan = stored(np.random.default_rng(0).uniform(50, 100, shape).astype(np.float32))
    content = prepare_pictures(scan, stored(labels), targets=masks).to_json()
    assert [target["name"] for target in content["targets"]] == ["whole", "core"]
    assert len({target["colour"] for target in content["targets"]}) == 2
    whole, core = (unpacked(content, target["volume"]) for target in content["targets"])
    assert whole.all() and core.sum() == LONGEST and core[:, 7, 7].all()


def test_lesions_alone_are_the_mask_itself(head):
    voxels, mask = head
    content = prepare_pictures(stored(voxels), stored(mask)).to_json()
    assert content["volumes"].keys() == {"scan", "mask"}
    assert [(target["name"], target["volume"]) for target in content["targets"]] == [("lesion", "mask")]


@pytest.mark.parametrize(("axis", "name"), [(0, "sagittal"), (1, "coronal"), (2, "axial")])
def test_of_a_two_dimensional_image_only_its_plane_is_shown(head, axis, name):
    flattened = [volume.take([volume.shape[axis] // 2], axis) for volume in head]
    whole, flat = (prepare_pictures(*map(stored, volumes)).to_json() for volumes in (head, flattened))
    assert [view["name"] for view in whole["views"]] == ["sagittal", "axial", "coronal"]
    assert [view["name"] for view in flat["views"]] == [name] and flat["shape"][axis] == 1


def test_an_empty_mask_is_looked_at_in_the_middle(head):
    voxels, mask = head
    pictures = prepare_pictures(stored(voxels), stored(0 * mask))
    assert pictures.start == tuple(n // 2 for n in pictures.shape)


@pytest.mark.parametrize("wrong", ["mask", "probability"])
def test_another_grid_is_refused(head, wrong):
    voxels, mask = head
    volumes = {"mask": stored(mask), "probability": stored(mask.astype(np.float32))}
    volumes[wrong] = stored(volumes[wrong].voxels[1:])
    with pytest.raises(ScanError, match=r"has shape \(29, 36, 14\), but its scan has \(30, 36, 14\)"):
        prepare_pictures(stored(voxels), **volumes)
