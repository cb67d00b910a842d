"""The phantom is a head with lesions, or a brain with a tumour, as those of the real ones, and the same each time."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from planar3d.errors import DatasetError, Planar3DError
from planar3d.locks import CLAIM
from planar3d.scans import phantom as phantom_module
from planar3d.scans.case import read_images
from planar3d.scans.layouts import find_cases
from planar3d.scans.phantom import phantom_groups, write_phantom
from planar3d.scans.phantom_fields import spread
from planar3d.scans.phantom_head import BRAIN_ORIGIN, TISSUES, brain_maps, build_head, lateral_ventricles
from planar3d.scans.phantom_layouts import PhantomLayout, save_as
from planar3d.scans.phantom_lesions import FAR, KINDS, grow_lesions, places
from planar3d.scans.phantom_scanner import CENTERS, _towards_ventricles, draw_subject
from planar3d.scans.volume import Scan, read_labels, read_mask, read_scan

REDUCTION, FINER = 6, 4
TRAINING_SET = "Unprocessed training dataset/TrainingDataset_MSSEG"


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    names = write_phantom(folder, reduction=REDUCTION)
    return {name: read_case(folder, name) for name in names}, folder


@pytest.fixture(scope="module")
def finer_phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom_module, "CENTERS", CENTERS[::2])
        names = write_phantom(folder, reduction=FINER, scans_per_center=1)
    return {name: read_case(folder, name) for name in names}


@pytest.fixture
def one_center(monkeypatch):
    """The phantom of the second center alone, as each scan takes a moment."""
    monkeypatch.setattr(phantom_module, "CENTERS", CENTERS[1:2])


def read_case(folder: Path, name: str):
    scan = read_scan(folder / TRAINING_SET / name / "3DFLAIR.nii.gz")
    return scan, read_mask(folder / TRAINING_SET / name / "Consensus.nii.gz", scan)


def test_fifteen_scans_of_three_centers_are_found_as_the_challenge_s(phantom):
    cases, folder = phantom
    assert len(cases) == 15
    assert sorted({name[:2] for name in cases}) == ["01", "07", "08"]
    assert all("PHANTOM" in name for name in cases)
    assert {case.id: case.group for case in find_cases(folder).cases} == phantom_groups("msseg", 5)


def test_grids_are_those_of_table_1_reduced_and_the_field_of_view_stays(phantom):
    cases, _ = phantom
    for center in CENTERS:
        scan, _ = cases[f"{center.name}PHANTOM1"]
        assert scan.voxels.shape == tuple(round(n / REDUCTION) for n in center.grid)
        np.testing.assert_allclose(
            np.multiply(scan.voxels.shape, scan.spacing), np.multiply(center.grid, center.spacing), rtol=1e-5
        )


def test_storage_runs_left_posterior_superior_with_both_codes_set(phantom):
    for scan, mask in phantom[0].values():
        for volume in (scan, mask):
            assert nib.aff2axcodes(volume.affine) == ("L", "P", "S")
            assert volume.header["sform_code"] == volume.header["qform_code"] == 1
            np.testing.assert_allclose(volume.header.get_qform(), volume.header.get_sform(), atol=1e-3)
        np.testing.assert_array_equal(mask.affine, scan.affine)
        assert mask.voxels.shape == scan.voxels.shape


def test_the_lesion_load_of_each_center_is_the_published_one_and_scans_differ(phantom):
    for center in CENTERS:
        loads = [mask.voxels.mean() for name, (_, mask) in phantom[0].items() if name.startswith(center.name)]
        assert np.mean(loads) == pytest.approx(center.lesion_ratio, rel=0.03)
        assert max(loads) > 2 * min(loads)


def test_exactly_the_load_is_marked_in_every_scan(phantom):
    for center in CENTERS:
        for number, load in enumerate(center.loads, 1):
            mask = phantom[0][f"{center.name}PHANTOM{number}"][1].voxels
            assert np.count_nonzero(mask) == max(1, round(center.lesion_ratio * load * mask.size))


def test_lesions_are_brighter_than_the_tissue_around_them(phantom):
    for scan, mask in phantom[0].values():
        lesion = mask.voxels > 0
        around = ndimage.binary_dilation(lesion, iterations=3) & ~ndimage.binary_dilation(lesion)
        assert scan.voxels[lesion].mean() > 1.2 * np.median(scan.voxels[around])


def test_a_few_large_lesions_hold_most_of_the_load_of_many(phantom):
    _, mask = phantom[0]["01PHANTOM2"]
    labels, count = ndimage.label(mask.voxels)
    sizes = np.sort(np.bincount(labels.ravel())[1:])[::-1]
    assert count > 20
    assert sizes[: count // 4].sum() > 0.6 * sizes.sum()


def test_it_is_a_whole_head_with_a_scalp_brighter_than_the_brain_in_dark_air(finer_phantom):
    for scan, _ in finer_phantom.values():
        voxels = scan.voxels
        middle, height = voxels.shape[0] // 2, int(0.75 * voxels.shape[2])  # an axial slice through the brain
        axial = voxels[:, :, height]
        air = np.median(voxels[:3, :3])
        brain = np.median(axial[middle - 5 : middle + 6, axial.shape[1] // 3 : axial.shape[1] * 2 // 3])
        assert np.percentile(axial, 99) > 1.3 * brain  # fat below the skin
        assert air < 0.2 * brain
        neck = voxels[middle, :, voxels.shape[2] // 6]
        assert neck.max() > 0.4 * brain


def test_the_same_seed_gives_the_same_voxels_whatever_else_is_written(phantom, tmp_path, one_center):
    cases, _ = phantom
    names = write_phantom(tmp_path, reduction=REDUCTION, scans_per_center=1)
    assert names == ["07PHANTOM1"]
    for name in names:
        for again, before in zip(read_case(tmp_path, name), cases[name], strict=True):
            np.testing.assert_array_equal(again.voxels, before.voxels)
            np.testing.assert_array_equal(again.affine, before.affine)


def test_another_seed_gives_another_person(phantom, tmp_path, one_center):
    (name,) = write_phantom(tmp_path, seed=1, reduction=REDUCTION, scans_per_center=1)
    mask, other = (read_mask(folder / TRAINING_SET / name / "Consensus.nii.gz") for folder in (tmp_path, phantom[1]))
    assert np.count_nonzero(mask.voxels & other.voxels) < 0.5 * np.count_nonzero(other.voxels)


def test_another_reduction_shows_the_same_person(phantom, finer_phantom):
    cases, _ = phantom
    for name, (finer, _) in finer_phantom.items():
        coarse = cases[name][0].voxels
        zoom = np.divide(coarse.shape, finer.voxels.shape)
        zoomed = ndimage.zoom(finer.voxels, zoom, order=1, grid_mode=True, mode="nearest")
        assert np.corrcoef(zoomed.ravel(), coarse.ravel())[0, 1] > 0.9
        others = cases[name[:-1] + "2"][0].voxels
        assert np.corrcoef(others.ravel(), coarse.ravel())[0, 1] < 0.9


def test_lesions_lie_in_white_matter_and_hold_the_volume_asked_for():
    lesions = grow_lesions(20_000, np.random.default_rng(3))
    inside = lesions.depth > 0
    assert np.count_nonzero(inside) == pytest.approx(20_000, rel=0.25)
    assert brain_maps()["white"][inside].mean() > 0.75
    assert brain_maps()["brain"][inside].all()


def test_places_of_lesions_have_the_distances_of_their_kind_and_lead_away_from_the_ventricles():
    maps, found = brain_maps(), places()
    assert set(found) == set(KINDS)
    from_ventricles = ndimage.zoom(2 * ndimage.distance_transform_edt(~lateral_ventricles()), 2, order=1)
    bounds = {"periventricular": (0, 10), "deep": (7, 70), "juxtacortical": (12, 90), "infratentorial": (10, 150)}
    for kind, (least, most) in bounds.items():
        voxels, directions = found[kind]
        at = tuple(voxels.astype(int).T)
        assert len(voxels) > 500 and (maps["white"][at] > 0.45).all()
        assert least <= from_ventricles[at].min() and from_ventricles[at].max() <= most
        ahead, behind = (
            ndimage.map_coordinates(from_ventricles, (voxels + way * directions).T, order=1) for way in (3, -3)
        )
        assert np.mean(ahead > behind) > 0.95
        height = BRAIN_ORIGIN[2] + voxels[:, 2]
        assert height.max() < -24 if kind == "infratentorial" else height.min() > -18


def test_lesions_are_of_many_sizes_none_smaller_than_a_scan_shows_and_each_of_one_contrast():
    lesions, other = (grow_lesions(9_000, np.random.default_rng(seed)) for seed in (0, 1))
    pieces, count = ndimage.label(lesions.depth > 0)
    volumes = np.bincount(pieces.ravel())[1:]
    assert volumes.min() >= 15 and count > 25 and volumes.max() > 6 * np.median(volumes)
    assert volumes.max() < 0.45 * volumes.sum()
    assert lesions.depth.min() == FAR and lesions.depth.max() < 10
    contrast = lesions.contrast[lesions.depth > 0]
    assert contrast.min() > 0.3 and contrast.max() < 2.1 and contrast.std() > 0.1
    assert (lesions.contrast[lesions.depth == FAR] == 1).all()
    both = np.count_nonzero((lesions.depth > 0) & (other.depth > 0))
    assert both < 0.5 * volumes.sum()


def test_brain_lies_inside_skull_inside_scalp():
    head = build_head(3)
    _, y, z = np.rint((np.array([0, -10, 20]) - head.origin) / head.step).astype(int)
    along = dict(zip(TISSUES, head.fractions[:, :, y, z], strict=True))  # from left to right through the brain
    brain = np.flatnonzero(along["white"] + 0.0 + along["grey"] > 128)
    fat = np.flatnonzero(along["fat"] > 64)
    signal = head.flair(dict.fromkeys(TISSUES, 1.0))[:, y, z]
    assert fat[0] < brain[0] and brain[-1] < fat[-1]
    assert signal[fat[0] : brain[0]].min() < 0.5  # bone in between
    assert (head.fractions.sum(axis=0, dtype=int) <= 255 + len(TISSUES)).all()


def test_a_person_s_vertex_lies_inside_the_view_and_the_neck_reaches_its_end():
    view = np.array([180.0, 240.0, 250.0])
    person = draw_subject(view, np.random.default_rng(5))
    positions = np.stack(list(person.positions((9, 12, 25))), axis=1)
    height = positions[2, 4, 6]
    assert (np.diff(height) > 0).all()
    assert height[-1] > 96 > height[-4]  # the vertex of the average head is 96 mm up
    assert height[0] < -130


def test_people_differ_in_size_and_pose_and_stand_upright_below_the_upper_edge():
    view = np.array([160.0, 210.0, 240.0])
    people = [draw_subject(view, np.random.default_rng(seed)) for seed in range(5)]
    scales = np.array([np.cbrt(1 / np.linalg.det(person.pose[:, :3])) for person in people])
    assert 0.87 < scales.min() < scales.max() < 0.97 and scales.std() > 0.003  # of the average head
    for person in people:
        turn = person.pose[:, :3] * np.cbrt(1 / np.linalg.det(person.pose[:, :3]))
        assert np.rad2deg(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))) < 12
        vertex = np.linalg.solve(person.pose[:, :3], [0, -2, 96] - person.pose[:, 3])
        assert np.abs(vertex[0]) < 10 and vertex[2] == pytest.approx(view[2] / 2 - 9, abs=8)
        moved = person.displacement - person.displacement.mean(axis=(1, 2, 3), keepdims=True)
        assert 1.8 < moved.std() < 3.2  # mm
    assert max(np.abs(person.pose[:, :3] - np.diag(np.diag(person.pose[:, :3]))).max() for person in people) > 0.03


def test_the_walls_of_ventricles_are_moved_along_the_way_to_them():
    inside = lateral_ventricles()
    outside, nearest = ndimage.distance_transform_edt(~inside, return_indices=True)
    outside = 2 * outside  # mm
    rng = np.random.default_rng(0)
    for low, high, least, most in ((2, 4, 0.6, 1.4), (22, 30, 0, 0.15)):
        voxels = rng.permutation(np.argwhere((outside > low) & (outside < high)))[:400]
        positions = (2 * voxels + BRAIN_ORIGIN).T[..., None, None]
        vectors = _towards_ventricles(positions)[..., 0, 0].T
        lengths = np.linalg.norm(vectors, axis=1)
        assert least <= np.median(lengths) and lengths.max() <= most
        if least:
            way = nearest[:, *voxels.T].T - voxels
            cosines = (way * vectors).sum(axis=1) / np.linalg.norm(way, axis=1) / lengths
            assert np.median(cosines) > 0.7


def test_spreading_is_linear_between_the_nodes_and_exact_on_them():
    lattice = np.random.default_rng(0).random((3, 4, 5), dtype=np.float32)
    np.testing.assert_allclose(spread(lattice, (5, 7, 9))[::2, ::2, ::2], lattice, atol=1e-6)
    np.testing.assert_allclose(spread(lattice, (5, 7, 9))[1::2, ::2, ::2], (lattice[1:] + lattice[:-1]) / 2, atol=1e-6)


@pytest.mark.parametrize("reduction", [0, 0.5, 17])
def test_a_reduction_out_of_range_is_refused(tmp_path, reduction):
    with pytest.raises(DatasetError, match="from 1 to 16"):
        write_phantom(tmp_path, reduction=reduction)


def test_a_folder_with_a_phantom_of_other_settings_is_refused_and_left_as_it_is(tmp_path):
    settings = {"seed": 1, "reduction": 16, "scans_per_center": 1, "layout": "camus"}
    pytest.importorskip("SimpleITK", reason="needs the extra itk")
    names = write_phantom(tmp_path, **settings)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name, value in {"seed": 0, "reduction": 15, "scans_per_center": 2, "layout": "msseg"}.items():
        says = rf"{name} {settings[name]}.*needed: .*{name} {value}.* name another"
        with pytest.raises(DatasetError, match=says):
            write_phantom(tmp_path, **(settings | {name: value}))
    assert write_phantom(tmp_path, **settings) == names
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_of_two_phantoms_started_in_one_folder_the_second_is_refused(tmp_path, one_center):
    waits = threading.Event()

    def make(center, load, reduction, rng):
        assert waits.wait(60)
        return {"flair": Scan(rng.random((2, 2, 2)).astype(np.float32), nib.Nifti1Header())}

    layout = PhantomLayout("{center}", "lesion", make, save_as("{name}_{kind}.nii.gz"))
    write = partial(write_phantom, tmp_path, scans_per_center=1, layout=layout)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(write, seed=1)
        while not (tmp_path / CLAIM).exists() and not first.done():
            time.sleep(0.01)
        with pytest.raises(DatasetError, match=r"other settings .*seed 1"):  # which it did not find at first
            write(seed=2, progress=lambda text: waits.set())
    assert first.result() and '"seed": 1' in (tmp_path / "phantom.json").read_text()


def test_a_data_set_is_not_replaced_by_a_phantom(tmp_path):
    """The Decathlon's and CAMUS's real cases have such names."""
    (real := tmp_path / "imagesTr/BRATS_011.nii.gz").parent.mkdir()
    real.write_bytes(b"real")
    with pytest.raises(DatasetError, match=r"has imagesTr and is not a phantom; name an empty or new folder"):
        write_phantom(tmp_path, scans_per_center=1, reduction=16, layout="decathlon")
    assert [*tmp_path.rglob("*.*")] == [real] and real.read_bytes() == b"real"


def test_without_nilearn_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(Planar3DError, match=r"pip install 'planar3d\[study\]'"):
        brain_maps.__wrapped__()


@pytest.mark.parametrize("layout", ["msseg", "brats", "decathlon"])
def test_without_nilearn_no_folder_is_made(tmp_path, monkeypatch, layout):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(Planar3DError, match=r"nilearn, which is not installed.*planar3d\[study\]"):
        write_phantom(tmp_path / "phantom", layout=layout)
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def tumours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tumours")
    names = write_phantom(folder, layout="brats", reduction=5, scans_per_center=2)
    dataset = find_cases(folder)
    assert [case.id for case in dataset.cases] == sorted(names) and dataset.labels.values["ET"] == (4,)
    assert {case.id: case.group for case in dataset.cases} == phantom_groups("brats", 2)
    scans = {case.id: read_images(case.images) for case in dataset.cases}
    return {case.id: (scans[case.id], read_labels(case.labels).voxels) for case in dataset.cases}


def test_brains_with_tumours_are_found_as_the_challenge_s(tumours):
    assert len(tumours) == 6
    for scans, labels in tumours.values():
        assert list(scans) == ["flair", "t1", "t1ce", "t2"]
        assert np.unique(labels).tolist() == [0, 1, 2, 4] and labels.shape == (48, 48, 31)
        affine = scans["t1"].affine
        assert nib.aff2axcodes(affine) == ("L", "P", "S")
        np.testing.assert_allclose(affine @ [23.5, 23.5, 15, 1], [-119.5, 119.5, 77, 1], atol=1e-4)


def test_brains_are_zero_outside_in_every_contrast_and_the_tumour_is_inside(tumours):
    for scans, labels in tumours.values():
        brain = scans["t1"].voxels > 0
        assert 1.0e6 < np.count_nonzero(brain) * 5**3 < 1.8e6  # mm³
        assert all(((scan.voxels > 0) == brain).all() for scan in scans.values())
        assert brain[labels > 0].all() and not brain[0].any() and not brain[:, :, -1].any()
        assert all(np.mean(scan.voxels[brain] == 1) < 0.01 for scan in scans.values())  # the least value in a brain


def test_the_parts_of_a_tumour_lie_within_one_another(tumours):
    volumes = []
    for _, labels in tumours.values():
        _, count = ndimage.label(np.isin(labels, (1, 4)))
        assert count == 1
        necrosis = labels == 1
        around = ndimage.binary_dilation(necrosis) & ~necrosis
        assert np.mean(labels[around] == 4) > 0.9
        core = np.isin(labels, (1, 4))
        rim = ndimage.binary_dilation(core, iterations=2) & ~core
        assert np.mean(labels[rim] == 2) > 0.4  # the rest is fluid, or outside of the brain
        volumes.append(np.count_nonzero(labels) * 5**3 / 1000)
    assert min(volumes) > 8 and max(volumes) < 120 and max(volumes) > 1.5 * min(volumes)  # ml


def test_another_reduction_shows_the_same_tumour(tumours, tmp_path, one_center):
    (name,) = write_phantom(tmp_path, layout="brats", reduction=8, scans_per_center=1)
    coarser, finer = read_labels(tmp_path / name / f"{name}_seg.nii.gz"), tumours[name]
    for parts in ((1, 2, 4), (1, 4)):
        middles, volumes = [], []
        for labels, affine, mm in ((coarser.voxels, coarser.affine, 8), (finer[1], finer[0]["t1"].affine, 5)):
            found = np.argwhere(np.isin(labels, parts))
            middles.append(nib.affines.apply_affine(affine, found).mean(axis=0))
            volumes.append(len(found) * mm**3)
        np.testing.assert_allclose(*middles, atol=3)
        assert volumes[0] == pytest.approx(volumes[1], rel=0.15)


def test_each_contrast_shows_what_it_is_taken_for(tumours):
    for scans, labels in tumours.values():
        brain = (scans["t1"].voxels > 0) & (labels == 0)
        level = {name: [np.median(scan.voxels[labels == n]) for n in (1, 2, 4)] for name, scan in scans.items()}
        usual = {name: np.median(scan.voxels[brain]) for name, scan in scans.items()}
        assert min(level["flair"]) > 1.3 * usual["flair"]  # the whole tumour
        assert level["t1ce"][2] > 1.5 * max(usual["t1ce"], *level["t1ce"][:2])  # the enhancing rim alone
        assert level["t2"][1] > 1.2 * usual["t2"]


def test_a_tumour_depends_on_its_name_and_the_seed_alone(tumours, tmp_path, one_center):
    write_phantom(tmp_path / "again", layout="brats", reduction=5, scans_per_center=1)
    write_phantom(tmp_path / "other", layout="brats", reduction=5, scans_per_center=1, seed=1)
    for case in find_cases(tmp_path / "again").cases:
        scans, labels = tumours[case.id]
        for name, scan in read_images(case.images).items():
            np.testing.assert_array_equal(scan.voxels, scans[name].voxels)
        np.testing.assert_array_equal(read_labels(case.labels).voxels, labels)
        other = read_labels(tmp_path / f"other/{case.id}/{case.id}_seg.nii.gz").voxels
        assert np.count_nonzero((other > 0) & (labels > 0)) < 0.5 * np.count_nonzero(labels)


def test_a_layout_that_the_phantom_has_not_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"no layout isles; choose one of msseg, brats, decathlon, chaos, camus\."):
        write_phantom(tmp_path, layout="isles")


@pytest.mark.parametrize(("layout", "package"), [("chaos", "PIL"), ("chaos", "pydicom"), ("camus", "SimpleITK")])
def test_a_missing_package_is_named_before_anything_is_written(layout, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Planar3DError, match=rf"need {package}, .*'planar3d\[challenges\]'"):
        write_phantom(tmp_path / "data", layout=layout, reduction=16, scans_per_center=1)
    assert not (tmp_path / "data").exists()
