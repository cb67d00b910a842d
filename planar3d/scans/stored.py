"""How images are stored: which reader takes a file or folder. A new one is a function, and one line here."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from planar3d.scans import slice_folders
from planar3d.scans.metaimage import is_metaimage, metaimage_files, read_metaimage
from planar3d.scans.nifti import read_nifti, volume_of


class Reader(NamedTuple):
    """Whether a path is of that kind, its voxels, float32 (i, j, k), under a NIfTI header, and its files."""

    takes: Callable[[Path], bool]
    read: Callable[[Path, str], tuple[nib.Nifti1Header, np.ndarray]]
    files: Callable[[Path], list[Path]]


_NIFTI = Reader(lambda path: True, read_nifti, lambda path: [volume_of(path)[0]])
_READERS = (
    Reader(slice_folders.holds_series, slice_folders.read_series, slice_folders.slices),
    Reader(slice_folders.holds_masks, slice_folders.read_masks, slice_folders.slices),
    Reader(is_metaimage, read_metaimage, metaimage_files),
    _NIFTI,  # what nobody else takes
)


def reader_of(path: Path) -> Reader:
    """The first reader that takes a path; the last of them is NIfTI's, which says what is wrong with all others."""
    return next(reader for reader in _READERS if reader.takes(path))


def is_foreign(path: Path) -> bool:
    """Whether another reader than NIfTI's takes a path."""
    return reader_of(path) is not _NIFTI
