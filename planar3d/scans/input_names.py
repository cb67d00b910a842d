"""Unique names of the inputs to segment, after their files or series and as many folders as needed."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from planar3d.errors import ScanError
from planar3d.scans.dicom import DicomSeries
from planar3d.scans.image_files import stem

if TYPE_CHECKING:
    from planar3d.scans.inputs import ScanInput


def series_name(series: DicomSeries) -> str:
    """The name of a DICOM series: its folder, number and description."""
    return f"{Path(os.path.abspath(series.images[0].path)).parent.name}_{series.label}"


def with_unique_names(found: Sequence["ScanInput"]) -> list["ScanInput"]:
    """Prefix names with as many folders as make them unique; names from a table are kept.

    Raises:
        ScanError: a scan is given twice, or names cannot be made unique.
    """
    # Links are not followed: in data sets kept by git-annex they lead to files named by their digests.
    places = [Path(os.path.abspath(item.path)) for item in found]
    counts = Counter(places)
    if twice := [item.path for item, place in zip(found, places, strict=True) if counts[place] > 1]:
        raise ScanError(f"{twice[0]} was given twice; name each scan once.")
    # Unreadable inputs have no outputs, so they do not need a unique name.
    usable = [item for item in found if not item.problem]
    called = [(item.name, _folders(item)) for item in usable]
    times = Counter(called)
    marked = [
        (name + (item.series.mark if item.series and folders and times[name, folders] > 1 else ""), folders)
        for item, (name, folders) in zip(usable, called, strict=True)
    ]
    names = dict(zip(usable, _told_apart(marked), strict=True))
    shared = Counter(names.values())
    if alike := [str(item.path) for item, name in names.items() if shared[name] > 1]:
        raise ScanError(f"{' and '.join(alike[:2])} would have masks with the same name; rename one.")
    return [replace(item, name=names.get(item, item.name)) for item in found]


def _folders(item: "ScanInput") -> tuple[str, ...]:
    """The folders that may prefix a scan's name; none if the name is not that of its file or series."""
    place = Path(os.path.abspath(item.path)).parent
    own = stem(item.path) if item.series is None else series_name(item.series)
    above = place if item.series is None else place.parent
    return above.parts[1:] if item.name == own else ()


def _told_apart(names: Sequence[tuple[str, tuple[str, ...]]]) -> list[str]:
    """Prefix names with as many folders as make them unique, as far as they have any.

    Args:
        names: each with the folders that may prefix it, the nearest last.
    """
    apart = [name for name, _ in names]
    for count in range(1, max((len(folders) for _, folders in names), default=0) + 1):
        if len(set(apart)) == len(apart):
            break
        apart = ["_".join([*folders[-count:], name]) for name, folders in names]
    return apart
