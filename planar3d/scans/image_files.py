"""Image files of a folder: which there are, what they are called, and why some of them cannot be scans."""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from planar3d.errors import DatasetError, ScanError
from planar3d.scans.nifti import read_whole
from planar3d.scans.stored import is_foreign, reader_of
from planar3d.wording import counted

_NIFTI = (".nii.gz", ".nii")
# Other formats that scans come in, and other ways of packing. Of a pair of files the first is named.
_OTHERS = (
    *(".nii.bz2", ".nii.xz", ".nii.zst", ".nii.z", ".nii.zip", ".img", ".hdr", ".img.gz", ".hdr.gz", ".mgz", ".mgh"),
    *(".mnc", ".mnc.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".mif", ".mif.gz", ".mih", ".head", ".brik", ".brik.gz"),
    *(".par", ".rec"),
)
_SUFFIXES = (*_NIFTI, *_OTHERS)
_SYSTEM = {"lost+found", "$RECYCLE.BIN", "System Volume Information", "__MACOSX"}
# How the names of masks and maps end, those that `predict` writes among them.
_NO_SCAN = re.compile(r"_(mask|probability|probseg|d?seg|instances|roi)$", re.IGNORECASE)


def suffix(path: Path) -> str:
    """The suffix of an image file in small letters, whatever those of its name are: `.nii.gz`; empty for other files.

    Example:
        >>> suffix(Path("3DFLAIR.NII.GZ"))
        '.nii.gz'
    """
    return next((ending for ending in _SUFFIXES if path.name.lower().endswith(ending)), "")


def stem(path: Path) -> str:
    """The name of an image file without its suffix; the whole name of other files."""
    return path.name[: len(path.name) - len(suffix(path))]


def is_nifti(path: Path) -> bool:
    """Whether a file has a NIfTI name; it need not be there."""
    return suffix(path) in _NIFTI


def is_flair(path: Path) -> bool:
    """Whether the name says that a file is an image of FLAIR contrast, and not that it is a mask or map."""
    return bool(suffix(path)) and "flair" in path.name.lower() and not _NO_SCAN.search(stem(path))


def is_there(path: Path | None) -> bool:
    """Whether an image, or one volume of a series, is there to be read."""
    return path is not None and all(map(os.path.isfile, files_of(path)))


def files_of(path: Path) -> list[Path]:
    """The files that an image is read from."""
    return reader_of(path).files(path)


def why_unusable(path: Path) -> str:
    """Why a file cannot be read, with advice, as far as that is seen at once; empty if it may be read.

    What the voxels of a NIfTI file hold, and whether there is a file of that name, is left to its reading.
    """
    if is_foreign(path):
        return ""
    (path,) = files_of(path)
    if not os.path.lexists(path) or (is_nifti(path) and os.path.isfile(path)):
        return ""
    try:
        read_whole(path)
    except ScanError as error:
        return str(error)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}). Change its permissions, or remove it."
    return ""


def require_usable(folder: Path, problems: Mapping[Path, str]) -> None:
    """Raise a `DatasetError` that names all files with a problem, and says what the first one is."""
    unusable = {path: problem for path, problem in problems.items() if problem}
    if unusable:
        names = ", ".join(str(path.relative_to(folder) if path.is_relative_to(folder) else path) for path in unusable)
        raise DatasetError(
            f"{folder}: {counted(unusable, 'file')} cannot be used: {names}. {next(iter(unusable.values()))}"
        )


def by_stem(paths: Iterable[Path]) -> list[list[Path]]:
    """Put files of one folder together that differ in their suffix alone: .nii.gz first, then .nii, then the others."""
    alike: dict[Path, list[Path]] = defaultdict(list)
    for path in sorted(paths):
        alike[path.with_name(stem(path))].append(path)
    return [sorted(group, key=lambda path: (*_SUFFIXES, "").index(suffix(path))) for group in alike.values()]


def without_copies(paths: Iterable[Path]) -> list[Path]:
    """The NIfTI files, and those of other formats that were not converted: no NIfTI file of the same name is beside."""
    return [path for alike in by_stem(paths) for path in ([p for p in alike if is_nifti(p)] or alike[:1])]


def files_within(folder: Path, leave: Collection[str] = ()) -> tuple[list[Path], dict[Path, str]]:
    """All files of a folder and its subfolders, and those of the folders that cannot be opened, with the reason.

    Hidden files are left out. Linked folders are followed, but none is entered twice, so a link that leads back ends
    there. A link whose target is missing counts as a file.

    Args:
        leave: names of subfolders that are not entered.
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
            closed[place] = f"{place} cannot be opened ({error.strerror}). Change its permissions, or remove it."
            continue
        for path in (place / name for name in inside if not name.startswith(".") and name not in _SYSTEM):
            if not os.path.isdir(path):
                files.append(path)
            elif path.name.lower() not in leave:
                (linked if os.path.islink(path) else waiting).append(path)
    return sorted(files), closed
