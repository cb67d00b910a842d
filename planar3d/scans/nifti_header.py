"""The header of a NIfTI file: repaired where all readers agree on its meaning, else refused."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import from_matvec, voxel_sizes
from nibabel.spatialimages import HeaderDataError

from planar3d.errors import ScanError
from planar3d.scans.geometry import is_usable

MAXIMUM_VOXELS = 2**27  # 512 MiB in float32; the largest scan of MSSEG 2016 has 38 million
LONGEST_HEADER = 540  # bytes, of NIfTI-2
_MAXIMUM_LENGTH = 1024  # voxels along an axis
_MAXIMUM_OFFSET = 2**26  # bytes of header extensions before the voxels
_LARGEST_CODE = 100  # of a header extension; 46 is the largest that is registered

# nibabel's headers of single files: their length in bytes, and offset and value of their magic.
_KINDS = ((nib.Nifti1Header, 344, b"n+1"), (nib.Nifti2Header, 4, b"n+2"))
_SILENT = logging.Logger("nibabel", logging.CRITICAL)  # its remarks on SPM are not for users
_LAST_CODE = 5  # of sform and qform in the standard


def read_header(path: Path, start: bytes) -> nib.Nifti1Header | None:
    """The repaired header of a single-file NIfTI; None if there is none. Its `vox_offset` is the start of the voxels.

    Repairs on which readers agree: a `vox_offset` of 0 means directly after the header; the fourth and later axes of
    length 0 have length 1; a sform that does not locate voxels is replaced by a qform that does; voxel sizes that are
    not above 0 are taken from the sform. `start` are the first `LONGEST_HEADER` bytes of the file, unpacked.

    Raises:
        ScanError: the header contradicts itself, or declares an implausible size.
    """
    for kind, place, magic in _KINDS:
        size = kind.sizeof_hdr
        for order in "<>":
            begins = start[:4] == np.array(size, f"{order}i4").tobytes() and start[place : place + 3] == magic
            if begins and len(start) >= size:
                return mended(path, kind(start[:size], order, check=False))
    return None


def read_extensions(path: Path, header: nib.Nifti1Header, content: bytes) -> None:
    """Read readable extensions before the voxels into the header; a `ScanError` if one overlaps the voxels."""
    begin, offset = header.sizeof_hdr + 4, int(header["vox_offset"])
    end, found = begin, []
    # The header announces at least one; otherwise the bytes are padding, or a program forgot to clear the mark.
    while content[header.sizeof_hdr] and (end == begin or end < offset):
        size, code = np.frombuffer(content[end : end + 8].ljust(8, b"\0"), f"{header.endianness}i4").tolist()
        if size < 16 or size % 16 or not 0 <= code <= _LARGEST_CODE or end + size > len(content):
            break
        found.append(nib.nifti1.Nifti1Extension(code, content[end + 8 : end + size]))
        end += size
    if end > offset:
        raise ScanError(
            f"{path} has voxels from byte {offset:,}, inside a header extension that ends at byte {end:,}. Convert it "
            "again."
        )
    header.extensions.extend(found)


def mended(path: Path, header: nib.Nifti1Header) -> nib.Nifti1Header:
    """A header with the repairs of `read_header`; voxels in a file of their own begin at its first byte by default."""
    mend_shape(path, header)
    _mend_offset(path, header)
    _mend_affine(path, header)
    try:
        lengths = header["pixdim"][1:4].copy()
        if header["sform_code"]:
            known = np.isfinite(lengths) & (lengths > 0)
            header["pixdim"][1:4] = lengths = np.where(known, lengths, voxel_sizes(header.get_sform()))
        header.check_fix(_SILENT)
        header["pixdim"][1:4] = lengths  # nibabel replaces 0 by 1 mm, which was not measured
    except HeaderDataError as error:
        raise ScanError(f"{path} has a damaged header ({error}). Convert the original data again.") from None
    return header


def mend_shape(path: Path, header: nib.analyze.AnalyzeHeader) -> None:
    """Repair the shape as in `read_header`, also of an Analyze 7.5 header; a `ScanError` if no scan has it."""
    count = int(header["dim"][0])
    if not 1 <= count <= 7:
        raise ScanError(f"{path} declares {count} dimensions; a scan has 3. Its header is damaged; convert it again.")
    lengths = header["dim"][1 : 1 + count]
    lengths[3:][lengths[3:] == 0] = 1
    shape = tuple(lengths.tolist())
    if min(shape) < 1:
        raise ScanError(f"{path} declares the shape {shape}, which has no voxels. Convert the original data again.")
    voxels = math.prod(shape)
    if voxels > MAXIMUM_VOXELS or max(shape) > _MAXIMUM_LENGTH:
        raise ScanError(
            f"{path} declares {voxels:,} voxels {shape}; at most {MAXIMUM_VOXELS:,} are accepted, and "
            f"{_MAXIMUM_LENGTH:,} along an axis. If the scan has that many, resample it to larger voxels; if not, its "
            "header is damaged: convert the original data again."
        )
    if int(header["datatype"]) not in nib.nifti1.data_type_codes or not header.get_data_dtype().itemsize:
        raise ScanError(
            f"{path} has voxels of type {header['datatype']}, not integers or floats of 8 to 64 bits. Convert it again."
        )


def _mend_offset(path: Path, header: nib.Nifti1Header) -> None:
    first = header.single_vox_offset if header.is_single else header.pair_vox_offset
    found = float(header["vox_offset"])
    if found == 0:  # "the default" of nibabel and others, with the voxels directly after the header
        header["vox_offset"] = first
    elif not (first <= found <= _MAXIMUM_OFFSET and found.is_integer()):
        least = f"0 or {first}" if first else "0"
        raise ScanError(
            f"{path} has the vox_offset {found:.9g}; {least} to {_MAXIMUM_OFFSET:,} is expected. Convert it again."
        )


def _mend_affine(path: Path, header: nib.Nifti1Header) -> None:
    """Keep one affine that locates the voxels, if there is one."""
    lengths = header["pixdim"]
    lengths[1:4] = np.abs(lengths[1:4])
    if lengths[0] not in (-1, 1):
        lengths[0] = 1  # the standard's meaning of 0
    for code in ("sform_code", "qform_code"):
        if not 0 <= header[code] <= _LAST_CODE:
            header[code] = 0  # as in nibabel for codes outside the standard
    sform = header.get_sform()
    if header["sform_code"] and not is_usable(sform):
        has_qform = header["qform_code"] and _is_rotation(header) and is_usable(header.get_qform())
        if has_qform or not sform[:3, :3].any():
            header["sform_code"] = 0
    if header["qform_code"] and not header["sform_code"] and not _is_rotation(header):
        quaternion = ", ".join(f"{header[f'quatern_{part}']:g}" for part in "bcd")
        raise ScanError(
            f"{path} does not define its orientation: its qform has the quaternion ({quaternion}), which is not "
            "a rotation, and it has no sform. Fix its header or convert the original data again."
        )


def _is_rotation(header: nib.Nifti1Header) -> bool:
    try:
        return bool(np.isfinite(header.get_qform_quaternion()).all())
    except ValueError:
        return False


def header_with(affine: np.ndarray, grid: Sequence[int], placed: bool = True) -> nib.Nifti1Header:
    """A header with the geometry of a grid in both sform and qform, whose codes are 0 if it is not placed in space."""
    header = nib.Nifti1Header()
    header.set_data_shape(grid)
    header.set_xyzt_units("mm")
    header.set_sform(affine, code=int(placed))
    if is_usable(affine):  # `Scan` refuses others in a sentence, unlike nibabel
        header.set_qform(affine, code=int(placed))
    return header


def header_around(center: np.ndarray, axes: np.ndarray, grid: Sequence[int]) -> nib.Nifti1Header:
    """A header of a grid around a center in mm, with the axes of a voxel in mm as columns."""
    return header_with(from_matvec(axes, center - axes @ (np.array(grid) - 1) / 2), grid)
