"""Scans of other formats than NIfTI lie where they lay, are refused as NIfTI files are, and masks go back to them."""

import gzip
import os
import re
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from planar3d.errors import ScanError
from planar3d.scans.foreign_images import files_of_mask
from planar3d.scans.image_files import suffix
from planar3d.scans.inputs import find_inputs, outputs_of
from planar3d.scans.itk_images import is_itk_image, itk_files
from planar3d.scans.readers import is_foreign, write_like
from planar3d.scans.volume import read_mask, read_scan

SimpleITK = pytest.importorskip("SimpleITK")
AFFINE = np.eye(4)
AFFINE[:3] = np.c_[
    Rotation.from_euler("xyz", (12, -7, 20), degrees=True).as_matrix() @ np.diag([-0.9, 0.9, 3]), (50, -60, 7)
]
VOXELS = np.random.default_rng(0).integers(-200, 3000, (12, 14, 9)).astype(np.int16)
NAMES = [
    "a.mgz",
    "A.MGZ",
    "a.mgh",
    "a.mgh.gz",
    "a.hdr",
    "a.img",
    "A.IMG",
    "a.img.gz",
    "a.mha",
    "a.mhd",
    "a.nrrd",
    "a.nhdr",
]
FREESURFER = ("a.mgz", "a.mgh")


def _write(path, voxels=VOXELS, affine=AFFINE):
    """As nibabel and ITK write it, by its name; both files of a scan that has two."""
    if path.suffix in (".mha", ".mhd", ".nrrd", ".nhdr"):
        nib.save(nib.Nifti1Image(voxels, affine), path.parent / "source.nii")
        image = SimpleITK.GetImageFromArray(voxels.T, isVector=False)  # of a NIfTI file ITK makes NaN 0
        image.CopyInformation(SimpleITK.ReadImage(str(path.parent / "source.nii")))
        SimpleITK.WriteImage(image, str(path))
        (path.parent / "source.nii").unlink()
    elif path.name.endswith(".mgh.gz"):
        path.write_bytes(gzip.compress(nib.MGHImage(voxels, affine).to_bytes()))
    else:
        (nib.MGHImage if path.suffix.lower() in (".mgz", ".mgh") else nib.Nifti1Pair)(voxels, affine).to_filename(path)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_voxels_and_places_are_those_written(tmp_path, name):
    path = _write(tmp_path / name)
    scan = read_scan(path)
    assert is_foreign(path) and suffix(path) and scan.voxels.dtype == np.float32
    np.testing.assert_array_equal(scan.voxels, VOXELS)
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_goes_back_to_the_format_of_its_scan(tmp_path, name, monkeypatch):
    replace, moved = os.replace, []
    monkeypatch.setattr(os, "replace", lambda source, target: (moved.append(target), replace(source, target)))
    scan = read_scan(_write(tmp_path / name))
    (item,) = find_inputs([scan.path])
    assert all(path.is_file() for path in item.files) and len(item.files) == len(list(tmp_path.iterdir()))
    place = outputs_of(item, tmp_path / "out").same_format
    place.parent.mkdir()
    mask = (scan.voxels > 1500).astype(np.uint8)
    write_like(scan.path, mask, scan.affine, place)
    assert moved[-1] == place  # so that no mask is taken for whole before it is
    assert place.name == f"{name[0]}_mask{name[1:].lower()}" and is_foreign(place)
    assert {*place.parent.iterdir()} == {*files_of_mask(place)}
    np.testing.assert_array_equal(read_mask(place, scan).voxels, mask)
    if is_itk_image(place):  # whose affine is that of the scan also with wrong lengths of both
        assert SimpleITK.ReadImage(str(place)).GetSpacing() == pytest.approx(scan.spacing)
    assert not list(place.parent.glob(".*"))


@pytest.mark.parametrize("name", ["a.mgz", "a.mgh", "a.img", "a.img.gz", "a.mha", "a.nrrd", "a.mhd"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_file_that_breaks_off_is_refused(tmp_path, name, kept):
    path = _write(tmp_path / name)
    broken = path.with_suffix(".raw") if name == "a.mhd" else path
    broken.write_bytes(broken.read_bytes()[: int(kept * broken.stat().st_size)])
    # Of .mgz files, nibabel 5.3 lets the error of gzip through, which has a sentence of its own.
    with pytest.raises(ScanError, match=r"damaged (or cannot be read|gzip file) .*Copy .*it again"):
        read_scan(path)


def test_a_flipped_bit_of_a_gzipped_volume_is_noticed(tmp_path):
    path = _write(tmp_path / "a.mgz")
    content = bytearray(gzip.decompress(path.read_bytes()))
    packed = bytearray(gzip.compress(bytes(content), compresslevel=0))
    packed[len(packed) // 2] ^= 4
    path.write_bytes(packed)
    with pytest.raises(ScanError, match="damaged"):
        read_scan(path)


@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd", "a.nhdr"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_flipped_bit_of_packed_voxels_is_noticed_also_by_itk(tmp_path, name, order):
    path = _write(tmp_path / name)
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(path), useCompression=True)
    file = itk_files(path)[-1]
    if order == ">" and file == path:
        content = path.read_bytes()
        for little, big in ((b"MSB = False", b"MSB = True"), (b"endian: little", b"endian: big")):
            content = content.replace(little, big)
        path.write_bytes(content)
    expected, whole = read_scan(path).voxels, file.read_bytes()
    for place in np.linspace(len(whole) - 1100, len(whole) - 1, 12).astype(int):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            np.testing.assert_array_equal(read_scan(path).voxels, expected)  # some bits have no meaning
        except ScanError as error:
            assert f"{path} is damaged" in str(error)


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_packed_voxels_of_another_number_are_refused_before_itk_has_memory_for_them(tmp_path, name):
    path = _write(tmp_path / name)
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(path), useCompression=True)
    path.write_bytes(path.read_bytes().replace(b"12 14 9", b"512 512 512"))
    with pytest.raises(ScanError, match="do not have the 268,435,456 bytes"):
        read_scan(path)


@pytest.mark.parametrize(
    ("name", "before", "after", "sentence"),
    [
        ("a.mha", b"NDims = 3", b"NDims = -1", "number of dimensions"),
        ("a.mha", b"NDims = 3", b" NDims: 163", "number of dimensions"),
        ("a.mha", b"TransformMatrix = ", b"TransformMatrix = 1e308 ", "beyond 1e\\+09 mm"),
        ("a.nrrd", b"space directions: (", b"space directions: (-1e308,", "beyond 1e\\+09 mm"),
        ("a.nrrd", b"dimension: 3", b"dimension: " + b"A" * 1100, "a line of more than 500 bytes"),
        ("a.nrrd", b"space origin: ", b"space origin: " + b"A" * 70_000, "a line of more than 500 bytes"),
        ("a.mhd", b"= a.raw", b"= %s%s%n", "names %s%s%n as its data file"),
    ],
)
def test_a_header_that_would_end_or_stop_itk_is_refused(tmp_path, name, before, after, sentence):
    path = _write(tmp_path / name)
    assert before in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(before, after, 1))
    with pytest.raises(ScanError, match=sentence):
        read_scan(path)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.mha", b" ElementDataFile = ../b.raw\nElementDataFile"),
        ("a.mha", b"ElementDataFile: ../b.raw\nElementDataFile"),
        ("a.nrrd", b"#\rdata file: ../b.raw\nencoding"),
    ],
)
def test_voxels_are_not_read_from_a_file_that_only_itk_sees_named(tmp_path, name, line):
    (tmp_path / "a").mkdir()
    path = _write(tmp_path / "a" / name)
    (tmp_path / "b.raw").write_bytes(VOXELS.tobytes() * 2)
    word = line.rpartition(b"\n")[2]
    path.write_bytes(path.read_bytes().replace(word, line, 1))
    with pytest.raises(ScanError, match="a single file in the same folder is needed"):
        read_scan(path)


@pytest.mark.parametrize(("name", "kept"), [("a.mgh", 14), ("a.hdr", 346)])
def test_half_a_header_is_refused(tmp_path, name, kept):
    path = _write(tmp_path / name)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ScanError):
        read_scan(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "place", "kind"), [("a.mgh", 42, ">9f"), ("a.hdr", 280, "<12f")])
@pytest.mark.parametrize("value", [0, np.nan])
def test_axes_that_span_no_space_are_told_as_of_nifti_files(tmp_path, name, place, kind, value):
    path = _write(tmp_path / name)
    content = bytearray(path.read_bytes())
    struct.pack_into(kind, content, place, *[value] * int(kind[1:-1]))
    path.write_bytes(content)
    is_none = name == "a.hdr" and value == 0  # an empty sform
    told = "does not define its orientation" if is_none else rf" voxels of {value:g} × {value:g} × {value:g} mm"
    with pytest.raises(ScanError, match=told):
        read_scan(path)


def test_no_memory_is_taken_for_a_place_of_voxels_beyond_the_file(tmp_path):
    path = _write(tmp_path / "a.hdr")
    path.write_bytes(path.read_bytes()[:108] + struct.pack("<f", 1e18) + path.read_bytes()[112:])
    with pytest.raises(ScanError, match=r"has the vox_offset 9.99999984e\+17; 0 to"):
        read_scan(path)


def test_a_path_that_is_no_text_is_refused_before_itk_ends_the_process(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("names of files are text here")
    _write(tmp_path / "a.mha").rename(folder / "a.mha")
    with pytest.raises(ScanError, match=r"udcff/a\.mha is not text in utf-8, .* so ITK cannot open it\. Rename it or"):
        read_scan(folder / "a.mha")
    with pytest.raises(ScanError, match="ITK cannot open it"):
        write_like(folder / "a.mha", VOXELS, AFFINE, folder / "b.mha")
    assert os.listdir(folder) == ["a.mha"]


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_with_the_name_of_a_scan_is_refused_without_waiting_for_it(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ScanError):
        read_scan(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mgz", "a.img", "a.mha", "a.nrrd"])
@pytest.mark.parametrize(
    ("voxels", "sentence"),
    [
        (np.where(VOXELS > 2900, np.nan, VOXELS).astype(np.float32), "NaN or infinity in"),
        (np.full(VOXELS.shape, 7, np.int16), "has the value 7 everywhere"),
        (np.stack([VOXELS, VOXELS], axis=3), "4-D|size .* is needed"),
    ],
    ids=["not finite", "constant", "series"],
)
def test_what_a_nifti_file_is_refused_for_others_are_too(tmp_path, name, voxels, sentence):
    with pytest.raises(ScanError, match=sentence):
        read_scan(_write(tmp_path / name, voxels))


def test_files_that_do_not_say_how_they_lie_need_to_be_told(tmp_path):
    nib.AnalyzeImage(VOXELS, np.diag([-0.9, 0.9, 3, 1])).to_filename(tmp_path / "analyze.img")
    mgh = _write(tmp_path / "a.mgh")
    content = bytearray(mgh.read_bytes())
    content[28:30] = b"\0\0"  # goodRASFlag
    mgh.write_bytes(content)
    for name, geometry, instead in (
        ("a.mha", rb"TransformMatrix.*\n", b""),
        ("a.nrrd", rb"space:.*\nsizes: (.*)\nspace directions:.*\n", rb"sizes: \1\nspacings: 0.9 0.9 3\n"),
        ("a.nrrd", rb"space origin:.*\n", b""),
    ):
        path = tmp_path / name if (tmp_path / name).exists() else _write(tmp_path / name)
        path.write_bytes(re.sub(geometry, instead, path.read_bytes()))
    for name in ("analyze.img", "a.mgh", "a.mha", "a.nrrd"):
        with pytest.raises(ScanError, match="does not define its orientation"):
            read_scan(tmp_path / name)
        scan = read_scan(tmp_path / name, assume_affine=True)
        np.testing.assert_array_equal(scan.voxels, VOXELS)
        spacing = (1, 1, 1) if name == "a.mgh" else (0.9, 0.9, 3)  # FreeSurfer reads none then
        assert scan.spacing == pytest.approx(spacing) and nib.aff2axcodes(scan.affine) == ("L", "A", "S")


@pytest.mark.parametrize("space", ["space dimension: 3", "space: scanner-xyz", "space: 3D-right-handed"])
def test_an_nrrd_file_whose_space_has_no_anatomical_name_is_not_taken_for_left_and_posterior(tmp_path, space):
    path = _write(tmp_path / "a.nrrd")
    path.write_bytes(re.sub(rb"\nspace: .*", f"\n{space}".encode(), path.read_bytes()))
    with pytest.raises(ScanError, match="does not define its orientation"):
        read_scan(path)


def test_one_of_two_files_alone_is_told_what_it_is_and_voxels_elsewhere_are_not_looked_for(tmp_path):
    path = _write(tmp_path / "a.hdr")
    path.with_suffix(".img").unlink()
    with pytest.raises(ScanError, match="one of the two files"):
        read_scan(path)
    header = _write(tmp_path / "a.nhdr")
    header.write_bytes(header.read_bytes().replace(b"data file: ", b"data file: ../"))
    with pytest.raises(ScanError, match=r"names \.\./a\.raw .*in the same folder is needed"):
        read_scan(header)
    header.write_bytes(re.sub(rb"data file: .*\n", b"", header.read_bytes()))
    with pytest.raises(ScanError, match="names no data file; a single file in the same folder is needed"):
        read_scan(header)
    huge = _write(tmp_path / "a.mgh")
    huge.write_bytes(huge.read_bytes()[:4] + b"\x00\x01\x00\x00" * 3 + huge.read_bytes()[16:])
    with pytest.raises(ScanError, match=r"has the shape \(65536, 65536, 65536\)"):
        read_scan(huge)


def test_files_much_longer_than_their_voxels_are_refused(tmp_path):
    for path, voxels in ((_write(tmp_path / "a.mgh"), "a.mgh"), (_write(tmp_path / "a.hdr"), "a.img")):
        with (tmp_path / voxels).open("ab") as file:
            file.write(bytes(2**20 + 1))
        with pytest.raises(ScanError, match="has more bytes than"):
            read_scan(path)


def test_headers_that_no_scan_has_are_refused(tmp_path):
    unknown = _write(tmp_path / "a.mgh")
    unknown.write_bytes(unknown.read_bytes()[:20] + b"\0\0\0\x63" + unknown.read_bytes()[24:])  # its type
    with pytest.raises(ScanError, match="is damaged or cannot be read"):
        read_scan(unknown)
    image = _write(tmp_path / "a.mha")
    content = image.read_bytes()
    for sizes in (b"4194304 4194304 4194304", b"0 14 9"):
        image.write_bytes(re.sub(rb"DimSize = .*", b"DimSize = " + sizes, content))
        with pytest.raises(ScanError, match=r"has the size|is damaged or cannot be read"):
            read_scan(image)


def _with_fields(path, order="<", **fields):
    """A pair written with fields of its header changed, whatever they say."""
    image = nib.Nifti1Pair(VOXELS, AFFINE, nib.nifti1.Nifti1PairHeader(endianness=order))
    image.set_qform(AFFINE, 1)
    image.to_filename(path)
    header = image.header
    for field, value in fields.items():
        header[field] = value
    path.with_suffix(".hdr").write_bytes(header.binaryblock + bytes(4))
    return path


NO_SFORM = {f"srow_{axis}": [0] * 4 for axis in "xyz"}
SERIES = {"dim": [4, *VOXELS.shape, 0, 1, 1, 1]}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    "fields", [NO_SFORM, {"srow_y": [np.nan] * 4}, SERIES, {"sform_code": 9}, {"pixdim": [-1] * 8}, {"quatern_b": 2}]
)
def test_the_header_of_a_pair_is_repaired_like_that_of_a_nifti_file(tmp_path, order, fields, capfd):
    scan = read_scan(_with_fields(tmp_path / "a.img", order, **fields))
    np.testing.assert_array_equal(scan.voxels, VOXELS)
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-4)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"dim": [9] * 8}, "declares 9 dimensions"),
        ({"dim": [3, -3, 14, 9, 1, 1, 1, 1]}, "declares the shape .-3, 14, 9., which has no voxels"),
        ({"datatype": 999}, "has voxels of type 999"),
        ({"vox_offset": np.nan}, "has the vox_offset nan"),
        ({"vox_offset": -16}, "has the vox_offset -16; 0 to"),
        ({"vox_offset": 352}, r"cannot be read \(it ends after 6,048 of 6,400 bytes\)"),
        ({"sform_code": 0, "quatern_b": 2}, "its qform has the quaternion"),
    ],
)
def test_the_header_of_a_pair_is_refused_in_the_words_for_a_nifti_file(tmp_path, fields, sentence):
    with pytest.raises(ScanError, match=sentence):
        read_scan(_with_fields(tmp_path / "a.hdr", **fields))
    if "dim" in fields:  # of Analyze 7.5 too
        path = tmp_path / "a.hdr"
        path.write_bytes(path.read_bytes()[:344] + bytes(4))
        with pytest.raises(ScanError, match=sentence):
            read_scan(path)
