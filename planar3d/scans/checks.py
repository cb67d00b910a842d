"""Checks of a scan, with their error messages."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from planar3d.errors import ScanError
from planar3d.scans.grid import is_usable
from planar3d.wording import counted

if TYPE_CHECKING:
    from planar3d.scans.volume import Scan

SPACINGS = (0.05, 50.0)  # mm between voxels of a head scan; thousandths and thousands indicate other units
LENGTH = 2000.0  # mm along an axis, the length of a whole-body scan
MAGNITUDES = (1e-30, 1e30)  # of the greatest value; beyond, float32 overflows in its scaling
_SPLIT = "Extract one volume first, e.g. with fslroi."


class Check(NamedTuple):
    """A predicate for faulty scans, and the message that follows the file's name, with the `{words}` of `check`."""

    is_wrong: Callable[["Scan"], bool]
    sentence: Callable[["Scan"], str]


def check(scan: "Scan", checks: Sequence[Check], **words: str) -> None:
    """Raise a `ScanError` with the message of the first check that fires.

    Args:
        words: `needed`, the expected kind of file, and `advice` on a file without geometry.
    """
    for each in checks:
        if each.is_wrong(scan):
            raise ScanError(f"{scan.path or 'The scan'} {each.sentence(scan).format_map(words)}")


def _lengths(scan: "Scan") -> list[float]:
    """Millimeters along (i, j, k)."""
    return [n * mm for n, mm in zip(scan.voxels.shape, scan.spacing, strict=True)]


def _shape_sentence(scan: "Scan") -> str:
    shape = scan.voxels.shape
    advice = _SPLIT if len(shape) == 4 else "Name a single volume with several slices."
    return f"is {len(shape)}-D {shape}; {{needed}} is needed. {advice}"


# Their order matters: later checks rely on earlier ones. The second depends on whether one slice is enough.
SHAPE = Check(lambda s: s.voxels.ndim != 3 or not s.voxels.size, _shape_sentence)
FINITE = Check(
    lambda s: not np.isfinite(s.limits).all(),
    lambda s: (
        f"has NaN or infinity in {counted(int(np.count_nonzero(~np.isfinite(s.voxels))), 'voxel')}; replace them "
        "first, e.g. with fslmaths -nan."
    ),
)
AXES = {
    False: Check(
        lambda s: min(s.voxels.shape) < 2,
        lambda s: f"is a single slice, {s.voxels.shape}; {{needed}} with several slices is needed.",
    ),
    True: Check(
        lambda s: min(s.voxels.shape[:2]) < 2,
        lambda s: f"has the shape {s.voxels.shape}, a line of voxels; {{needed}} is needed.",
    ),
}
GEOMETRY: tuple[Check, ...] = (
    Check(
        lambda s: s.header["sform_code"] == 0 and s.header["qform_code"] == 0,
        lambda _: "does not define its orientation (neither sform nor qform is set). {advice}",
    ),
    Check(
        lambda s: not SPACINGS[0] <= min(s.spacing) <= max(s.spacing) <= SPACINGS[1],
        lambda s: (
            f"has voxels of {' × '.join(f'{mm:.3g}' for mm in s.spacing)} mm; {SPACINGS[0]:g} to {SPACINGS[1]:g} are "
            "expected of a head. Fix its header, which should be in millimeters, or convert it again."
        ),
    ),
    Check(
        lambda s: max(_lengths(s)) > LENGTH,
        lambda s: (
            f"is {' × '.join(f'{mm:,.0f}' for mm in _lengths(s))} mm large, more than a whole body "
            f"({LENGTH:,.0f} mm). Fix its header, which should be in millimeters, or convert it again."
        ),
    ),
    Check(
        lambda s: not np.isfinite(s.affine).all(),
        lambda s: "has an affine with NaN or infinite values. Fix its header or convert it again.",
    ),
    Check(
        lambda s: not is_usable(s.affine),
        lambda s: "has a singular affine: its axes do not span space. Fix its header or convert it again.",
    ),
    FINITE,
)
CONTRAST: tuple[Check, ...] = (
    Check(
        lambda s: s.limits[0] == s.limits[1],
        lambda s: f"has the value {s.limits[0]:g} everywhere; a scan with contrast is needed.",
    ),
    Check(
        lambda s: not MAGNITUDES[0] <= max(map(abs, s.limits)) <= MAGNITUDES[1],
        lambda s: (
            f"has values from {s.limits[0]:g} to {s.limits[1]:g}, which no scanner produces. Its voxels or their "
            "scaling are damaged; convert the original data again."
        ),
    ),
)
