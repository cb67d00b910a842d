"""The grids of a case's files, compared by their headers before any voxel is read."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from planar3d.errors import ScanError
from planar3d.scans.case import Case
from planar3d.scans.grid import is_usable
from planar3d.scans.nifti import header_of
from planar3d.scans.stored import is_foreign
from planar3d.scans.volume import Scan, on_grid_of
from planar3d.wording import counted


def require_one_grid(cases: Collection[Case], images: Sequence[str]) -> None:
    """Refuse cases whose images and label map differ in their grids, as far as the headers of NIfTI files show.

    Args:
        cases: with label maps.
        images: the names of the images that are used.

    Raises:
        ScanError: names all of these cases, and the problem of the first.
    """
    problems = {case.id: why for case in cases if (why := _why_apart(case, images))}
    if problems:
        raise ScanError(
            f"{counted(problems, 'case')} cannot be prepared: {', '.join(problems)}. {next(iter(problems.values()))}"
        )


def _why_apart(case: Case, images: Sequence[str]) -> str:
    try:
        first, *others = [_grid(case.images[name]) for name in images]
        for grid in filter(None, others):
            if first:
                on_grid_of(first, grid, "image")
        if first and (mask := _grid(case.label_map)):
            on_grid_of(first, mask)
    except ScanError as error:
        return str(error)
    return ""


def _grid(path: Path) -> Scan | None:
    """A volume of zeros that takes no memory; None if the header does not define a grid, which reading will explain."""
    header = None if is_foreign(path) else header_of(path)
    if header is None or not (header["sform_code"] or header["qform_code"]):
        return None
    shape, affine = header.get_data_shape(), header.get_best_affine()
    if len(shape) < 3 or max(shape[3:], default=1) > 1 or not (np.isfinite(affine).all() and is_usable(affine)):
        return None
    return Scan(np.broadcast_to(np.float32(0), shape[:3]), header, path)
