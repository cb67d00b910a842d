"""The predicted part of a scan's planes: whole planes, or the box around the head."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from planar3d.scans.head import largest_part
from planar3d.scans.intensities import HEAD_LEVEL

Part = tuple[slice, slice]  # rows and columns

# Boxes of heads start and end at multiples: four poolings are equivariant only to such shifts.
HEAD_STEP = 16
_MARGIN = 4  # pixels of air around the head


class Planes(NamedTuple):
    """The predicted part of a prepared scan, uint8 (slices, rows, cols, 1), and whether it is the head's box."""

    part: Callable[[np.ndarray], Part]
    of_head: bool


def head_box(voxels: np.ndarray) -> Part:
    """Rows and columns of the box around the head in all slices; whole planes if there is no head.

    The head is the largest component that is not air in at least two slices, after opening with a disc of five pixels,
    which removes wrapped noise and the head holder.

    Args:
        voxels: uint8 (slices, rows, cols, 1), in grey levels that separate the head from air.
    """
    shown = ndimage.binary_opening(np.count_nonzero(voxels > HEAD_LEVEL, axis=(0, 3)) > 1, iterations=2)
    found = ndimage.find_objects(largest_part(shown).astype(np.uint8))
    if not found:
        return slice(None), slice(None)
    rows, cols = (
        slice(
            max((box.start - _MARGIN) // HEAD_STEP * HEAD_STEP, 0),
            min(-(-(box.stop + _MARGIN) // HEAD_STEP) * HEAD_STEP, length),
        )
        for box, length in zip(found[0], shown.shape, strict=True)
    )
    return rows, cols


PLANES = {"whole": Planes(lambda voxels: (slice(None), slice(None)), False), "head": Planes(head_box, True)}
