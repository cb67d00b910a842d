"""The image files of a folder: their names, and why some of them cannot be scans."""

import os
import re
import stat
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from planar3d.errors import DatasetError, ScanError, reading
from planar3d.scans.dicom import DERIVED, names_flair
from planar3d.scans.nifti import read_whole, unzipped
from planar3d.scans.readers import is_foreign, reader_of
from planar3d.wording import counted

_NIFTI = (".nii.gz", ".nii")
# Other image formats and compressions. The first of a pair of files is named.
_OTHERS = (
    ".nii.bz2 .nii.xz .nii.zst .nii.z .nii.zip .img .hdr .img.gz .hdr.gz .mgz .mgh .mgh.gz .mnc .mnc.gz .nrrd .nhdr "
    ".mha .mhd .mif .mif.gz .mih .head .brik .brik.gz .par .rec"
)
_SUFFIXES = (*_NIFTI, *_OTHERS.split())
SYSTEM = {"lost+found", "$RECYCLE.BIN", "System Volume Information", "__MACOSX"}
# Names of masks and maps: their endings, including those of the outputs of `predict`; those of LST, whose lesion maps
# are called after the scan (ples_lpa_mFLAIR), and of LST-AI; BIDS' names of parts of complex images but the magnitude.
_NO_SCAN = re.compile(
    r"[_-](mask\d*|brain_?mask|lesion_?mask|lesions?|wm[hl]|labels?|probability|prob_?map|probseg|d?seg|instances|roi)$"
    r"|^mask_|(^|_)b?ples_l[pg]a_|_filled_l[pg]a_|_seg-[^_]+$|(^|_)part-(phase|real|imag)(_|$)",
    re.IGNORECASE,
)
_SPACE = re.compile(r"(^|[_-])(to|in|on|space)[_-]?(3d)?flair", re.IGNORECASE)  # of another contrast, as T1_to_FLAIR


def suffix(path: Path) -> str:
    """The suffix of an image file in lower case, e.g. `.nii.gz`; empty for other files.

    Example:
        >>> suffix(Path("3DFLAIR.NII.GZ"))
        '.nii.gz'
    """
    return next((ending for ending in _SUFFIXES if path.name.lower().endswith(ending)), "")


def stem(path: Path) -> str:
    """The name of an image file without its suffix; the whole name of other files."""
    return path.name[: len(path.name) - len(suffix(path))]


def is_nifti(path: Path) -> bool:
    """Whether a file has a NIfTI name; it need not exist."""
    return suffix(path) in _NIFTI


def is_scan(path: Path) -> bool:
    """Whether a name is that of a magnitude image, not of a mask or map."""
    return bool(suffix(path)) and not _NO_SCAN.search(stem(path))


def is_flair(path: Path) -> bool:
    """Whether a name is that of a FLAIR image, not of a mask or map, nor of an image made of it or in its space."""
    if not is_scan(path) or DERIVED.search(stem(path)):
        return False
    name = _SPACE.sub("", stem(path))
    return "flair" in name.lower() or names_flair([name], 0, 0)  # unlike in headers, T1 may be a visit: P1_T1_FLAIR


def is_there(path: Path | None) -> bool:
    """Whether the file of an image, or of one volume of a series, exists."""
    return path is not None and all(map(os.path.isfile, files_of(path)))


def files_of(path: Path) -> list[Path]:
    """The files from which an image is read."""
    return reader_of(path).files(path)


def why_unusable(path: Path) -> str:
    """Why a file cannot be read, with advice, as far as a quick check shows; empty if no reason is found.

    The content of NIfTI files, and whether a file exists, are checked on reading.
    """
    if is_foreign(path):
        return ""
    (path,) = files_of(path)
    if not os.path.lexists(path) or (is_nifti(path) and os.path.isfile(path)):
        return ""
    try:
        with reading(path):
            read_whole(path)
    except ScanError as error:
        return str(error)
    return ""


def require_usable(folder: Path, problems: Mapping[Path, str]) -> None:
    """Raise a `DatasetError` that names all files with a problem and describes the first problem."""
    if unusable := {path: problem for path, problem in problems.items() if problem}:
        names = ", ".join(str(path.relative_to(folder) if path.is_relative_to(folder) else path) for path in unusable)
        raise DatasetError(
            f"{folder}: {counted(unusable, 'file')} cannot be used: {names}. {next(iter(unusable.values()))}"
        )


def by_stem(paths: Iterable[Path]) -> list[list[Path]]:
    """Group files of one folder that differ only in their suffix: .nii.gz first, then .nii, then the others."""
    alike: dict[Path, list[Path]] = defaultdict(list)
    for path in sorted(paths):
        alike[path.with_name(stem(path))].append(path)
    return [sorted(group, key=lambda path: (*_SUFFIXES, "").index(suffix(path))) for group in alike.values()]


def first_of(alike: Sequence[Path]) -> Path:
    """The first of the files of one name, see `by_stem`; a `DatasetError` if NIfTI files among them differ."""
    one, *others = [path for path in alike if is_nifti(path) and os.path.isfile(path)] or alike
    if other := next((path for path in others if is_nifti(path) and _content(path) != _content(one)), None):
        raise DatasetError(f"{one} and {other.name} have the same name, but not the same content; remove one.")
    return alike[0]


def _content(path: Path) -> bytes:
    """The bytes of a file, unzipped; as they are if they are damaged."""
    try:
        with path.open("rb") as file:
            return unzipped(file)[0].read()
    except (EOFError, OSError, zlib.error):
        return path.read_bytes()


def without_copies(paths: Iterable[Path]) -> list[Path]:
    """The NIfTI files, and the files of other formats without a NIfTI file of the same name."""
    return [path for alike in by_stem(paths) for path in ([p for p in alike if is_nifti(p)] or alike[:1])]


def without_pairs(problems: Mapping[Path, str]) -> dict[Path, str]:
    """The files of a folder by their problems; of two usable ones of the same name only the first, which fails."""
    found: dict[Path, str] = {}
    for alike in by_stem(problems):
        usable = [path for path in alike if len(alike) > 1 and not problems[path] and not why_unusable(path)]
        found |= {path: problems[path] for path in alike if path not in usable[1:]}
        if len(usable) > 1:
            found[usable[0]] = f"{usable[0]} and {usable[1].name} would have masks with the same name; remove one."
    return found


def files_within(folder: Path, leave: Collection[str] = ()) -> tuple[list[Path], dict[Path, str]]:
    """All files of a folder and its subfolders, but those to `leave`, and the folders that cannot be opened, with why.

    Hidden files are excluded. Linked folders are followed, but no folder is entered twice, so circular links end. A
    link whose target is missing counts as a file, or as a folder if its name has no suffix.
    """
    files, closed, entered = [], {}, set()
    waiting = [folder]
    linked: list[Path] = []  # entered last, so that files are found under their own folders' names
    while waiting or linked:
        place = waiting.pop() if waiting else linked.pop(0)
        if os.path.realpath(place) in entered:
            continue
        entered.add(os.path.realpath(place))
        try:
            inside = sorted(os.listdir(place))
        except OSError as error:
            closed[place] = why_closed(place, error)
            continue
        for path in (place / name for name in inside if not name.startswith(".") and name not in SYSTEM):
            target = _target_of_lost_folder(path)
            if not target and not _may_be_folder(path):
                files.append(path)
            elif path.name.lower() in leave:
                continue
            elif target:
                closed[path] = f"{path} is a link to {target}, which does not exist. Fix the link, or remove it."
            else:
                (linked if os.path.islink(path) else waiting).append(path)
    return sorted(files), closed


def why_closed(folder: str | Path, error: OSError) -> str:
    """A sentence on a folder that the system did not open."""
    return f"{folder} cannot be opened ({error.strerror}). Change its permissions, or remove it."


def _may_be_folder(path: Path) -> bool:
    """Whether a path is a folder, or cannot be reached, as one that a file server lost, and is named on opening."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:  # a link's target is another place
        return not isinstance(error, FileNotFoundError) and not os.path.islink(path)


def _target_of_lost_folder(path: Path) -> str:
    """The target of a link that may have led to a folder, e.g. a patient's; empty if it is not such a link."""
    if path.suffix or os.path.exists(path) or not os.path.islink(path):
        return ""
    target = os.readlink(path)
    return "" if "annex/objects" in target else target  # git-annex has only files
