"""The reader of each image format, for a file or a folder. A new format is a function and one line here."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from planar3d.files import temporary_folder
from planar3d.scans import foreign_images as foreign, itk_images, slice_folders
from planar3d.scans.nifti import read_nifti, volume_of


class Reader(NamedTuple):
    """A format: whether a path has it, its voxels, float32 (i, j, k), with a NIfTI header, and its files.

    `write` writes voxels and affine to a path of that format; None if masks are not written in it.
    """

    takes: Callable[[Path], bool]
    read: Callable[[Path, str], tuple[nib.Nifti1Header, np.ndarray]]
    files: Callable[[Path], list[Path]]
    write: Callable[[np.ndarray, np.ndarray, Path], None] | None = None


_NIFTI = Reader(lambda path: True, read_nifti, lambda path: [volume_of(path)[0]])
_READERS = (
    Reader(lambda path: slice_folders.holds(path, ".dcm"), slice_folders.read_series, slice_folders.slices),
    Reader(lambda path: slice_folders.holds(path, ".png"), slice_folders.read_masks, slice_folders.slices),
    Reader(itk_images.is_itk_image, itk_images.read_itk, itk_images.itk_files, itk_images.write_itk),
    Reader(foreign.is_mgh, foreign.read_mgh, lambda path: [path], foreign.write_nibabel),
    Reader(foreign.is_pair, foreign.read_pair, foreign.pair_files, foreign.write_nibabel),
    _NIFTI,  # the last resort
)


def reader_of(path: Path) -> Reader:
    """The first reader that accepts a path; the last is NIfTI's, which explains errors of all others."""
    return next(reader for reader in _READERS if reader.takes(path))


def is_foreign(path: Path) -> bool:
    """Whether a reader other than NIfTI's accepts a path."""
    return reader_of(path) is not _NIFTI


def write_like(source: Path, voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write voxels in the format of `source`, which must support masks; all its files, the named one last."""
    write = reader_of(source).write
    assert write is not None
    with temporary_folder(path.parent) as place:
        write(voxels, affine, Path(place, path.name))
        for made in sorted(Path(place).iterdir(), key=lambda made: made.name == path.name):
            os.replace(made, path.with_name(made.name))
