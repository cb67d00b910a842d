"""A map of tissues: where its voxels lie, how the head is turned, and where lesions may be."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from planar3d.training.synthesis.anatomy import _CENTERS, BRAIN, KINDS, LESION_TISSUE, TISSUES, Anatomy, read_anatomy


def of(labels, name):
    return labels == TISSUES.index(name)


@pytest.mark.parametrize(("nod", "scale"), [(17, 0.4), (-25, 0.5)])
def test_the_tissues_of_a_head_tell_where_mni_space_lies_and_how_it_nods(nod, scale):
    turn = Rotation.from_euler("x", nod, degrees=True).as_matrix()  # from MNI space to the head
    middle = np.array([45, 65, 60])
    labels = np.zeros((90, 125, 115), np.uint8)
    for name, (aside, *others) in _CENTERS.items():
        for side in (1, -1):
            at = middle + scale * turn @ [side * aside, *others]
            labels[tuple(np.rint(at).astype(int))] = TISSUES.index(name)
    anatomy = Anatomy(labels, np.eye(4))
    for place in [(0, 0, 0), (40, -50, 30), (-20, 60, -10)]:
        np.testing.assert_allclose(anatomy.template @ [*(middle + scale * turn @ place), 1], place, atol=3)
    np.testing.assert_allclose(anatomy.upright, turn, atol=0.04)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """FreeSurfer's labels of a cut-off head, 1 mm, and the map that is read of it."""
    shape, middle = (80, 90, 130), np.array([40, 45, 85])
    places = np.indices(shape) - middle[:, None, None, None]
    labels = np.zeros(shape, np.int16)
    labels[5:75, 4:86, 1:125] = 507
    labels[6:74, 5:85, 40:124] = 515
    for label, radii in ((3, (30, 38, 36)), (2, (27, 34, 32)), (4, (4, 12, 4))):
        labels[sum((place / r) ** 2 for place, r in zip(places, radii, strict=True)) < 1] = label
    labels[14:16, 44:47, 84:87] = 12
    labels[38:42, 84:86, 80:82] = 506
    affine = np.diag([-1.0, 1, 1, 1])
    affine[:3, 3] = 37, -50, -60
    path = tmp_path_factory.mktemp("map") / "head.nii.gz"
    nib.save(nib.Nifti1Image(labels, affine), path)
    return labels, affine, read_anatomy(path)


def test_a_map_keeps_the_place_of_every_voxel_and_what_lies_up_to_22_mm_below_the_brain(stored):
    labels, affine, anatomy = stored
    assert anatomy.name == "head" and nib.aff2axcodes(anatomy.affine) == ("R", "A", "S")
    for name, label in (("ventricle", 4), ("eye", 506)):
        theirs = nib.affines.apply_affine(affine, np.argwhere(labels == label))
        ours = nib.affines.apply_affine(anatomy.affine, np.argwhere(of(anatomy.labels, name)))
        assert sorted(map(tuple, ours)) == sorted(map(tuple, theirs))
    lowest = np.flatnonzero(BRAIN[anatomy.labels].any(axis=(0, 1)))[0]
    assert lowest == 22 and anatomy.labels[:, :, 0].any()
    assert anatomy.labels.any(axis=(1, 2)).all() and anatomy.labels.any(axis=(0, 1)).all()
    box = anatomy.labels[anatomy.brain]
    assert np.count_nonzero(BRAIN[box]) == np.count_nonzero(BRAIN[anatomy.labels])
    assert all(BRAIN[np.take(box, end, axis)].any() for axis in range(3) for end in (0, -1))


def test_the_labels_of_the_right_half_mean_what_those_of_the_left_do(tmp_path):
    """FreeSurfer numbers the left from 2 to 31 and the right from 41 to 63."""
    right = {n: n + 39 for n in (12, 3, 2, 4, 5, 7, 8, 10, 11, 13)} | {17: 53, 18: 54, 25: 57, 26: 58, 28: 60}
    right |= {30: 62, 31: 63, 136: 137, 163: 164}
    read = []
    for labels in (list(right), list(right.values())):
        columns = np.repeat(np.repeat(np.reshape(labels, (-1, 1, 1)), 2, axis=0), 4, axis=1).repeat(4, axis=2)
        nib.save(nib.Nifti1Image(columns.astype(np.int16), np.eye(4)), tmp_path / "head.nii")
        read.append(read_anatomy(tmp_path / "head.nii").labels)
    np.testing.assert_array_equal(*read)
    assert {"white", "insula", "striatum", "thalamus", "ventricle", "vessel"} <= {TISSUES[n] for n in np.unique(read)}


def test_hypointensities_of_white_and_grey_matter_are_of_the_tissue_around_them(tmp_path):
    """FreeSurfer's `aseg` marks white ones as 77 (78 and 79 in older versions), and those of deep grey matter as 80."""
    labels = np.repeat(np.int16([2, 77, 78, 79, 12, 80]), 16).reshape(6, 4, 4)
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "head.nii")
    read = read_anatomy(tmp_path / "head.nii")
    assert [TISSUES[n] for n in read.labels.max(axis=(1, 2))] == ["white"] * 4 + ["striatum"] * 2


def test_tissues_that_share_a_label_are_told_apart_by_their_distances(stored):
    labels, _, anatomy = stored
    mine = anatomy.labels
    from_putamen = ndimage.distance_transform_edt(~of(mine, "striatum"))
    insula, cortex = of(mine, "insula"), of(mine, "cortex")
    assert insula.any() and from_putamen[insula].max() <= 13 + 4 and from_putamen[cortex].min() > 13 - 4
    from_eye = ndimage.distance_transform_edt(~of(mine, "eye"))
    fat, muscle = of(mine, "fat"), of(mine, "muscle")
    assert fat.any() and from_eye[fat].max() <= 14 + 4 and from_eye[muscle].min() > 14 - 4
    marrow, bone = of(mine, "marrow"), of(mine, "bone")
    depth = ndimage.distance_transform_cdt(marrow | bone, "taxicab")
    assert depth[marrow].min() == 3 and depth[bone].max() == 2
    assert np.count_nonzero(insula | cortex) == np.count_nonzero(labels == 3)


def test_lesions_of_each_kind_have_the_distances_of_their_name(stored):
    anatomy = stored[2]
    labels = anatomy.labels
    from_ventricles = ndimage.distance_transform_edt(~of(labels, "ventricle"))
    from_cortex = ndimage.distance_transform_edt(~(of(labels, "cortex") | of(labels, "insula")))
    places = {kind: tuple(found.T) for kind, found in anatomy.places.items()}
    assert tuple(places) == KINDS and not len(places["infratentorial"][0])
    assert all(LESION_TISSUE[labels[place]].all() for place in places.values())
    assert all(len(places[kind][0]) > 100 for kind in KINDS[:3])
    assert from_ventricles[places["periventricular"]].max() < 7 + 1
    assert from_ventricles[places["deep"]].min() > 7 - 2 and from_cortex[places["deep"]].min() > 5 - 2
    assert from_ventricles[places["juxtacortical"]].min() > 12 - 2 and from_cortex[places["juxtacortical"]].max() < 5
    assert max(place.max() for place in places["deep"]) > 50  # all over the head, in its voxels


def test_the_distance_from_ventricles_is_that_of_the_whole_head_14_mm_around_them(stored):
    anatomy = stored[2]
    box, distance = anatomy.from_ventricles
    ventricles = of(anatomy.labels, "ventricle")
    np.testing.assert_allclose(distance, ndimage.distance_transform_edt(~ventricles)[box], rtol=1e-6)
    size = [part.stop - part.start for part in ndimage.find_objects(ventricles.astype(int))[0]]
    assert [part.stop - part.start for part in box] == [n + 28 for n in size]
