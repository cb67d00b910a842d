"""What can be wrong with a scan, and the sentences that say so."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from planar3d.errors import ScanError
from planar3d.scans.grid import is_usable

if TYPE_CHECKING:
    from planar3d.scans.volume import Scan

SPACINGS = (0.05, 50.0)  # mm between voxels that a head scan may have; thousandths and thousands are other units
LENGTH = 2000.0  # mm along an axis, as of a scan of the whole body
MAGNITUDES = (1e-30, 1e30)  # of the greatest value; beyond, float32 overflows in its scaling
_SPLIT = "Extract one volume first, e.g. with fslroi."


class Check(NamedTuple):
    """What is wrong with a scan, and the sentence behind its file's name, with the `{words}` that `check` is given."""

    is_wrong: Callable[["Scan"], bool]
    sentence: Callable[["Scan"], str]


def check(scan: "Scan", checks: Sequence[Check], **words: str) -> None:
    """Raise a `ScanError` with the sentence of the first check that fires.

    Args:
        words: what the file should be, `needed`, and how it is `stored` if the user says that it is.
    """
    for each in checks:
        if each.is_wrong(scan):
            raise ScanError(f"{scan.path} {each.sentence(scan).format_map(words)}")


def _lengths(scan: "Scan") -> list[float]:
    """Millimeters along (i, j, k)."""
    return [n * mm for n, mm in zip(scan.voxels.shape, scan.spacing, strict=True)]


def _shape_sentence(scan: "Scan") -> str:
    shape = scan.voxels.shape
    advice = _SPLIT if len(shape) == 4 else "Name a single volume with several slices."
    return f"is {len(shape)}-D {shape}; {{needed}} is needed. {advice}"


# Their order matters: later ones rely on what earlier ones have seen. The second depends on whether a slice will do.
SHAPE = Check(lambda s: s.voxels.ndim != 3, _shape_sentence)
AXES = {
    False: Check(
        lambda s: min(s.voxels.shape) < 2,
        lambda s: f"is 2-D {s.voxels.shape}: one axis has a single voxel; {{needed}} with several slices is needed.",
    ),
    True: Check(
        lambda s: min(s.voxels.shape[:2]) < 2,
        lambda s: f"has the shape {s.voxels.shape}, a line of voxels; {{needed}} is needed.",
    ),
}
GEOMETRY: tuple[Check, ...] = (
    Check(
        lambda s: s.header["sform_code"] == 0 and s.header["qform_code"] == 0,
        lambda _: (
            "does not define its orientation (neither sform nor qform is set). If {stored}, add --assume-affine; "
            "otherwise convert the original data again."
        ),
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
    Check(
        lambda s: not np.isfinite(s.limits).all(),
        lambda s: (
            f"has {np.count_nonzero(~np.isfinite(s.voxels)):,} NaN or infinite voxels; replace them first, "
            "e.g. with fslmaths -nan."
        ),
    ),
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
