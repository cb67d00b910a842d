"""Every pixel of a DICOM series lies where the header of its slice says, within 0.1 mm; no other volume is read."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("pydicom", reason="needs the extra dicom")
pytest.importorskip("dcm2niix", reason="needs the extra dicom")

from dicom_series import (
    AXIAL,
    OBLIQUE,
    SAGITTAL,
    SLICES,
    VOXELS,
    change,
    find_series,
    turned,
    write_enhanced,
    write_series,
)
from pydicom import dcmread

from planar3d.errors import ScanError
from planar3d.scans.dicom_conversion import read_dicom_series
from planar3d.scans.dicom_geometry import on_its_grid
from planar3d.scans.volume import Scan

CORONAL = turned((0, 4, 2), np.array([[-0.9, 0, 0], [0, 0, 3], [0, -1.1, 0]]))
# (voxels run along columns, rows, slices): axes that scanners use, both ways through the head.
AFFINES = {
    "axial": AXIAL,
    "oblique": OBLIQUE,
    "sagittal": SAGITTAL,
    "coronal": CORONAL,
    "axial, downwards": AXIAL @ np.diag([1, 1, -1, 1]),
    "coronal, backwards": CORONAL @ np.diag([1, 1, -1, 1]),
}
EVEN = np.ones(SLICES - 1)


def _read(files):
    (series,) = find_series(files)
    return read_dicom_series(series)


def _restep(files, affine, steps):
    """Put the slices so many of the affine's steps from one to the next."""
    places = np.concatenate([[0], np.cumsum(steps)])
    normal = np.diag([-1, -1, 1]) @ affine[:3, 2]

    def move(k, dataset):
        begins = np.array(dataset.ImagePositionPatient, float) + normal * (places[k] - k)
        dataset.ImagePositionPatient = [float(f"{mm:.9g}") for mm in begins]

    change(files, move)
    return files


def _assert_in_place(scan, files):
    """The corner pixels of each file have their values at the places that its header gives them."""
    for path in files:
        dataset = dcmread(path)
        along, down = np.reshape(np.array(dataset.ImageOrientationPatient, float), (2, 3))
        down_mm, along_mm = map(float, dataset.PixelSpacing)
        for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
            x, y = column % dataset.Columns, row % dataset.Rows
            place = np.array(dataset.ImagePositionPatient, float) + along * along_mm * x + down * down_mm * y
            place *= (-1, -1, 1)
            index = np.rint(np.linalg.solve(scan.affine, [*place, 1])).astype(int)
            assert np.linalg.norm((scan.affine @ index)[:3] - place) < 0.1
            assert scan.voxels[tuple(index[:3])] == dataset.pixel_array[row, column]


# Each place once, and of one place each step.
@pytest.mark.parametrize(
    ("place", "at", "by"),
    [*((place, 3, 1.09) for place in AFFINES), *(("oblique", at, by) for at, by in ((0, 0.91), (SLICES - 2, 1.09)))],
)
def test_a_step_of_another_length_is_refused_with_its_slices(tmp_path, place, at, by):
    steps, affine = EVEN.copy(), AFFINES[place] @ np.diag([1, 1, 4, 1])
    steps[at] = by
    files = _restep(write_series(tmp_path, VOXELS, affine), affine, steps)
    mm = np.linalg.norm(affine[:3, 2])
    with pytest.raises(
        ScanError, match=f"has unevenly spaced slices: .* the distance is {by * mm:.2f} mm, usually {mm:.2f}"
    ) as e:
        _read(files)
    assert f"between {files[at].name} and {files[at + 1].name}" in str(e.value)
    assert f"slice {at + 1} to {at + 2} of 9" in str(e.value)


@pytest.mark.parametrize(
    "steps",
    [np.tile([1.05, 0.95], 4), np.linspace(0.96, 1.04, SLICES - 1)],
    ids=["by turns", "growing"],
)
def test_steps_that_vary_throughout_are_refused(tmp_path, steps):
    with pytest.raises(ScanError, match=r"unevenly spaced.*_Eq_1"):
        _read(_restep(write_series(tmp_path, VOXELS, OBLIQUE), OBLIQUE, steps))


@pytest.mark.parametrize(("place", "at"), [*((place, 3) for place in AFFINES), ("oblique", 0), ("oblique", SLICES - 2)])
def test_jitter_of_a_position_moves_no_other_slice(tmp_path, place, at):
    steps, affine = EVEN.copy(), AFFINES[place]
    steps[at] += 0.12 / np.linalg.norm(affine[:3, 2])
    files = _restep(write_series(tmp_path, VOXELS, affine), affine, steps)
    scan = _read(files)
    _assert_in_place(scan, files)
    np.testing.assert_allclose(sorted(scan.spacing), sorted(np.linalg.norm(affine[:3, :3], axis=0)), atol=0.03)
    assert (scan.header["qform_code"], scan.header["sform_code"]) == (1, 1)
    np.testing.assert_allclose(scan.header.get_qform(), scan.affine, atol=1e-3)
    np.testing.assert_allclose(scan.header.get_zooms(), scan.spacing, atol=1e-4)


@pytest.mark.parametrize("digits", [1, 2])
def test_rounded_positions_and_directions_are_no_fault(tmp_path, digits):
    def rounded(k, dataset):
        dataset.ImagePositionPatient = [round(float(mm), digits) for mm in dataset.ImagePositionPatient]
        dataset.ImageOrientationPatient = [round(float(one), 4) for one in dataset.ImageOrientationPatient]
        dataset.InversionTime = 2500 + digits * (k % 2)

    files = write_series(tmp_path, VOXELS, OBLIQUE)
    change(files, rounded)
    scan = _read(files)
    for path, k in ((files[0], 0), (files[-1], SLICES - 1)):
        place = (OBLIQUE @ [0, 0, k, 1])[:3]
        index = np.linalg.solve(scan.affine, [*place, 1])[:3]
        assert np.abs((index - np.rint(index)) * scan.spacing).max() < 0.15, path


VENDORS = dict(zip(AFFINES, ["siemens", "ge", "philips", "canon", "siemens", "ge"], strict=True))


@pytest.mark.parametrize(
    ("number", "elements"),
    enumerate(
        [
            {"SliceThickness": 4, "SpacingBetweenSlices": 7.2},
            {"SliceThickness": None, "SpacingBetweenSlices": None},
            {"SpacingBetweenSlices": -6.5},
            {"SliceLocation": 3.5},
            {"InstanceNumber": None},
            {"InstanceNumber": 1},
            {"PixelSpacing": [0.7, 1.3]},
            {"PixelSpacing": [1.3, 0.7]},
        ]
    ),
    ids=str,
)
@pytest.mark.parametrize("place", [0, 3])
def test_whatever_else_a_header_says_positions_decide(tmp_path, number, elements, place):
    name = [*AFFINES][(number + place) % len(AFFINES)]  # of all places and vendors two with each element
    files = write_series(tmp_path, VOXELS, AFFINES[name], vendor=VENDORS[name], **elements)
    _assert_in_place(_read(files), files)


@pytest.mark.parametrize(
    "element",
    ["position", "direction", "spacing"],
)
@pytest.mark.parametrize("at", [0, 5, SLICES - 1])
def test_a_slice_beside_the_others_is_named(tmp_path, element, at):
    def move(k, dataset):
        if k == at and element == "position":  # along its own rows
            along = np.array(dataset.ImageOrientationPatient[:3], float)
            dataset.ImagePositionPatient = list(np.array(dataset.ImagePositionPatient, float) + 0.4 * along)
        if k == at and element == "direction":
            along, down = np.reshape(np.array(dataset.ImageOrientationPatient, float), (2, 3))
            swayed = along + 0.009 * np.cross(along, down)
            dataset.ImageOrientationPatient = list(np.round([*(swayed / np.linalg.norm(swayed)), *down], 8))
        if element == "spacing":
            dataset.PixelSpacing = [0.909 if k == at else 0.9] * 2

    files = write_series(tmp_path, np.tile(VOXELS, (2, 2, 1)), AXIAL)
    change(files, move)
    with pytest.raises(ScanError, match=rf"slice {at + 1} of 9 \({files[at].name}\) lies 0\.\d\d mm off"):
        _read(files)


def test_directions_that_are_not_at_right_angles_are_refused(tmp_path):
    files = write_series(tmp_path, VOXELS, AXIAL, ImageOrientationPatient=[1, 0, 0, 0.1, 0.995, 0])
    with pytest.raises(ScanError, match="not at right angles"):
        _read(files)


@pytest.mark.parametrize("affine", [AXIAL, SAGITTAL, CORONAL])
def test_frames_of_one_file_follow_the_same_laws(tmp_path, affine):
    path = write_enhanced(tmp_path / "x", VOXELS, affine)

    def shift(by):
        def edit(k, dataset):
            frame = dataset.PerFrameFunctionalGroupsSequence[0]
            position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
            step = np.diag([-1, -1, 1]) @ affine[:3, 2]
            frame.PlanePositionSequence[0].ImagePositionPatient = list(position - by * step / np.linalg.norm(step))

        change([path], edit)

    even = _read([path])
    shift(0.12)
    jittered = _read([path])
    corners = nib.affines.apply_affine(even.affine, [[0, 0, 0], np.array(even.voxels.shape) - 1])
    moved = nib.affines.apply_affine(jittered.affine, [[0, 0, 0], np.array(even.voxels.shape) - 1])
    assert np.linalg.norm(corners - moved, axis=1).max() < 0.1
    np.testing.assert_array_equal(even.voxels, jittered.voxels)
    shift(0.3)
    with pytest.raises(ScanError, match=r"unevenly spaced slices: .*between frame \d of x and frame \d of x"):
        _read([path])


@pytest.mark.parametrize("what", ["mirrored", "transposed", "moved", "larger pixels", "turned"])
def test_a_volume_that_lies_elsewhere_than_its_headers_say_is_refused(tmp_path, what):
    (series,) = find_series(write_series(tmp_path, VOXELS, AXIAL))
    scan = read_dicom_series(series)
    wrong = {
        "mirrored": np.diag([-1, 1, 1, 1]),
        "transposed": np.eye(4)[[1, 0, 2, 3]],
        "moved": nib.affines.from_matvec(np.eye(3), [0, 0, 3]),
        "larger pixels": np.diag([1.1, 1, 1, 1]),
        "turned": turned((0, 0, 5), np.eye(3)) - turned((0, 0, 0), np.eye(3)) + np.eye(4),
    }[what]
    header = scan.header.copy()
    header.set_sform(scan.affine @ wrong, 1)
    for volume in (Scan(scan.voxels, header), Scan(scan.voxels[1:], scan.header)):
        with pytest.raises(
            ScanError, match=r"dcm2niix made a volume .* of series 5 “FLAIR”.* differs from its headers"
        ):
            on_its_grid(volume, series)
    longer = scan.header.copy()
    longer.set_sform(scan.affine @ np.diag([1, 1, 1.05, 1]), 1)
    np.testing.assert_allclose(
        on_its_grid(dataclasses.replace(scan, header=longer), series).affine, scan.affine, atol=1e-4
    )


def test_a_missing_slice_is_named_by_its_neighbours(tmp_path):
    files = write_series(tmp_path, VOXELS, OBLIQUE)
    for before, missing, after in zip(files, files[1:], files[2:], strict=False):
        between = f"between {before.name} and {after.name}"
        with pytest.raises(ScanError, match=f"slices missing: .* 13.00 mm, usually 6.50 mm .{between}"):
            _read([file for file in files if file != missing])
