"""What a file holds decides how it is read; of what is no NIfTI file it is said what it is, with advice that works."""

import bz2
import gzip
import lzma
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from planar3d.errors import ScanError
from planar3d.scans.volume import read_scan

VOXELS = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(np.int16)
AFFINE = np.diag([-2.0, -1, 1, 1])
NIFTI = nib.Nifti1Image(VOXELS, AFFINE).to_bytes()
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
ANNEX = b"/annex/objects/SHA256E-s12345--4d7a.nii.gz\n"


def _refused(path):
    with pytest.raises(ScanError) as refused:
        read_scan(path)
    assert str(refused.value).startswith(f"{path} is not a NIfTI file: it ")
    return str(refused.value)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.NII", "A.Nii.Gz", "a.NII.GZ", "a", "a.img", "a.nii.gz.part"])
@pytest.mark.parametrize("content", [NIFTI, gzip.compress(NIFTI)])
def test_a_nifti_file_is_read_by_its_content_whatever_its_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(read_scan(tmp_path / name).voxels, VOXELS)


@pytest.mark.parametrize(
    ("content", "what", "advice"),
    [
        (b"", "it is empty", "download it again"),
        (LFS, "a Git LFS pointer", "git -C {folder} lfs pull"),
        (ANNEX, "a git-annex pointer", "git -C {folder} annex get scan.nii.gz"),
        (b"../../.git/annex/objects/x1/2x/MD5E-s1--4/MD5E-s1--4", "a git-annex pointer", "annex get scan.nii.gz"),
        (
            b"\n<!DOCTYPE HTML><html>Anmeldung f\xc3\xbcr Daten",
            "a web page",
            "download the scan again, perhaps after a login",
        ),
        (b"<!-- portal -->\n<html lang='en'>", "a web page", "download the scan again"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "an XML text", "download the scan again"),
        (b'\xef\xbb\xbf{"error": "not found"}', "a JSON text", "download the scan again"),
        (b"Not Found", "text that begins with “Not Found”", "download the scan again"),
        (bytes(128) + b"DICM" + bytes(400), "a DICOM file", "dcm2niix -z y {folder}"),
        (b"NRRD0004\ntype: short\n", "an NRRD file", "Rename it to scan.nrrd.*SimpleITK.*scan.nrrd {folder}/scan_conv"),
        (b"ObjectType = Image\nNDims = 3\n", "a MetaImage file", "Rename it to scan.mha.*ITK-SNAP"),
        (b"PK\x03\x04" + bytes(600), "a zip archive", "name the scan inside"),
        (bytes(257) + b"ustar" + bytes(600), "a tar archive", "name the scan inside"),
        (b"\x89PNG\r\n" + bytes(600), "a PNG picture", "Name the scan itself"),
        (bytes(range(256)) * 4, "no NIfTI header", "Convert the original data"),
        (NIFTI[:300], "it ends inside its header, at byte 300", "download it again"),
        (NIFTI[:344] + b"ni1\0", "one of the two files", "Rename it to scan.hdr.*nib-convert"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_each_is_told_by_what_it_is(tmp_path, content, what, advice, zipped):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(content) if zipped else content)
    sentence = _refused(path)
    assert what in sentence
    assert re.search(advice.format(folder=re.escape(str(tmp_path))), sentence), sentence


def test_a_link_without_its_file_says_how_to_get_it(tmp_path):
    kept, lost = tmp_path / "sub 1.nii.gz", tmp_path / "lost.nii.gz"
    kept.symlink_to("../.git/annex/objects/x1/2x/MD5E-s1--4.nii.gz/MD5E-s1--4.nii.gz")
    lost.symlink_to("nowhere.nii.gz")
    assert f"git -C {tmp_path} annex get 'sub 1.nii.gz'" in _refused(kept)
    with pytest.raises(ScanError, match=r"is a link to nowhere\.nii\.gz, which does not exist"):
        read_scan(lost)


def _advised(path):
    """Do what the sentence of a file says, and return the file that this makes."""
    sentence = _refused(path)
    if "Rename it to " in sentence:
        name = sentence.split("Rename it to ")[1].split(". ")[0]
        path.rename(path.with_name(name))
    before = set(path.parent.iterdir())
    command = sentence.rsplit(": ", 1)[1].replace("nib-convert", str(Path(sys.executable).with_name("nib-convert")))
    assert subprocess.run(command, shell=True).returncode == 0, command
    (made,) = set(path.parent.iterdir()) - before
    return made


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (nib.Nifti2Pair, "a.hdr"),
        (nib.Nifti2Pair, "a.img"),
    ],
)
def test_what_nibabel_can_convert_is_converted_as_advised(tmp_path, image, name):
    folder = tmp_path / "a patient's"
    folder.mkdir()
    nib.save(image(VOXELS, AFFINE), folder / name)
    scan = read_scan(_advised(folder / name))
    np.testing.assert_array_equal(scan.voxels, VOXELS)


@pytest.mark.parametrize(("stored", "name"), [("a.mgz", "a.nii.gz"), ("a.mgh", "b.nii"), ("a.hdr", "a.nii")])
def test_a_wrong_name_is_mended_as_advised(tmp_path, stored, name):
    image = nib.Nifti1Pair if stored == "a.hdr" else nib.MGHImage
    nib.save(image(VOXELS, AFFINE), tmp_path / stored)
    (tmp_path / stored).rename(tmp_path / name)
    np.testing.assert_array_equal(read_scan(_advised(tmp_path / name)).voxels, VOXELS)


@pytest.mark.parametrize("version", ["tiny.mnc", "small.mnc"])  # of netCDF, and of HDF5
def test_minc_is_converted_as_advised(tmp_path, version):
    pytest.importorskip("h5py")
    example = Path(nib.__file__).parent / "tests/data" / version
    if not example.is_file():
        pytest.skip("this nibabel comes without its examples")
    shutil.copy(example, tmp_path / "a.mnc")
    np.testing.assert_allclose(read_scan(_advised(tmp_path / "a.mnc")).voxels, nib.load(example).get_fdata(), rtol=1e-6)


@pytest.mark.parametrize(
    ("pack", "tool", "name"),
    [
        (bz2.compress, "bunzip2", "a.nii.bz2"),
        (lzma.compress, "xz", "a.nii.xz"),
        (bz2.compress, "bunzip2", "a.nii.gz"),
        (lambda content: gzip.compress(gzip.compress(content)), "gunzip", "a.nii.gz"),
        (lambda content: gzip.compress(gzip.compress(content)), "gunzip", "a.nii"),
        (bz2.compress, "bunzip2", "a.nii"),
        (lzma.compress, "xz", "a.NII"),
    ],
)
def test_what_is_packed_otherwise_is_unpacked_as_advised(tmp_path, pack, tool, name):
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not here")
    (tmp_path / name).write_bytes(pack(NIFTI))
    np.testing.assert_array_equal(read_scan(_advised(tmp_path / name)).voxels, VOXELS)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.dcm", "a DICOM file"),
        ("a.nrrd", "an NRRD file"),
        ("a.mhd", "a MetaImage file"),
        ("a.img.gz", "one of the two files"),
        ("a.BRIK", "one of two AFNI files"),
        ("a.rec", "one of two Philips files"),
    ],
)
def test_a_name_tells_what_the_content_does_not(tmp_path, name, what):
    (tmp_path / name).write_bytes(bytes(range(256)) * 3)
    sentence = _refused(tmp_path / name)
    assert what in sentence
    assert all(shlex.split(sentence.rsplit(": ", 1)[1]))


HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(600)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.weights.h5", HDF5),
        ("weights", HDF5),
        ("a.keras", b"PK\x03\x04" + bytes(600)),
        ("a.pt", b"PK\x03\x04" + bytes(600)),
        ("a.npz", b"PK\x03\x04" + bytes(600)),
        ("a.pth", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(600)),
        ("a.safetensors", b"H\0\0\0\0\0\0\0{" + bytes(600)),
        ("a.onnx", b"\x08\x0b\x12\x08planar3d" + bytes(600)),
    ],
)
def test_weights_given_as_a_scan_are_told_as_such(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    sentence = _refused(tmp_path / name)
    assert "such as a network's weights. Give weights as the model, and name the scan itself here." in sentence


@pytest.mark.parametrize("name", ["a.dcm", "a.mgz", "a.mnc", "a.nrrd", "a.weights.h5"])
def test_a_name_does_not_make_an_empty_file_or_a_text_what_it_cannot_be(tmp_path, name):
    (tmp_path / name).touch()
    assert "it is empty" in _refused(tmp_path / name)
    (tmp_path / name).write_text("404 not found")
    assert ("it is text that begins with “404 not" in _refused(tmp_path / name)) == (name != "a.nrrd")
