"""Heads that a generator draws of a head of ellipsoids, and of the real maps where they are at hand."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner

from planar3d.cli import app
from planar3d.errors import DatasetError, ScanError
from planar3d.inference.prepared_scan import prepare
from planar3d.recipes import MODERN
from planar3d.scans.layouts import find_cases
from planar3d.scans.phantom_scanner import CENTERS
from planar3d.scans.volume import read_mask, read_scan
from planar3d.training.synthesis import Anatomy, HeadGenerator, LesionShapes, phantom_of, read_anatomies, read_anatomy
from planar3d.training.synthesis.anatomy import BRAIN, LESION_TISSUE, TISSUES
from planar3d.training.synthesis.lesions import place_lesions
from planar3d.training.synthesis.scanner import Pose

SHAPE = (70, 90, 84)  # right, anterior, superior
# FreeSurfer's labels: middles and radii in voxels, painted in this order.
ELLIPSOIDS = (
    (511, (35, 45, 42), (34, 44, 41)),
    (507, (35, 45, 42), (32, 42, 39)),
    (515, (35, 45, 42), (30, 40, 37)),
    (24, (35, 45, 42), (27, 37, 34)),
    (3, (35, 47, 47), (25, 34, 27)),
    (2, (35, 47, 47), (21, 30, 23)),
    (12, (43, 52, 42), (3, 4, 3)),
    (51, (27, 52, 42), (3, 4, 3)),
    (10, (35, 46, 42), (5, 4, 3)),
    (4, (35, 48, 48), (5, 12, 4)),
    (8, (35, 25, 22), (14, 10, 9)),
    (16, (35, 38, 20), (5, 5, 10)),
)


def painted():
    labels = np.zeros(SHAPE, np.int32)
    places = np.indices(SHAPE)
    for label, middle, radii in ELLIPSOIDS:
        apart = [(place - m) / r for place, m, r in zip(places, middle, radii, strict=True)]
        labels[sum(part**2 for part in apart) < 1] = label
    return labels


def save(voxels, path, corner=(0, 0, 0)):
    affine = np.eye(4)
    affine[:3, 3] = corner
    # Stored left, inferior, anterior, as SynthSeg's maps are.
    image = nib.Nifti1Image(voxels, affine)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt("LIA"))
    nib.save(image.as_reoriented(turn), path)


@pytest.fixture(scope="module")
def anatomy(tmp_path_factory):
    path = tmp_path_factory.mktemp("maps") / "one.nii.gz"
    save(painted(), path)
    return read_anatomy(path)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("masks"), np.random.default_rng(0)
    for patient, radii in enumerate(((2, 3, 4), (5, 4, 3))):
        mask = np.zeros((90, 110, 90), np.uint8)
        for _ in range(4):
            apart = (np.indices(mask.shape) - np.reshape(rng.integers(20, 70, 3), (3, 1, 1, 1))).T / radii
            mask[(np.linalg.norm(apart, axis=-1) < 1).T] = 1
        save(mask, folder / f"patient{patient}.nii.gz", (-45, -70, -20))
    return LesionShapes.read(folder)


def test_a_lesion_mask_without_geometry_is_refused_without_advice_to_assume_one(tmp_path):
    image = nib.Nifti1Image(np.eye(9, dtype=np.uint8)[None].repeat(9, 0), None)
    nib.save(image, tmp_path / "patient.nii")
    with pytest.raises(ScanError, match=r"neither sform nor qform is set\)\. Convert the original data again\.$"):
        LesionShapes.read(tmp_path)


def test_lesion_masks_of_other_voxels_are_refused(tmp_path):
    """A mask of 2 mm gave lesions of an eighth of the volume."""
    mask = np.zeros((9, 9, 9), np.uint8)
    mask[2:5, 2:5, 2:5] = 1
    nib.save(nib.Nifti1Image(mask, np.diag([2, 2, 2, 1])), tmp_path / "patient.nii")
    with pytest.raises(ScanError, match=r"patient\.nii has voxels of 2 × 2 × 2 mm; 1 mm is needed"):
        LesionShapes.read(tmp_path)


@pytest.fixture(scope="module")
def generator(anatomy, shapes):
    return HeadGenerator((anatomy,), shapes, loads_ml=(0.5, 5.0))


def test_a_map_is_read_by_tissue_and_a_compact_file_holds_the_same(anatomy, tmp_path):
    assert anatomy.labels.dtype == np.uint8
    kept = anatomy.labels.shape
    assert np.count_nonzero(anatomy.labels == TISSUES.index("ventricle")) == np.count_nonzero(painted() == 4)
    assert {TISSUES[index] for index in np.unique(anatomy.labels)} >= {"white", "insula", "fat", "marrow", "skin"}
    again = read_anatomy(anatomy.save(tmp_path / "one.npz"))
    assert np.array_equal(again.labels, anatomy.labels) and np.array_equal(again.affine, anatomy.affine)
    assert again.name == "one" and again.labels.shape == kept


@pytest.mark.parametrize(
    ("label", "zoom", "sentence"),
    [(777, 1.0, "labels .* head: 777\\."), (2, 2.0, "voxels of 2"), (2, 0.5, "voxels of 0.5")],
)
def test_a_map_of_other_labels_or_voxels_is_refused(tmp_path, label, zoom, sentence):
    labels = painted()
    labels[labels == 2] = label
    nib.save(nib.Nifti1Image(labels, np.diag([zoom, zoom, zoom, 1])), tmp_path / "m.nii.gz")
    with pytest.raises(ScanError, match=sentence):
        read_anatomy(tmp_path / "m.nii.gz")


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (lambda labels: np.stack([labels, labels], -1), r"is 4-D .* a label map, a single volume"),
        (lambda labels: labels[:, :, 40], "is 2-D"),
        (lambda labels: np.where(labels == 2, 65538, labels), "has values from 0 to 65538; FreeSurfer's labels"),
        (lambda labels: -labels, "has values from -515 to 0"),
        (lambda labels: labels / np.float32(2), "whole numbers"),
        (lambda labels: np.where(labels > 500, labels, 0), "shows no brain"),
        (lambda labels: np.where(labels == 0, np.nan, labels).astype(np.float32), "has NaN or infinity in"),
    ],
)
def test_what_is_no_map_of_labels_is_refused_by_what_it_is(tmp_path, changed, sentence):
    """Labels beyond 16 bits became others, NaN and fractions too."""
    nib.save(nib.Nifti1Image(changed(painted()), np.eye(4)), tmp_path / "m.nii")
    with pytest.raises(ScanError, match=sentence):
        read_anatomy(tmp_path / "m.nii")


def test_a_map_of_one_volume_in_four_axes_is_read(anatomy, tmp_path):
    nib.save(nib.Nifti1Image(painted()[..., None], np.eye(4)), tmp_path / "m.nii")
    np.testing.assert_array_equal(read_anatomy(tmp_path / "m.nii").labels, anatomy.labels)


def test_a_folder_without_maps_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="has no label map"):
        read_anatomies(tmp_path)


def test_shapes_are_the_masks_lesions_and_a_compact_file_holds_the_same(shapes, tmp_path):
    again = LesionShapes.load(shapes.save(tmp_path / "s.npz"))
    for lesion, volume in enumerate(shapes.volumes):
        assert np.count_nonzero(shapes.shape(lesion)) == volume
        assert np.array_equal(again.shape(lesion), shapes.shape(lesion))
    assert len(shapes.loads) == 2


def test_a_patient_without_lesions_is_none_of_the_shapes_patients(anatomy, tmp_path):
    for patient, length in enumerate((0, 6, 0, 8)):
        mask = np.zeros((20, 20, 20), np.uint8)
        mask[:length, :length, :length] = 1
        save(mask, tmp_path / f"patient{patient}.nii.gz")
    shapes = LesionShapes.read(tmp_path)
    assert shapes.loads.tolist() == [6**3, 8**3] and shapes.patients.tolist() == [0, 1]
    with np.errstate(all="raise", under="ignore"):
        place_lesions(anatomy, shapes, 300.0, 0.5, np.random.default_rng(0))


@pytest.mark.parametrize("change", [lambda b: b[:300], lambda b: b[:99] + b[98:], lambda b: b[:-22] + b[-30:], None])
def test_a_damaged_or_other_compact_file_is_named(anatomy, shapes, tmp_path, change):
    path = (shapes if change else anatomy).save(tmp_path / "s.npz")
    path.write_bytes(change(path.read_bytes()) if change else path.read_bytes())
    with pytest.raises(ScanError, match=r"s\.npz is damaged .*\. A file of LesionShapes\.save is needed"):
        LesionShapes.read(path)


@pytest.mark.parametrize("volume", [60.0, 1000.0, 6000.0])
def test_lesions_lie_in_tissue_that_has_them_and_make_up_the_volume(anatomy, shapes, volume):
    share, level = place_lesions(anatomy, shapes, volume, 0.5, np.random.default_rng(3))
    assert not share[~LESION_TISSUE[anatomy.labels]].any()
    assert np.count_nonzero(share > 0.5) == pytest.approx(volume, rel=0.35)
    assert (level[share > 0] > 1).all()


def test_a_head_depends_on_its_number_alone(anatomy, shapes, generator):
    first = generator.generate(5)
    generator.generate(6)
    again = HeadGenerator((Anatomy(anatomy.labels, anatomy.affine),), shapes, loads_ml=(0.5, 5.0)).generate(5)
    assert np.array_equal(first.image, again.image) and np.array_equal(first.lesions, again.lesions)
    assert not np.array_equal(first.image.shape, generator.generate(7).image.shape)


def test_labels_lie_on_the_grid_and_loads_in_the_range(generator):
    heads = [generator.generate(seed) for seed in range(9)]
    for head in heads:
        assert head.image.shape == head.lesions.shape and head.image.dtype == np.float32
        assert nib.aff2axcodes(head.affine) == ("L", "P", "S")
        assert set(np.unique(head.lesions)) <= {0, 1}
        assert head.load_ml == head.drawn["load_ml"] <= 1.4 * head.drawn["wanted_ml"]
        assert head.drawn["wanted_ml"] == 0 or 0.5 <= head.drawn["wanted_ml"] <= 5
        assert not head.lesions[head.image == 0].any()
    wanted = np.array([head.drawn["wanted_ml"] for head in heads])
    loads = np.array([head.load_ml for head in heads])
    assert 0 < np.count_nonzero(wanted == 0) < 8
    assert np.median(loads[wanted > 0] / wanted[wanted > 0]) > 0.4


def test_every_lesion_that_is_marked_can_be_seen(anatomy, shapes):
    generator = HeadGenerator((anatomy,), shapes, 0.0, (1.0, 5.0), least_mm3=30.0)
    for seed in range(2):
        head = generator.generate(seed)
        pieces, count = ndimage.label(head.lesions)
        volumes = np.bincount(pieces.ravel())[1:] * head.mask.voxel_mm3
        assert count and volumes.min() >= 30
        brain = head.image[(head.image > 0.5 * np.median(head.image[head.lesions > 0]))]
        assert np.median(head.image[head.lesions > 0]) > np.median(brain) * 0.9


def test_a_head_with_lesions_is_the_same_without_them_but_brighter_there(anatomy, shapes):
    head, bare = (HeadGenerator((anatomy,), own, 0.0, (1.0, 5.0)).generate(0) for own in (shapes, None))
    lesion = head.lesions > 0
    assert head.image[lesion].mean() > 1.1 * bare.image[lesion].mean()
    far = ~ndimage.binary_dilation(lesion, iterations=4)
    assert np.mean(head.image[far] == bare.image[far]) > 0.99
    assert len(np.unique(bare.image)) > 50  # as stored, in whole numbers


def test_lesions_too_small_faint_or_noisy_are_removed_from_the_mask_and_the_signal(anatomy):
    share, excess = np.zeros((2, 20, 20, 20), np.float32)
    lesions = {(2, 2, 2): (4, 0.5), (2, 10, 2): (4, 0.1), (10, 2, 2): (4, 0.05), (15, 15, 15): (2, 0.9)}
    for (i, j, k), (size, brightness) in lesions.items():
        box = slice(i, i + size), slice(j, j + size), slice(k, k + size)
        share[box], excess[box] = 1, brightness
    for noise, shown in ((0.25, (0.5,)), (0.1, (0.5, 0.1))):
        mask, added = HeadGenerator((anatomy,))._seen(share, excess, noise, np.ones(3))
        np.testing.assert_array_equal(mask, np.isin(excess, np.float32(shown)))
        np.testing.assert_array_equal(added, excess * mask)


def test_a_generator_asked_for_none_marks_no_lesions(anatomy, shapes):
    generator = HeadGenerator((anatomy,), shapes, without_lesions=1.0)
    assert not any(generator.generate(seed).lesions.any() for seed in range(3))


@pytest.mark.parametrize("extracted", [0.0, 1.0])
def test_a_brain_is_cut_out_if_it_is_asked_for(anatomy, shapes, extracted):
    generator = HeadGenerator((anatomy,), shapes, extracted=extracted)
    for seed in range(3):
        head = generator.generate(seed)
        assert bool(extracted) == (head.drawn["cut"] != "none")
        shown = np.count_nonzero(head.image) * head.mask.voxel_mm3
        brain = np.count_nonzero(BRAIN[anatomy.labels])
        assert (0.3 * brain < shown < 2.6 * brain) if extracted else shown == head.image.size * head.mask.voxel_mm3


@pytest.mark.parametrize(("kind", "thinnest", "thickest"), [(0, 3.0, 8.0), (1, 0.85, 1.3), (2, 1.0, 1.0)])
def test_slices_are_as_thick_as_the_acquisitions_asked_for(anatomy, kind, thinnest, thickest):
    head = HeadGenerator((anatomy,), acquisitions=tuple(float(kind == each) for each in range(3))).generate(1)
    assert thinnest <= head.mask.spacing[2] <= thickest
    assert (head.mask.spacing[0] < head.mask.spacing[2]) == (kind == 0)
    assert max(head.drawn["acquired"]) > 1.4 or kind == 1


def test_the_view_of_a_whole_head_is_wider_than_that_of_its_brain(anatomy):
    whole, brain = (Pose.drawn(anatomy, extracted, np.random.default_rng(0)).grid for extracted in (False, True))
    assert whole[0] > brain[0] and whole[1] > brain[1]


def test_a_reduction_makes_the_voxels_larger(anatomy):
    make = phantom_of(HeadGenerator((anatomy,))).make
    finer, coarser = (make(CENTERS[0], 1.0, by, np.random.default_rng(0))["3DFLAIR"].spacing for by in (2.0, 4.0))
    np.testing.assert_allclose(coarser, 2 * np.array(finer), rtol=1e-5)


def test_a_generated_head_is_prepared_like_a_scan(generator):
    head = generator.generate(1)
    prepared = prepare(head.scan, MODERN)
    assert prepared.voxels.shape[1:] == (256, 256, 1) and prepared.voxels.max() > 60


@pytest.mark.real
def test_real_maps_are_compact_and_give_heads(real_data):
    folder = real_data / "data"
    anatomy = read_anatomy(folder / "synthseg_label_maps" / "training_seg_03.nii.gz")
    shapes = LesionShapes.read(folder / "open_ms_more" / "lesion_masks_mni")
    assert len(shapes.loads) == 29 and shapes.volumes.max() > 40_000
    assert np.allclose(anatomy.template[1:, 1:3], np.eye(2), atol=0.35)
    head = HeadGenerator((anatomy,), shapes, 0.0, (5.0, 50.0), coarser=2.0).generate(0)
    assert 2 < head.load_ml < 60


def test_the_command_writes_heads_in_the_challenge_s_layout(anatomy, shapes, tmp_path):
    for folder, made in (("maps", anatomy), ("masks", shapes)):
        (tmp_path / folder).mkdir()
        made.save(tmp_path / folder / "one.npz")
    words = ["phantom", "--out", tmp_path / "out", "--reduction", "2", "--scans-per-center", "1"]
    words += ["--anatomy", tmp_path / "maps", "--lesion-shapes", tmp_path / "masks" / "one.npz"]
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0 and "3 phantom scans" in done.output
    cases = find_cases(tmp_path / "out").cases
    assert [case.id for case in cases] == ["01PHANTOM1", "07PHANTOM1", "08PHANTOM1"]
    for case in cases:
        scan = read_scan(case.images["flair"])
        assert read_mask(case.label_map, scan).voxels.shape == scan.voxels.shape
    with pytest.raises(DatasetError, match=rf"other settings .*lesion_shapes {len(shapes.volumes)}; .*lesion_shapes 0"):
        CliRunner().invoke(app, list(map(str, words[:-2])), catch_exceptions=False)


def test_lesion_shapes_without_heads_are_refused(tmp_path):
    words = ["phantom", "--out", str(tmp_path), "--lesion-shapes", str(tmp_path)]
    with pytest.raises(DatasetError, match="needs --anatomy"):
        CliRunner().invoke(app, words, catch_exceptions=False)
