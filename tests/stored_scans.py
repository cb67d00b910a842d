"""Scans as they may lie in files: one volume stored along any axes, and empty files for layouts."""

import itertools

import nibabel as nib
import numpy as np
from nibabel import orientations

from planar3d.scans.volume import Scan

# Every order of axes with every direction of each: 48.
TURNS = [
    np.array(list(zip(axes, flips, strict=True)))
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]

# The same by their letters, as "LPS": where each axis runs to.
CODES = ["".join(nib.orientations.ornt2axcodes(turn)) for turn in TURNS]


def touch(folder, *names):
    """Empty files of these names in a folder, with the folders around them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def turned(voxels, affine, turn):
    """Voxels and affine of the same volume, stored along other axes."""
    stored = np.ascontiguousarray(orientations.apply_orientation(voxels, turn))
    return stored, affine @ orientations.inv_ornt_aff(turn, voxels.shape)


def scan_along(axes, voxels, affine):
    """A scan of right-anterior-superior voxels, stored along axes as "LPS"."""
    turn = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(tuple(axes)))
    image = nib.Nifti1Image(*turned(voxels, affine, turn))
    return Scan(np.asarray(image.dataobj), image.header)
