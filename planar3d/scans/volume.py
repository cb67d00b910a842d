"""A scan: voxels that know where they are in space, read with every check and written whole."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from planar3d.errors import ScanError
from planar3d.files import written_beside
from planar3d.scans.nifti import image_class, read_whole

MASK_TOLERANCE = 1e-3  # masks as distributed hold 1.00000006 for 1
CORNER_TOLERANCE = 0.1  # voxels
SPACINGS = (0.05, 50.0)  # mm between voxels that a head scan may have; thousandths and thousands are other units
LENGTH = 2000.0  # mm along an axis, as of a scan of the whole body
MAGNITUDES = (1e-30, 1e30)  # of the greatest value; beyond, float32 overflows in its scaling
_FLAT = 0.01  # of a box of the same edges: less volume has a voxel only where axes nearly coincide
_KINDS = {"c": "complex", "V": "colour"}


@dataclass(frozen=True)
class Scan:
    """A 3-D volume and its geometry.

    Attributes:
        voxels: (i, j, k) in the storage order of the file.
        header: the NIfTI header, which holds sform, qform, their codes, and zooms in mm.
        path: the file it was read from, if any.
    """

    voxels: np.ndarray
    header: nib.Nifti1Header
    path: Path | None = field(default=None, compare=False)

    @property
    def affine(self) -> np.ndarray:
        """4×4: voxel indices (i, j, k, 1) to world coordinates in mm (right, anterior, superior)."""
        return self.header.get_best_affine()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along (i, j, k) in mm."""
        return tuple(float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))  # type: ignore[return-value]

    @functools.cached_property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest value of all voxels, computed once; NaN if there is one."""
        return float(self.voxels.min()), float(self.voxels.max())

    def save(self, path: str | Path) -> Path:
        """Write a NIfTI file, gzipped if its name ends in .gz, whole or not at all.

        The voxels' own type is stored, bool as uint8; shape, affine, codes and zooms are the header's.
        """
        path = Path(path)
        if not path.name.endswith((".nii", ".nii.gz")):
            raise ScanError(f"{path}: a scan is written as .nii or .nii.gz; choose such a name.")
        voxels = self.voxels.astype(np.uint8) if self.voxels.dtype == bool else self.voxels
        header = self.header.copy()
        header.set_data_dtype(voxels.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        with written_beside(path) as temporary:
            nib.save(kind(voxels, None, header), temporary)
        return path


def read_scan(path: str | Path, assume_affine: bool = False) -> Scan:
    """Read a NIfTI scan to its last byte and check everything that can be wrong with it.

    Args:
        path: a .nii or .nii.gz file.
        assume_affine: accept a file that has neither sform nor qform, and take its storage as running left, anterior,
            superior (nibabel's convention) with the voxel sizes of the header.

    Returns:
        A scan with float32 voxels (i, j, k), intensities after the header's scaling. A single trailing axis is
        squeezed.

    Raises:
        ScanError: the file is missing, damaged, no single volume, without geometry, or holds no usable intensities.
    """
    path = Path(path)
    content = read_whole(path)
    try:
        image = image_class(content).from_bytes(content)
        kind = image.get_data_dtype().kind
        if kind not in "iuf":
            raise ScanError(
                f"{path} holds {_KINDS.get(kind, kind)} voxels; a single grey-scale FLAIR volume is needed."
            )
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold is refused as infinite or NaN
            voxels = _intensities(image, content)
    except (nib.spatialimages.HeaderDataError, nib.filebasedimages.ImageFileError, ValueError, OSError) as error:
        raise ScanError(f"{path} is not a readable NIfTI file ({error}). Convert the original data again.") from None
    header = image.header.copy()
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
        header.set_data_shape(voxels.shape)
    if header["sform_code"] == 0 and header["qform_code"] == 0 and assume_affine:
        header.set_sform(header.get_base_affine(), code=1)
    scan = Scan(voxels, header, path)
    for is_wrong, sentence in _CHECKS:
        if is_wrong(scan):
            raise ScanError(f"{path} {sentence(scan)}")
    return scan


def read_mask(path: str | Path, scan: Scan | None = None, assume_affine: bool = False) -> Scan:
    """Read a lesion mask, and check that it belongs to `scan` if one is given.

    Returns:
        A scan with uint8 voxels {0, 1} on the grid of `scan`.

    Raises:
        ScanError: as `read_scan`; the mask's grid is not the scan's (another shape, or an affine that puts a corner
            more than a tenth of a voxel elsewhere), or its labels are not {0, 1} within 0.001.
    """
    path = Path(path)
    mask = _read_mask_voxels(path, assume_affine)
    if scan is not None:
        check_same_grid(mask, scan)
    labels = np.rint(mask.voxels)
    if np.abs(mask.voxels - labels).max() > MASK_TOLERANCE or labels.min() < 0 or labels.max() > 1:
        found = np.unique(mask.voxels)
        shown = ", ".join(f"{v:g}" for v in found[:6]) + (", …" if len(found) > 6 else "")
        raise ScanError(f"{path} holds the labels {{{shown}}}; a lesion mask of {{0, 1}} is needed. Binarize it first.")
    return Scan(labels.astype(np.uint8), mask.header, path)


def check_same_grid(mask: Scan, scan: Scan) -> None:
    """Raise a `ScanError` if a mask does not lie on the grid of its scan."""
    if mask.voxels.shape != scan.voxels.shape:
        raise ScanError(
            f"{mask.path or 'The mask'} has shape {mask.voxels.shape}, but {scan.path or 'its scan'} has "
            f"{scan.voxels.shape}; a mask on the grid of its scan is needed. Resample it to the scan first."
        )
    shift = corner_shift(scan.affine, mask.affine, scan.voxels.shape)
    if shift > CORNER_TOLERANCE:
        raise ScanError(
            f"{mask.path or 'The mask'} lies elsewhere than {scan.path or 'its scan'}: a corner is {shift:.1f} voxels "
            f"away, at most {CORNER_TOLERANCE} is accepted. Mend its header, after looking at both in a viewer."
        )


def corner_shift(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far, in voxels of `affine`, the farthest corner of a (i, j, k) grid moves under the `other` affine."""
    corners = np.array([(i, j, k, 1) for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)])
    moved = corners @ (np.linalg.inv(affine) @ other).T
    return float(np.abs(moved - corners)[:, :3].max())


def _intensities(image: nib.Nifti1Image, content: bytes) -> np.ndarray:
    """float32 voxels (i, j, k), i fastest in memory; unscaled ones straight from the bytes of the file."""
    stored: Any = image.dataobj
    if (stored.slope, stored.inter) != (1, 0):
        return image.get_fdata(dtype=np.float32, caching="unchanged")
    voxels = np.frombuffer(content, stored.dtype, math.prod(stored.shape), stored.offset)
    return voxels.reshape(stored.shape, order="F").astype(np.float32)


def _read_mask_voxels(path: Path, assume_affine: bool) -> Scan:
    try:
        return read_scan(path, assume_affine)
    except _ConstantVoxelsError as error:
        # A healthy head has an empty mask; any other constant is no mask.
        if error.value != 0:
            raise
        return error.scan


class _ConstantVoxelsError(ScanError):
    """All voxels hold one value: useless as a scan, but an empty mask when the value is 0."""

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self.value = float(scan.voxels.flat[0])
        super().__init__(f"{scan.path} holds the value {self.value:g} everywhere; a scan with contrast is needed.")


def _raise_constant(scan: Scan) -> str:
    raise _ConstantVoxelsError(scan)


def _lengths(scan: Scan) -> list[float]:
    """Millimeters along (i, j, k)."""
    return [n * mm for n, mm in zip(scan.voxels.shape, scan.spacing, strict=True)]


def _shape_sentence(scan: Scan) -> str:
    shape = scan.voxels.shape
    advice = "Split it first, e.g. with fslroi." if len(shape) > 3 else "A scan of several slices is needed."
    return f"is {len(shape)}-D {shape}; a single FLAIR volume is needed. {advice}"


# Each check: is it wrong, and the sentence behind the file's name. Their order matters: geometry before intensities.
_CHECKS: tuple[tuple[Callable[[Scan], bool], Callable[[Scan], str]], ...] = (
    (lambda s: s.voxels.ndim != 3, _shape_sentence),
    (
        lambda s: min(s.voxels.shape) < 2,
        lambda s: f"is 2-D {s.voxels.shape}: an axis has a single slice; a volume is needed.",
    ),
    (
        lambda s: s.header["sform_code"] == 0 and s.header["qform_code"] == 0,
        lambda s: (
            "says nowhere how it lies in space (neither sform nor qform is set). If its storage runs left, "
            "anterior, superior, say so with --assume-affine; otherwise convert the original data again."
        ),
    ),
    (
        lambda s: not SPACINGS[0] <= min(s.spacing) <= max(s.spacing) <= SPACINGS[1],
        lambda s: (
            f"has voxels of {' × '.join(f'{mm:.3g}' for mm in s.spacing)} mm; {SPACINGS[0]:g} to {SPACINGS[1]:g} are "
            "expected of a head. Mend its header, which should be in millimeters, or convert it again."
        ),
    ),
    (
        lambda s: max(_lengths(s)) > LENGTH,
        lambda s: (
            f"is {' × '.join(f'{mm:,.0f}' for mm in _lengths(s))} mm large, more than the {LENGTH:,.0f} mm of a whole "
            "body. Mend its header, which should be in millimeters, or convert it again."
        ),
    ),
    (
        lambda s: (
            not np.isfinite(s.affine).all() or abs(np.linalg.det(s.affine[:3, :3])) < _FLAT * math.prod(s.spacing)
        ),
        lambda s: "has a singular affine: its axes do not span space. Mend its header or convert it again.",
    ),
    (
        lambda s: not np.isfinite(s.limits).all(),
        lambda s: (
            f"holds {np.count_nonzero(~np.isfinite(s.voxels)):,} NaN or infinite voxels; replace them first, "
            "e.g. with fslmaths -nan."
        ),
    ),
    (lambda s: s.limits[0] == s.limits[1], _raise_constant),
    (
        lambda s: not MAGNITUDES[0] <= max(map(abs, s.limits)) <= MAGNITUDES[1],
        lambda s: (
            f"holds values from {s.limits[0]:g} to {s.limits[1]:g}, which no scanner gives. Its voxels or their "
            "scaling are damaged; convert the original data again."
        ),
    ),
)
