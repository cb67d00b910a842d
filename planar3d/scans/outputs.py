"""The unique names of inputs, from their files or series and folders, and the output files of each input."""

import errno
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planar3d.errors import ScanError
from planar3d.scans.dicom import DicomSeries
from planar3d.scans.image_files import stem
from planar3d.wording import folded

if TYPE_CHECKING:
    from planar3d.scans.inputs import ScanInput

_REFUSED = errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG  # how file systems refuse a name, as a:b on exFAT
_ALSO_REFUSED = errno.EIO, errno.ENOENT  # by some drivers in FUSE, for names with a character that Windows forbids
RENAME = "Rename the scan, or name it in a table with the columns scan and name."


def is_refused(error: OSError, path: Path) -> bool:
    """Whether the file system refuses the name of a file with this error."""
    is_forbidden = re.search(r'[\\:*?"<>|]', path.name) is not None
    return error.errno in _REFUSED or (is_forbidden and error.errno in _ALSO_REFUSED)


def named(plain: str, bids: str = "") -> Any:
    """A file with the pattern of its name, and that in a BIDS data set of derivatives if it is another."""
    return field(metadata={"plain": plain, "bids": bids or plain})


@dataclass(frozen=True)
class Outputs:
    """The files of one scan."""

    record: Path = named("{beside}.json", bids="{masks}.json")  # JSON; in a BIDS data set the sidecar of the mask
    mask: Path = named("{masks}.nii.gz")  # on the scan's own grid
    probability: Path = named("{beside}_probability.nii.gz", bids="{beside}_probseg.nii.gz")  # of lesion, on that grid
    lesions: Path = named("{beside}_lesions.csv", bids="{beside}_lesions.tsv")  # a table with one line per lesion
    overlay: Path = named("{figures}_overlay.png")  # a picture
    report: Path = named("{figures}_report.html")  # a page
    dicom_seg: Path = named("{beside}_seg.dcm")  # the lesions as a DICOM Segmentation object
    dicom_sr: Path = named("{beside}_sr.dcm")  # count and volumes as a DICOM structured report
    label_tables: Path = named("{masks}_itksnap.txt")  # names and colours of its labels for ITK-SNAP
    fsleyes: Path = named("{masks}_fsleyes.lut")  # the same for FSLeyes
    freeview: Path = named("{masks}_freeview.txt")  # and for FreeView
    same_format: Path = named("{masks}{own}")  # the mask in the scan's own format; itself where that is NIfTI or DICOM
    # The number of the lesion that each voxel is of, on the scan's own grid.
    instances: Path = named("{beside}_instances.nii.gz", bids="{entities}_seg-lesions_dseg.nii.gz")

    @classmethod
    def within(cls, folder: Path, kind: str, **parts: object) -> "Outputs":
        """The places in a folder by the `plain` or `bids` patterns, with these parts."""
        return cls(**{each.name: folder / each.metadata[kind].format(**parts) for each in fields(cls)})

    def moved(self, folder: Path, to: Path) -> "Outputs":
        """The same places in the folder `to` as in `folder`."""
        return Outputs(**{name: to / path.relative_to(folder) for name, path in vars(self).items()})


def plain_names(name: str, out: Path, own: str = ".nii.gz") -> Outputs:
    """The outputs of a scan of that name in the folder `out`; `own` is the ending of a mask in its format."""
    return Outputs.within(out, "plain", beside=name, masks=f"{name}_mask", figures=name, own=own)


def series_name(series: DicomSeries) -> str:
    """The name of a DICOM series: its folder, number and description."""
    return f"{Path(os.path.abspath(series.images[0].path)).parent.name}_{series.label}"


def with_unique_names(found: Sequence["ScanInput"]) -> list["ScanInput"]:
    """Prefix names, but those from a table, with as many folders as make them unique; a `ScanError` if none do."""
    # Links are not followed: in data sets kept by git-annex they lead to files named by their digests.
    places = [Path(os.path.abspath(item.path)) for item in found]
    counts = Counter(places)
    if twice := [item.path for item, place in zip(found, places, strict=True) if counts[place] > 1]:
        raise ScanError(f"{twice[0]} was given twice; name each scan once.")
    for item in found:
        for file in _further_files(item):
            if Path(os.path.abspath(file)) in counts:
                raise ScanError(f"{file} is a file of the scan {item.path}; name only one of them.")
    # Unreadable inputs have no outputs, so they do not need a unique name.
    usable = [item for item in found if not item.problem]
    called = [(item.name, _folders(item)) for item in usable]
    times = Counter(called)
    marked = [
        (name + (item.series.mark if item.series and folders and times[name, folders] > 1 else ""), folders)
        for item, (name, folders) in zip(usable, called, strict=True)
    ]
    names = dict(zip(usable, _told_apart(marked), strict=True))
    shared = Counter(map(folded, names.values()))
    if alike := [str(item.path) for item, name in names.items() if shared[folded(name)] > 1]:
        raise ScanError(f"{' and '.join(alike[:2])} would have masks with the same name; rename one.")
    return [replace(item, name=names.get(item, item.name)) for item in found]


def _further_files(item: "ScanInput") -> list[Path]:
    """The other files of a scan that has several of one name, such as .hdr and .img."""
    if item.series or item.images or not os.path.isfile(item.path):
        return []
    try:
        return [file for file in item.files if file != item.path]
    except ScanError:  # of a header that names no file, which is explained on reading
        return []


def _folders(item: "ScanInput") -> tuple[str, ...]:
    """The folders that may prefix a scan's name; none if the name is not that of its file or series."""
    place = Path(os.path.abspath(item.path)).parent
    own = stem(item.path) if item.series is None else series_name(item.series)
    above = place if item.series is None else place.parent
    return above.parts[1:] if item.name == own else ()


def _told_apart(names: Sequence[tuple[str, tuple[str, ...]]]) -> list[str]:
    """Prefix names with as many folders as make them unique on every system; the nearest is last."""
    apart = [name for name, _ in names]
    for count in range(1, max((len(folders) for _, folders in names), default=0) + 1):
        if len(set(map(folded, apart))) == len(apart):
            break
        apart = ["_".join([*folders[-count:], name]) for name, folders in names]
    return apart
