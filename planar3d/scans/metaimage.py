"""MetaImage files, a header `.mhd` beside its raw voxels, read by SimpleITK."""

import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np

from planar3d.errors import ScanError
from planar3d.extras import challenges_extra
from planar3d.scans.nifti_header import MAXIMUM_VOXELS, header_with

_DATA_FILE = re.compile(rb"^ElementDataFile\s*=\s*(.+?)\s*$", re.MULTILINE)
_LONGEST = 2**16  # bytes of a header
_ADVICE = "Copy it again, or convert it to NIfTI."


def is_metaimage(path: Path) -> bool:
    """Whether a file is a MetaImage header by its name and content."""
    return path.name.lower().endswith(".mhd") and _start(path).lstrip().startswith((b"ObjectType", b"NDims"))


def metaimage_files(path: Path) -> list[Path]:
    """The header, and the file of its voxels, which lies beside it.

    Raises:
        ScanError: the header names no such file.
    """
    found = _DATA_FILE.search(_start(path))
    name = os.fsdecode(found[1]) if found else ""
    if not name or os.path.basename(name) != name or name.upper() in ("LIST", "LOCAL"):
        raise ScanError(f"{path} names {name or 'no file'} for its voxels; one file beside it is needed. {_ADVICE}")
    return [path, path.with_name(name)]


def read_metaimage(path: Path, needed: str) -> tuple[nib.Nifti1Header, np.ndarray]:
    """Read a header and its voxels.

    Args:
        path: the header.
        needed: what it should be, for the sentence.

    Returns:
        header; voxels float32 (i, j, k), an image of two dimensions with a single slice.

    Raises:
        ScanError: damaged, coloured or very large files.
        Planar3DError: SimpleITK is not installed.
    """
    metaimage_files(path)
    with challenges_extra():
        import SimpleITK
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("MetaImageIO")
    try:
        reader.ReadImageInformation()
        size = reader.GetSize()
        if not 2 <= len(size) <= 3 or reader.GetNumberOfComponents() != 1 or np.prod(size) > MAXIMUM_VOXELS:
            raise ScanError(
                f"{path} has the size {size} of {reader.GetNumberOfComponents()} components; {needed} is needed."
            )
        image = reader.Execute()
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1]
        raise ScanError(f"{path} is a MetaImage file that cannot be read ({said}). {_ADVICE}") from None
    voxels = SimpleITK.GetArrayFromImage(image).T.astype(np.float32)
    dimensions = image.GetDimension()
    affine = np.eye(4)
    affine[:dimensions, :dimensions] = np.reshape(image.GetDirection(), (dimensions, dimensions)) * image.GetSpacing()
    affine[:dimensions, 3] = image.GetOrigin()
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # ITK's axes run left and posterior
    voxels = voxels.reshape((*size, 1)[:3])
    return header_with(affine, voxels.shape), voxels


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST)
    except OSError:
        return b""
