"""A case: a patient's images by name, their label map, and the group; a data set of cases, and its layout."""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from planar3d.errors import DatasetError, ScanError
from planar3d.scans.folds import Fold
from planar3d.scans.geometry import is_usable
from planar3d.scans.image_files import files_of, is_there, require_usable, why_unusable
from planar3d.scans.labels import Labels
from planar3d.scans.nifti import header_of
from planar3d.scans.readers import is_foreign
from planar3d.scans.volume import Scan, on_grid_of, read_scan
from planar3d.wording import counted, has_or_have

EVERYONE = "all"  # the group of cases without a known site
PHANTOM = "phantom.json"  # the settings of a phantom, in its folder
# The subject in BIDS, and the patient in BraTS 2017 to 2019 and from 2023 on, before the number of the visit; and in
# the longitudinal challenge of ISBI 2015, training01_02_flair_pp.
_PATIENT = re.compile(
    r"(?:^|_)(?:sub-[a-z0-9]+|brats1[7-9]_[^_]+_[^_]+(?=_[0-9]+(?:_|$))|brats-[a-z]+-[0-9]+(?=-[0-9]+(?:_|-|$))"
    r"|(?:training|test)[0-9]{2}(?=_[0-9]{2}(?:_|$)))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Case:
    """The files of one patient, or of one visit."""

    id: str  # unique in the data set
    # By name: flair, t1, t1ce, t2; for nnU-Net data sets the `channel_names` in lower case.
    images: Mapping[str, Path] = field(hash=False)
    labels: Path | None  # the label map or lesion mask of the images; None if there is none
    group: str = EVERYONE  # center, site or grade; folds have cases of each group
    patient: str = ""  # folds keep the visits of a patient together; default: derived from the id, see `patient_of`

    def __post_init__(self) -> None:
        object.__setattr__(self, "patient", self.patient or patient_of(self.id))

    @property
    def label_map(self) -> Path:
        """The label map of a case that must have one."""
        if self.labels is None:
            raise DatasetError(f"{self.id} has no label map; training and scoring need one.")
        return self.labels

    def lacking(self, names: Sequence[str]) -> str:
        """Which of these images are missing and which exist, in words; empty if none is missing."""
        absent = ", ".join(name for name in names if name not in self.images)
        return f"{self.id} has no image {absent}; it has {', '.join(self.images)}" if absent else ""

    def to_json(self) -> dict[str, Any]:
        """The case as a row of folds.json, without its id."""
        images = {name: os.path.abspath(path) for name, path in self.images.items()}
        row = {"images": images, "labels": self.labels and os.path.abspath(self.labels), "group": self.group}
        return row if self.patient == patient_of(self.id) else row | {"patient": self.patient}

    @classmethod
    def from_json(cls, case_id: str, row: Mapping[str, Any]) -> "Case":
        """A case from a row of folds.json."""
        if "scan" in row:  # in older files, which have one FLAIR scan and its mask
            row = {"images": {"flair": row["scan"]}, "labels": row.get("mask"), "group": row.get("group")}
        images = {name: Path(path) for name, path in row["images"].items()}
        return cls(case_id, images, row["labels"] and Path(row["labels"]), row["group"], row.get("patient", ""))


@dataclass(frozen=True)
class LabelSet:
    """The meaning of the values in a data set's label maps."""

    # Values of each class or region by name, without the background, 0; a region may have several.
    values: Mapping[str, Labels] = field(hash=False)
    # The value written for each region, outermost first, as in nnU-Net's `regions_class_order`; empty for classes.
    order: Labels = ()


@dataclass(frozen=True)
class Dataset:
    """Cases in alphabetical order, with their layout and, if known, the meaning of labels and the official split."""

    cases: tuple[Case, ...]
    layout: str
    folder: Path
    labels: LabelSet | None = None
    split: Fold | None = None

    @property
    def is_phantom(self) -> bool:
        """Whether `write_phantom` made the folder: its scans are not patients."""
        return (self.folder / PHANTOM).is_file()

    def by_id(self) -> dict[str, Case]:
        """The cases by their ids."""
        return {case.id: case for case in self.cases}

    def require(self, names: Sequence[str]) -> None:
        """Refuse cases that lack one of these images, or whose files are missing or unreadable; names all of them."""
        if without := [case for case in self.cases if case.lacking(names)]:
            raise DatasetError(
                f"Images of the recipe are missing from {len(without)} of {counted(self.cases, 'case')} in "
                f"{self.folder}: {', '.join(case.id for case in without)}. {without[0].lacking(names)}. Add them, or "
                "choose another recipe."
            )
        self.require_files({"scan": [(case.id, case.images[name]) for case in self.cases for name in names]})

    def require_meaning(self, scored: Mapping[str, Labels]) -> None:
        """Refuse targets, by name, with other labels than the data set has under that name.

        Labels that only one of them has do not count: the enhancing tumour of BraTS is 4, or 3 from 2023 on.
        """
        own = self.labels.values if self.labels else {}
        shared = set().union(*own.values()) & set().union(*scored.values())
        for name in (name for name in scored if name in own):
            if shared.intersection(set(own[name]) ^ set(scored[name])):
                here, there = (", ".join(map(str, sorted(labels[name]))) for labels in (own, scored))
                raise DatasetError(
                    f"{name} is label {here} in {self.folder}, but {there} in the targets. Set the targets to "
                    "the labels of this data set, or use a model that was trained with them."
                )

    def require_files(self, files: Mapping[str, Sequence[tuple[str, Path]]]) -> None:
        """Refuse missing or unreadable files, by the name of their image, with the ids of cases; names all of them."""
        require_usable(self.folder, {path: why_unusable(path) for some in files.values() for _, path in some})
        for kind, some in files.items():
            if missing := [(name, path) for name, path in some if not is_there(path)]:
                names = ", ".join(name for name, _ in missing)
                lost = next(file for file in files_of(missing[0][1]) if not os.path.isfile(file))
                raise DatasetError(
                    f"{len(missing)} of {counted(self.cases, 'scan')} in {self.folder} {has_or_have(missing)} no "
                    f"{kind}: {names}. Expected e.g. {lost}; add it, or remove the patient."
                )


class Layout(ABC):
    """How a data set names its files and folders."""

    name: str  # of the layout
    expected: str  # its files, for the error message about an unknown layout
    labels: LabelSet | None = None  # the meaning of its labels, if that never differs

    @abstractmethod
    def find(self, folder: Path, files: Sequence[Path], labelled: bool) -> list[Case]:
        """The cases of a folder; none if it has another layout.

        Args:
            folder: of the data set, or a table.
            files: all files in it and its subfolders, except derivatives.
            labelled: whether cases without public labels, as in a test set, are excluded if others exist. If a label
                map is missing, its case has the expected path. A label map without a scan is a case without images,
                unless a missing scan cannot be meant.

        Raises:
            DatasetError: the folder has the layout, but cannot be understood.
        """

    def label_set(self, folder: Path, cases: Sequence[Case]) -> LabelSet | None:
        """The meaning of the labels of these cases, if the layout defines it; a `DatasetError` if it is ambiguous."""
        return self.labels

    def split(self, folder: Path, cases: Sequence[Case]) -> Fold | None:
        """The data set's own split into training, validation and test, if it has one."""
        return None


def patient_of(case_id: str) -> str:
    """The patient in a case's id: sub-01 in sub-01_ses-2, BraTS-GLI-00003 in BraTS-GLI-00003-001.

    An id without a visit is the patient.
    """
    named = _PATIENT.search(case_id)
    return case_id[: named.end()] if named else case_id


def read_images(
    images: Mapping[str, str | Path | Scan], assume_affine: bool = False, flat: bool = False
) -> dict[str, Scan]:
    """Read the images of a case on the grid of the first, see `on_grid_of`: axes are reordered, not resampled."""
    scans: dict[str, Scan] = {}
    for name, given in images.items():
        first = next(iter(scans.values()), None)
        scan = given if isinstance(given, Scan) else read_scan(given, assume_affine, name, first, flat)
        scans[name] = scan if first is None else on_grid_of(first, scan, "image")
    return scans


def require_one_grid(cases: Collection[Case], images: Sequence[str]) -> None:
    """Raise a `ScanError` that names all cases whose NIfTI headers show that images and label map differ in grids."""
    problems = {}
    for case in cases:
        try:
            first, *others = [_grid(path) for path in (*(case.images[name] for name in images), case.label_map)]
            for other in others:
                if first and other:
                    on_grid_of(first, other, "mask" if other is others[-1] else "image")
        except ScanError as error:
            problems[case.id] = str(error)
    if problems:
        raise ScanError(
            f"{counted(problems, 'case')} cannot be prepared: {', '.join(problems)}. {next(iter(problems.values()))}"
        )


def _grid(path: Path) -> Scan | None:
    """A volume of zeros that takes no memory; None if the header does not define a grid, which reading will explain."""
    header = None if is_foreign(path) else header_of(path)
    if header is None or not (header["sform_code"] or header["qform_code"]):
        return None
    shape, affine = header.get_data_shape(), header.get_best_affine()
    if len(shape) < 3 or not is_usable(affine):
        return None
    return Scan(np.broadcast_to(np.float32(0), shape[:3]), header, path)
