"""MetaImage and NRRD files, with attached or detached header, read and written by SimpleITK."""

import math
import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np

from planar3d.errors import ScanError
from planar3d.extras import extra
from planar3d.scans.nifti_header import MAXIMUM_VOXELS, header_with

_LONGEST = 2**16  # bytes of a header
_ADVICE = "Copy it again, or convert it to NIfTI."
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's axes run left and posterior
# By ending: first bytes, ITK's reader, the line that names a separate file of voxels, and the line with the axes. The
# header of an NRRD file ends at an empty line.
_META = (
    (b"ObjectType", b"NDims", b"Comment"),
    "MetaImageIO",
    re.compile(rb"^ElementDataFile\s*=\s*(.+?)\s*$", re.M),
    re.compile(rb"^(TransformMatrix|Orientation|Rotation)\s*=", re.M),
)
_NRRD = (
    (b"NRRD0",),
    "NrrdImageIO",
    re.compile(rb"^data ?file:\s*(.+?)\s*$", re.M | re.I),
    re.compile(rb"^space directions:", re.M | re.I),
)
_KINDS = {".mhd": _META, ".mha": _META, ".nrrd": _NRRD, ".nhdr": _NRRD}


def is_itk_image(path: Path) -> bool:
    """Whether a file is a MetaImage or NRRD file or header, by its name and content."""
    kind = _KINDS.get(path.suffix.lower())
    return kind is not None and _header(path).lstrip().startswith(kind[0])


def itk_files(path: Path) -> list[Path]:
    """The file, and the file of its voxels beside it, if separate.

    Raises:
        ScanError: the voxels are separate, but the header names no such file.
    """
    suffix = path.suffix.lower()
    found = _KINDS[suffix][2].search(_header(path))
    name = os.fsdecode(found[1]) if found else ""
    if name.upper() == "LOCAL" or (not name and suffix == ".nrrd"):
        return [path]
    if not name or os.path.basename(name) != name or name.upper().startswith("LIST"):
        found_name = f"{name} as its data file" if name else "no data file"
        raise ScanError(f"{path} names {found_name}; a single file in the same folder is needed. {_ADVICE}")
    return [path, path.with_name(name)]


def read_itk(path: Path, needed: str) -> tuple[nib.Nifti1Header, np.ndarray]:
    """Read a header and its voxels.

    Args:
        path: the header.

    Returns:
        header, without sform and qform if the file does not define its axes; voxels float32 (i, j, k), with a single
        slice for a two-dimensional image.

    Raises:
        ScanError: damaged, coloured or very large files.
    """
    itk_files(path)
    with extra("itk"):
        import SimpleITK
    _, reading, _, places = _KINDS[path.suffix.lower()]
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(reading)
    try:
        reader.ReadImageInformation()
        size = reader.GetSize()
        usable = 2 <= len(size) <= 3 and min(size) >= 1 and math.prod(size) <= MAXIMUM_VOXELS
        if not usable or reader.GetNumberOfComponents() != 1:
            raise ScanError(
                f"{path} has the size {size} of {reader.GetNumberOfComponents()} components; {needed} is needed."
            )
        image = reader.Execute()
    except (RuntimeError, MemoryError) as error:
        said = "".join(str(error).strip().splitlines()[-1:]) or type(error).__name__
        raise ScanError(f"{path} is damaged and cannot be read ({said}). {_ADVICE}") from None
    voxels = SimpleITK.GetArrayFromImage(image).T.astype(np.float32)
    dimensions = image.GetDimension()
    affine = np.eye(4)
    affine[:dimensions, :dimensions] = np.reshape(image.GetDirection(), (dimensions, dimensions)) * image.GetSpacing()
    affine[:dimensions, 3] = image.GetOrigin()
    header = header_with(_LPS @ affine, (*size, 1)[:3])
    if not places.search(_header(path)):
        header["sform_code"] = header["qform_code"] = 0
    return header, voxels.reshape((*size, 1)[:3])


def write_itk(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write voxels (i, j, k) in the format of the file's ending."""
    with extra("itk"):
        import SimpleITK
    image, lps = SimpleITK.GetImageFromArray(voxels.T), _LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path), useCompression=path.suffix.lower() in (".mha", ".nrrd"))


def _header(path: Path) -> bytes:
    """The text before the voxels; in NRRD files up to an empty line."""
    try:
        with path.open("rb") as file:
            start = file.read(_LONGEST)
    except OSError:
        return b""
    return re.split(rb"\r?\n\r?\n", start)[0] if start.startswith(b"NRRD0") else start
