"""Viewers find the names and colours of labels in tables of their own, and a notebook the voxels of scan and mask."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from scan_pages import segmented

from planar3d.evaluation.figures import outlines
from planar3d.scans.outputs import plain_names
from planar3d.study.notebook import show
from planar3d.study.segmented import write_label_tables

SCORED = {"WT": (1, 2, 4), "TC": (1, 4), "enhancing tumour": (4,)}


def test_each_viewer_gets_a_line_a_label_in_its_own_form(tmp_path):
    write_label_tables(plain_names("a", tmp_path), SCORED)
    snap, fsl, freeview = (
        (tmp_path / f"a_mask_{end}").read_text().splitlines() for end in ("itksnap.txt", "fsleyes.lut", "freeview.txt")
    )
    assert [line.split(maxsplit=7) for line in snap[1:]] == [
        ["0", "0", "0", "0", "0", "0", "0", '"Clear Label"'],
        ["1", "86", "180", "233", "1", "1", "1", '"WT+TC"'],
        ["2", "230", "159", "0", "1", "1", "1", '"WT"'],
        ["4", "204", "121", "167", "1", "1", "1", '"WT+TC+enhancing tumour"'],
    ]
    assert fsl[0] == "1 0.3373 0.7059 0.9137 WT+TC" and len(fsl) == 3
    assert freeview[-1] == "4 WT+TC+enhancing-tumour 204 121 167 0" and freeview[1] == "0 background 0 0 0 0"


def test_a_label_has_the_colour_of_its_innermost_target_on_the_pages(tmp_path):
    scored = {"right": (2,), "left": (1,)}
    write_label_tables(plain_names("a", tmp_path), scored)
    lines = [line.split() for line in (tmp_path / "a_mask_freeview.txt").read_text().splitlines()[2:]]
    for label, name, *rgb, _ in lines:
        assert scored[name] == (int(label),)
        assert outlines(scored)[name][0] == "#{:02X}{:02X}{:02X}".format(*map(int, rgb))


def test_a_name_with_quotation_marks_or_tabs_leaves_the_tables_readable(tmp_path):
    write_label_tables(plain_names("a", tmp_path), {'a "b"\tc': (1,)})
    assert (tmp_path / "a_mask_itksnap.txt").read_text().splitlines()[-1].endswith("\"a 'b' c\"")
    assert (tmp_path / "a_mask_freeview.txt").read_text().splitlines()[-1].split()[1] == "a-'b'-c"


def test_the_table_of_freeview_is_one_of_numbers_and_names_without_blanks(tmp_path):
    write_label_tables(plain_names("a", tmp_path), {"lesion": (1,)})
    table = np.genfromtxt(tmp_path / "a_mask_freeview.txt", dtype=None, encoding="utf-8")
    assert [tuple(row) for row in table] == [(0, "background", 0, 0, 0, 0), (1, "lesion", 230, 159, 0, 0)]


def test_a_notebook_is_given_the_voxels_of_scan_and_mask(tmp_path):
    pytest.importorskip("ipyniivue", reason="needs the extra notebook")
    scan, mask = segmented("LPI")
    for given in ((scan, mask), (scan.save(tmp_path / "s.nii.gz"), mask.save(tmp_path / "m.nii.gz"))):
        volumes = show(*given, opacity=0.3).volumes
        assert [volume.opacity for volume in volumes] == [1, 0.3] and volumes[1].colormap == "red"
        for volume, expected in zip(volumes, (scan, mask), strict=True):
            image = nib.Nifti1Image.from_bytes(gzip.decompress(volume.data))
            np.testing.assert_array_equal(np.asarray(image.dataobj), expected.voxels)
            np.testing.assert_allclose(image.affine, expected.affine, atol=1e-6)
