"""Files in other formats than NIfTI, identified by their content or else their name, and what to do with them."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

LOOK = 512  # bytes at the start of a file that identify its format
PAIR_BYTES = 348  # of the header of Analyze 7.5 and of NIfTI-1
_SHOWN = 40  # characters of an unknown text
_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\r\f") | {127}  # bytes that do not occur in text


class _Format(NamedTuple):
    """A format: its description, advice, and the endings that the advice needs.

    In the advice, `{file}`, `{folder}`, `{name}`, `{nii}`, `{nifti}`, `{head}` and `{par}` stand for paths.
    """

    what: str
    advice: str
    endings: tuple[str, ...] = ()


_NIBABEL = "Convert it with: nib-convert {file} {nifti}"
_UNROUNDED = "--out-dtype float32"  # for formats that scale each slice separately
_ITK = (
    "Convert it with ITK-SNAP or, after pip install SimpleITK, with: "
    'python -c "import sys, SimpleITK as itk; itk.WriteImage(itk.ReadImage(sys.argv[1]), sys.argv[2])" {file} {nifti}'
)
_UNPACK = "Unpack it first: {tool} < {{file}} > {{nii}}"
_NOT_A_SCAN = "Name the scan itself; if a server sent this instead, download the scan again, perhaps after a login."
_INSIDE = "Unpack it first, and name the scan inside."

_PAIR = _Format("one of the two files (.hdr and .img) of a scan", _NIBABEL, (".hdr", ".img"))
_DICOM = _Format("a DICOM file", "Convert its series with: dcm2niix -z y {folder}", (".dcm", ".ima"))
_SEGMENTATION = _Format(
    "a DICOM Segmentation object",
    "Name a NIfTI mask: predict writes one, NAME_mask.nii.gz, beside its NAME_seg.dcm; segimage2itkimage of dcmqi "
    "converts others.",
)
_MGH = _Format("a FreeSurfer volume", _NIBABEL, (".mgh", ".mgz"))
_MINC = _Format("a MINC file", f"{_NIBABEL} {_UNROUNDED}", (".mnc",))
_NRRD = _Format("an NRRD file", _ITK, (".nrrd", ".nhdr"))
_META = _Format("a MetaImage file", _ITK, (".mha", ".mhd"))
_AFNI = _Format(
    "one of two AFNI files", f"Convert both with: nib-convert {{head}} {{nifti}} {_UNROUNDED}", (".head", ".brik")
)
_PHILIPS = _Format("one of two Philips files", "Convert both with: parrec2nii {par}", (".par", ".rec"))
_WEIGHTS = _Format(
    "a file of arrays, such as a network's weights",
    "Give weights as the model, and name the scan itself here.",
    (".h5", ".hdf5", ".keras", ".npz", ".onnx", ".safetensors", ".pth", ".pt", ".ckpt"),
)
_KNOWN = (_PAIR, _DICOM, _MGH, _MINC, _NRRD, _META, _AFNI, _PHILIPS, _WEIGHTS)
_FORMATS = {ending: each for each in _KNOWN for ending in each.endings}
_CONTAINED = (_MINC, _WEIGHTS)  # content is a zip archive, HDF5, or unmarked: the name decides
_BINARY = (_DICOM, _MGH, *_CONTAINED)  # no text, whatever a file's name says
ANNEX = _Format("a git-annex pointer whose content was not fetched", "Fetch it with: git -C {folder} annex get {name}")

# Offset and bytes that identify a format.
_MAGICS: tuple[tuple[int, bytes, _Format], ...] = (
    (166, b"1.2.840.10008.5.1.4.1.1.66.4", _SEGMENTATION),
    (128, b"DICM", _DICOM),
    (0, b"\x5c\x01\0\0", _PAIR),  # a header of 348 bytes, not of a single file as `read_whole` has checked
    (0, b"\0\0\x01\x5c", _PAIR),
    (0, b"\x1c\x02\0\0ni2", _PAIR),
    (0, b"\0\0\x02\x1cni2", _PAIR),
    (0, b"\0\0\0\x01\0\0", _MGH),
    (0, b"CDF\x01", _MINC),
    (0, b"CDF\x02", _MINC),
    (0, b"\x89HDF\r\n\x1a\n", _WEIGHTS),
    (0, b"NRRD0", _NRRD),
    (0, b"ObjectType", _META),
    (0, b"NDims", _META),
    (0, b"\x1f\x8b", _Format("gzipped twice", _UNPACK.format(tool="gunzip"))),
    (0, b"BZh", _Format("packed with bzip2", _UNPACK.format(tool="bunzip2"))),
    (0, b"\xfd7zXZ\0", _Format("packed with xz", _UNPACK.format(tool="xz -d"))),
    (0, b"\x28\xb5\x2f\xfd", _Format("packed with zstd", _UNPACK.format(tool="zstd -d"))),
    (0, b"\x1f\x9d", _Format("packed with compress", _UNPACK.format(tool="gunzip"))),
    (0, b"PK\x03\x04", _Format("a zip archive", _INSIDE)),
    (0, b"7z\xbc\xaf\x27\x1c", _Format("a 7z archive", _INSIDE)),
    (257, b"ustar", _Format("a tar archive", _INSIDE)),
    (0, b"\x89PNG", _Format("a PNG picture", _NOT_A_SCAN)),
    (0, b"\xff\xd8\xff", _Format("a JPEG picture", _NOT_A_SCAN)),
    (0, b"%PDF", _Format("a PDF document", _NOT_A_SCAN)),
)

# Beginnings of text, in lower case.
_TEXTS: dict[str, _Format] = {
    r"version https://(git-lfs|hawser)": _Format(
        "a Git LFS pointer whose content was not fetched", "Fetch it with: git -C {folder} lfs pull"
    ),
    r"[\w./-]*/annex/objects/": ANNEX,
    r"(<!--.*-->)?\s*<(!doctype )?html": _Format("a web page", _NOT_A_SCAN),
    r"<": _Format("an XML text", _NOT_A_SCAN),
    r"[{\[]": _Format("a JSON text", _NOT_A_SCAN),
}


def foreign_format(path: Path, start: bytes, zipped: bool = False) -> str:
    """Describe a file without a NIfTI header and what to do, as a sentence without its subject.

    `start` are its first bytes, at least `LOOK` unless the file is shorter, unpacked if it was `zipped`.
    """
    text = _text(start)
    found = next((each for place, magic, each in _MAGICS if start[place : place + len(magic)] == magic), None)
    if found is _PAIR and len(start) < PAIR_BYTES:
        return f"is not a NIfTI file: it ends inside its header, at byte {len(start)}. Copy or download it again."
    found = found or _text_format(text)
    named = _FORMATS.get(_ending(path))
    if start and not (text and named in _BINARY):
        found = named if named in _CONTAINED else found or named
    if found:
        return describe(found, path, zipped)
    if not start:
        return "is not a NIfTI file: it is empty. Copy or download it again."
    if text:
        line = text.splitlines()[0]
        shown = line[:_SHOWN] + "…" * (len(line) > _SHOWN)
        return f"is not a NIfTI file: it is text that begins with “{shown}”. {_NOT_A_SCAN}"
    return "is not a NIfTI file: it has no NIfTI header. Convert the original data to NIfTI, or copy the file again."


def stand_in(path: Path, start: bytes) -> str:
    """What came instead of a file's content, such as a pointer, and what to do; empty for other content."""
    found = _text_format(_text(start))
    if found is None:
        return ""
    folder, name = map(shlex.quote, (str(path.parent), path.name))
    again = "Download the file again, perhaps after a login."
    return f"{found.what}. {again if found.advice == _NOT_A_SCAN else found.advice.format(folder=folder, name=name)}"


def describe(found: _Format, path: Path, zipped: bool = False) -> str:
    """What a file is, and what to do with it, as a sentence without its subject."""
    stem = path.parent / re.sub(rf"(?i)({'|'.join((*_FORMATS, *_PACKED))})+$".replace(".", r"\."), "", path.name)
    renamed, first = path, ""
    if "{file}" in found.advice and found.endings and _ending(path) not in found.endings:
        renamed = Path(f"{stem}{'.mgz' if zipped and found is _MGH else found.endings[0]}")
        first = f"Rename it to {renamed.name}. "
    # The file itself must not be written to; to some systems, other capitals are the same name.
    nii, nifti = (
        f"{stem}{'_converted' * (path.name.lower() == f'{stem.name}{ending}'.lower())}{ending}"
        for ending in (".nii", ".nii.gz")
    )
    places = {"file": renamed, "folder": path.parent, "name": path.name, "nifti": nifti, "nii": nii}
    places |= {"head": f"{stem}.HEAD", "par": f"{stem}.PAR"}
    quoted = {name: shlex.quote(str(place)) for name, place in places.items()}
    return f"is not a NIfTI file: it is {found.what}. {first}{found.advice.format_map(quoted)}"


def _text(start: bytes) -> str:
    """The beginning of a text; empty for other content."""
    start = start[:LOOK].removeprefix(b"\xef\xbb\xbf").strip()
    return "" if _CONTROL & set(start) else start.decode("utf-8", "replace")


def _text_format(text: str) -> _Format | None:
    return next((each for beginning, each in _TEXTS.items() if re.match(beginning, text.lower())), None)


_PACKED = (".nii", ".gz", ".bz2", ".xz", ".zst", ".z")


def _ending(path: Path) -> str:
    """The last suffix of a name in lower case, ignoring .gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix
