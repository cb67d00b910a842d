"""Layouts of data sets, and the search for cases by them. A new layout is a file with its class, and one line here."""

import os
import warnings
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import chain
from pathlib import Path

from planar3d.errors import DatasetError, Planar3DWarning, path_of
from planar3d.scans.bids import NOT_RAW
from planar3d.scans.case import Case, Dataset, Layout
from planar3d.scans.image_files import files_within, is_there
from planar3d.scans.layouts.bids import Bids
from planar3d.scans.layouts.brats import Brats
from planar3d.scans.layouts.camus import Camus
from planar3d.scans.layouts.chaos import Chaos
from planar3d.scans.layouts.msseg import FIRST_DISTRIBUTION, SHANOIR
from planar3d.scans.layouts.nnunet import Decathlon, NnUNet
from planar3d.scans.layouts.table import TableOfCases
from planar3d.wording import counted, folded, is_or_are, listed

# In the order in which they are tried.
LAYOUTS: tuple[Layout, ...] = (
    FIRST_DISTRIBUTION,
    SHANOIR,
    Bids(),
    NnUNet(),
    Decathlon(),
    Brats(),
    Chaos(),
    Camus(),
    TableOfCases(),
)
_EXPECTED = f"Expected: {LAYOUTS[-1].expected}, or one of: {'; '.join(one.expected for one in LAYOUTS[:-1])}."


def find_cases(folder: str | Path) -> Dataset:
    """Find all cases with their label maps, in a folder with any of the known layouts.

    Layouts: MSSEG 2016 as first distributed and of the Shanoir portal, BIDS (raw, with lesion masks in a derivatives
    folder and sites in `participants.tsv`), raw folders of nnU-Net, tasks of the Medical Segmentation Decathlon, BraTS
    2017 to 2024, CHAOS, CAMUS, and a CSV table with the columns scan, mask and group, or `image:<name>` for each image
    and labels. NIfTI files may be gzipped or not, and file names are case-insensitive.

    Args:
        folder: the data set's folder, or the CSV file.

    Returns:
        A data set with at least one case. A warning names label maps without a scan, which are left out.

    Raises:
        DatasetError: the folder is missing or empty, its layout is unknown, or the first image of a case or its mask is
            missing or cannot be read; for other images see `Dataset.require`.
    """
    folder = path_of(folder, "A data set", DatasetError)
    if not os.path.exists(folder):
        raise DatasetError(f"{folder} does not exist. {_EXPECTED}")
    layout, found = find_layout(folder, labelled=True)
    if layout is None:
        without = "no rows" if os.path.isfile(folder) else "no known layout"
        is_empty = os.path.isdir(folder) and not any(folder.iterdir())
        raise DatasetError(f"{folder} {'is empty' if is_empty else f'has {without}'}. {_EXPECTED}")
    cases = sorted((case for case in found if case.images), key=lambda case: case.id)
    if alone := [case.label_map.relative_to(folder) for case in found if not case.images]:
        warnings.warn(
            f"{folder}: {counted(alone, 'label map')} without a scan {is_or_are(alone)} left out: {listed(alone)}. "
            f"If their scans exist, rename them. Expected: {layout.expected}.",
            Planar3DWarning,
            stacklevel=2,
        )
    dataset = Dataset(tuple(cases), layout.name, folder)
    first = [(case.id, next(iter(case.images.values()))) for case in cases]
    dataset.require_files({"scan": first, "mask": [(case.id, case.label_map) for case in cases]})
    # Scans of one patient may share their other images, such as a T1; no case has one file twice.
    others = defaultdict[str, Counter[str]](Counter)
    for case in cases:
        others[case.patient] |= Counter(map(os.path.abspath, [*case.images.values()][1:]))
    paths = [*(os.path.abspath(path) for _, path in first), *chain.from_iterable(c.elements() for c in others.values())]
    # A folder of masks in CHAOS belongs to both phases of its series.
    masks = [os.path.abspath(case.label_map) for case in cases if not os.path.isdir(case.label_map)]
    ids = [case.id for case in cases]  # other capitals or accents are the same name to some file systems
    for values, name, called in ((ids, "id", folded), (paths, "scan", str), (masks, "mask", str)):
        times = Counter(map(called, values))
        if twice := sorted(value for value in values if times[called(value)] > 1):
            where = ", ".join(str(path) for case, path in first if called(case) == called(twice[0]))
            raise DatasetError(
                f"{folder} has the {name} {twice[0]} more than once{where and f' ({where})'}; each scan needs its own."
            )
    return replace(dataset, labels=layout.label_set(folder, cases), split=layout.split(folder, cases))


def find_layout(folder: Path, labelled: bool) -> tuple[Layout | None, list[Case]]:
    """The known layout of a folder or table, None if it has none, and its cases in the order of their files or rows.

    Files are not checked for existence, but without `labelled` a missing label map is None. A `DatasetError` names a
    folder that cannot be opened, or a layout that cannot be understood.
    """
    files, closed = files_within(folder, leave=NOT_RAW) if os.path.isdir(folder) else ([], {})
    if closed:
        raise DatasetError(next(iter(closed.values())))
    for layout in LAYOUTS:
        cases = layout.find(folder, files, labelled)
        if not labelled:
            cases = [replace(c, labels=c.labels if is_there(c.labels) else None) for c in cases if c.images]
        if any(case.images for case in cases):
            return layout, cases
    return None, []


def has_layout(folder: Path) -> bool:
    """Whether a folder has a known layout, even one that cannot be understood."""
    try:
        return find_layout(folder, labelled=False)[0] is not None
    except DatasetError:
        return True
