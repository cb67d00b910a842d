"""The positions of a DICOM series' slices by their headers, and the grid on which all of them lie."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from nibabel import orientations
from nibabel.affines import from_matvec

from planar3d.errors import ScanError
from planar3d.scans.dicom import DicomSeries

if TYPE_CHECKING:
    from planar3d.scans.volume import Scan

TOLERANCE_MM = 0.1  # largest distance of a slice's corner from the grid; positions are rounded more finely
_EXACT_MM = 0.01  # rounding of dcm2niix
SAME_DIRECTION = 0.01  # of unit vectors; some scanners write four digits
_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def planes(series: DicomSeries, what: str) -> np.ndarray:
    """An attribute of all frames of all images, (frames, values)."""
    return np.array([getattr(plane, what) for image in series.images for plane in image.planes], float)


def on_its_grid(scan: "Scan", series: DicomSeries) -> "Scan":
    """A volume made by dcm2niix, with the geometry of its slices' headers.

    dcm2niix uses the first step between slices for all, so jitter in one position distorts the grid.

    Raises:
        ScanError: its size differs, or its position or directions by more than a wrong step explains.
    """
    grid, lengths = grid_of(series), np.array(scan.voxels.shape)
    turn = orientations.io_orientation(np.linalg.inv(grid) @ scan.affine)
    expected = grid @ np.linalg.inv(orientations.inv_ornt_aff(turn, lengths))  # in the order of the scan's axes
    # How far, in mm, the corners of the first and of the last slice are from their places.
    i, j, k = lengths - 1
    corners = np.array([[[x, y, z, 1] for x in (0, i) for y in (0, j)] for z in (0, k)])
    ends = np.linalg.norm(corners @ (scan.affine - expected).T, axis=2).max(axis=1)
    if tuple(lengths[np.argsort(turn[:, 0])]) != shape_of(series) or ends.min() > 2 * TOLERANCE_MM:
        raise ScanError(
            f"{series.images[0].path}: dcm2niix made a volume {scan.voxels.shape} of series {series} that differs "
            "from its headers in size or position. Convert it yourself, look at the volume, and name the NIfTI file."
        )
    if ends.max() <= _EXACT_MM:
        return scan
    header = scan.header.copy()
    header.set_qform(expected, 1)
    header.set_sform(expected, 1)
    return dataclasses.replace(scan, header=header)


def heights(series: DicomSeries) -> np.ndarray:
    """Position in mm of every frame along the normal of the first, increasing from the first file to the last."""
    orientation = planes(series, "orientation")[0]
    along = planes(series, "position") @ np.cross(orientation[:3], orientation[3:])
    return along if along[-1] >= along[0] else -along


def evenly_spaced(values: np.ndarray) -> np.ndarray:
    """The least-squares fit of equal steps to values, (slices, …)."""
    k = np.arange(len(values)) - (len(values) - 1) / 2
    slope = np.tensordot(k, values, axes=(0, 0)) / (k @ k)
    return values.mean(axis=0) + np.multiply.outer(k, slope)


def _planes_in_space(series: DicomSeries) -> np.ndarray:
    """Of each frame, in their order in space, (column step, row step, first pixel) to (right, anterior, superior)."""
    across = planes(series, "orientation").reshape(-1, 2, 3) * planes(series, "spacing")[:, ::-1, None]
    frames = np.concatenate([across, planes(series, "position")[:, None]], axis=1)
    return frames[np.argsort(heights(series))] @ _TO_RAS


def grid_of(series: DicomSeries) -> np.ndarray:
    """4×4: (column, row, slice, 1) to (right, anterior, superior) in mm, fitted to all frames."""
    frames = _planes_in_space(series)
    places = evenly_spaced(frames[:, 2])
    return from_matvec(np.stack([*frames[:, :2].mean(axis=0), places[1] - places[0]], axis=1), places[0])


def departures(series: DicomSeries) -> np.ndarray:
    """Distance in mm of each slice's farthest corner from the grid, in spatial order."""
    frames, grid = _planes_in_space(series), grid_of(series)
    columns, rows, slices = shape_of(series)
    corners = np.array([[[x, y, k, 1] for x in (0, columns - 1) for y in (0, rows - 1)] for k in range(slices)])
    return np.linalg.norm(corners[:, :, [0, 1, 3]] @ frames - corners @ grid[:3].T, axis=2).max(axis=1)


def shape_of(series: DicomSeries) -> tuple[int, int, int]:
    """Columns, rows, slices."""
    rows, columns = series.images[0].shape
    return columns, rows, len(planes(series, "position"))
