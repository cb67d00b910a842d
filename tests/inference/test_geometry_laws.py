"""A mask depends on where a head lies in space, not on how its scan is stored; its file lies where the scan's does.

The networks are random and tiny: what they mark means nothing, so nothing but geometry can make two masks agree.
"""

import gzip
from functools import cache

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations
from scipy import ndimage
from scipy.spatial.transform import Rotation
from stored_scans import TURNS, turned

from planar3d.evaluation.lesion_table import lesion_table
from planar3d.inference.predictor import predictor
from planar3d.inference.prepared_scan import native_mask, predict_prepared, prepare
from planar3d.inference.segmenter import segment
from planar3d.recipes import MODERN, PAPER
from planar3d.scans.volume import Scan, read_scan
from tests.inference_networks import planar_resunet

CUBE, SLICES = PAPER.changed(size=32), MODERN.changed(size=32, pixel_mm=3.0)
ISOTROPIC, THICK = (20, 24, 22), (24, 26, 18)
LAS = np.diag([-3.0, 3.0, 3.0, 1.0]), np.diag([-3.2, 3.0, 7.2, 1.0])


@cache
def _predictor(recipe):
    return predictor(planar_resunet(16, 32), recipe, engine="keras")


_SEEN = {}


def _probabilities(prepared, recipe):
    """Predict what the network has not seen yet: equal voxels, and only they, have the same probabilities."""
    key = (
        recipe.preparation.name,
        prepared.voxels.shape,
        prepared.voxels.tobytes(),
        str(recipe.preparation.stacks(prepared, recipe.tiles.depth)),
    )
    if key not in _SEEN:
        unfitted = recipe.changed(threshold=16.0)
        _SEEN[key] = predict_prepared(_predictor(unfitted), prepared, unfitted)
    return _SEEN[key]


def _head(shape, seed=0):
    """A head without any symmetry, textured, in air."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 1)
    return np.where((places**2).sum(axis=0) < 0.9, 900 + 100 * places[0] + 800 * texture, 9 * rng.random(shape)).astype(
        np.float32
    )


def _scan(voxels, affine):
    return Scan(voxels, nib.Nifti1Image(voxels, affine).header)


def _turned(scan, turn):
    """The same scan, stored along other axes."""
    return _scan(*turned(scan.voxels, scan.affine, turn))


def _fitted(scan, recipe):
    """A recipe whose threshold makes a tenth of the voxels of a scan lesions."""
    prepared = prepare(scan, recipe)
    probabilities = prepared.restore(_probabilities(prepared, recipe)).voxels
    return recipe.changed(threshold=float(256 * np.quantile(probabilities, 0.9)))


def _mask(scan, recipe):
    """What `segment` gives, which would make the network ready for every scan anew."""
    prepared = prepare(scan, recipe)
    return native_mask(_probabilities(prepared, recipe), prepared, recipe)


def _oblique(affine, degrees, seed=3):
    axis = np.random.default_rng(seed).normal(size=3)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(degrees * axis / np.linalg.norm(axis), degrees=True).as_matrix()
    return turn @ affine


@pytest.mark.parametrize(
    ("shape", "affine", "degrees"),
    [(ISOTROPIC, LAS[0], 0), (THICK, LAS[1], 30)],
    ids=["isotropic", "thick and oblique"],
)
@pytest.mark.parametrize("recipe", [CUBE, SLICES], ids=["cube", "slices"])
def test_all_48_storages_of_a_scan_have_one_mask_in_space_voxel_for_voxel(recipe, shape, affine, degrees):
    scan = _scan(_head(shape), _oblique(affine, degrees))
    recipe = _fitted(scan, recipe)
    reference = _mask(scan, recipe)
    lesions = lesion_table(reference)
    assert 0.05 < reference.voxels.mean() < 0.2
    for turn in TURNS:
        stored = _turned(scan, turn)
        mask = _mask(stored, recipe)
        np.testing.assert_array_equal(mask.voxels, orientations.apply_orientation(reference.voxels, turn))
        np.testing.assert_array_equal(mask.affine, stored.affine)
        for here, there in zip(lesion_table(mask), lesions, strict=True):
            assert here.voxels == there.voxels and here.extent_mm == pytest.approx(there.extent_mm, abs=1e-3)
            assert here[3:6] == pytest.approx(there[3:6], abs=1e-3)


def test_a_scan_too_large_to_look_at_every_voxel_is_prepared_alike_from_every_storage():
    scan = _scan(_head((200, 192, 190)), np.diag([-1.0, 1.0, 1.0, 1.0]))
    reference = prepare(scan, SLICES).voxels
    for turn in TURNS[5::12]:
        np.testing.assert_array_equal(prepare(_turned(scan, turn), SLICES).voxels, reference)


@pytest.mark.parametrize("recipe", [CUBE, SLICES], ids=["cube", "slices"])
@pytest.mark.parametrize("degrees", [5, 17.6, 30])
def test_an_oblique_acquisition_is_segmented_in_its_own_planes(recipe, degrees):
    straight = _scan(_head(THICK), LAS[1])
    recipe = _fitted(straight, recipe)
    oblique = _scan(straight.voxels, _oblique(LAS[1], degrees))
    mask = _mask(oblique, recipe)
    np.testing.assert_array_equal(mask.voxels, _mask(straight, recipe).voxels)
    np.testing.assert_array_equal(mask.affine, oblique.affine)


@pytest.mark.parametrize("recipe", [CUBE, SLICES], ids=["cube", "slices"])
def test_where_the_patient_lies_in_the_scanner_changes_no_voxel(recipe):
    scan = _scan(_head(THICK), LAS[1])
    recipe = _fitted(scan, recipe)
    moved = LAS[1].copy()
    moved[:3, 3] = 1234.5, -80, 7
    np.testing.assert_array_equal(_mask(_scan(scan.voxels, moved), recipe).voxels, _mask(scan, recipe).voxels)


@pytest.mark.parametrize("recipe", [CUBE, SLICES], ids=["cube", "slices"])
def test_left_and_right_are_the_patient_s_so_a_mirrored_patient_has_another_mask(recipe):
    scan = _scan(_head(THICK), LAS[1])
    recipe = _fitted(scan, recipe)
    mirrored = _mask(_scan(np.ascontiguousarray(scan.voxels[::-1]), LAS[1]), recipe).voxels
    assert not np.array_equal(mirrored[::-1], _mask(scan, recipe).voxels)


def _both(header, affine):
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)


def _sform_only(header, affine):
    header.set_sform(affine, code=4)
    header.set_qform(None, code=0)


def _qform_only(header, affine):
    header.set_sform(None, code=0)
    header.set_qform(affine, code=2)


def _differing(header, affine):
    header.set_sform(affine, code=2)
    header.set_qform(_oblique(affine, 10), code=1)


GEOMETRY = ("dim", "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "xyzt_units")
PLACE = ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z")


@pytest.mark.parametrize("codes", [_both, _sform_only, _qform_only, _differing])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("units", ["mm", "unknown", "micron"])
def test_the_mask_s_file_has_the_geometry_of_the_scan_s_field_by_field(tmp_path, codes, name, kind, units):
    image = kind(_head(THICK).astype(np.int16), None)
    image.header.set_zooms((3.2, 3.0, 7.2))
    image.header.set_xyzt_units(units, "sec")
    codes(image.header, _oblique(LAS[1], 12))
    content = image.to_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    _mask(read_scan(tmp_path / name), CUBE.changed(threshold=100)).save(tmp_path / f"mask_{name}")
    scan, mask = nib.load(tmp_path / name), nib.load(tmp_path / f"mask_{name}")
    assert type(mask) is kind and mask.get_data_dtype() == np.uint8
    for field in (*GEOMETRY, *PLACE):
        np.testing.assert_array_equal(mask.header[field], scan.header[field], err_msg=field)


def test_a_trailing_single_axis_is_dropped_and_the_grid_is_kept(write_nifti, tmp_path):
    voxels = _head(THICK)
    path = write_nifti(voxels[..., None], affine=_oblique(LAS[1], 12))
    mask = _mask(read_scan(path), CUBE)
    nib.load(mask.save(tmp_path / "mask.nii.gz"))
    before, after = nib.load(path), nib.load(tmp_path / "mask.nii.gz")
    assert after.shape == before.shape[:3]
    np.testing.assert_array_equal(after.affine, before.affine)
    np.testing.assert_array_equal(after.header["pixdim"][:4], before.header["pixdim"][:4])
    flat = _mask(read_scan(write_nifti(voxels, "flat.nii", affine=_oblique(LAS[1], 12))), CUBE)
    np.testing.assert_array_equal(mask.voxels, flat.voxels)


def test_segment_gives_these_masks(write_nifti):
    path = write_nifti(_head(THICK), affine=_oblique(LAS[1], 12))
    recipe = _fitted(read_scan(path), SLICES)
    mask = segment(path, (planar_resunet(16, 32), recipe), engine="keras")
    np.testing.assert_array_equal(mask.voxels, _mask(read_scan(path), recipe).voxels)


@pytest.mark.real
@pytest.mark.parametrize("recipe", [CUBE, SLICES], ids=["cube", "slices"])
def test_a_real_oblique_scan_of_18_slices_has_one_mask_in_space(real_data, recipe):
    scan = read_scan(real_data / "data/ms_flair/sub-106639/anat/sub-106639_FLAIR.nii.gz")
    assert scan.voxels.shape == (256, 256, 18)
    recipe = _fitted(scan, recipe)
    reference = _mask(scan, recipe)
    assert reference.voxels.any()
    for turn in TURNS[::9]:
        mask = _mask(_turned(scan, turn), recipe)
        np.testing.assert_array_equal(mask.voxels, orientations.apply_orientation(reference.voxels, turn))
