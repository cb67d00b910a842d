"""BraTS 2017 to 2024: four contrasts of each patient, and a tumour in three parts."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from planar3d.errors import DatasetError, ScanError
from planar3d.scans.case import EVERYONE, Case, LabelSet, Layout
from planar3d.scans.image_files import by_stem, first_of, stem, suffix
from planar3d.scans.volume import read_labels

IMAGES = ("flair", "t1", "t1ce", "t2")
_FILES = (*IMAGES, "seg")
# Endings of file names: until 2022, and from 2023 on.
_ENDINGS = {f"_{name}": name for name in _FILES}
_ENDINGS |= zip(("-t2f", "-t1n", "-t1c", "-t2w", "-seg"), _FILES, strict=True)
_NAME = re.compile(f"(brats.*)({'|'.join(_ENDINGS)})", re.IGNORECASE)
_MISNAMED = "W39_1998.09.19_Segm"  # the label map of BraTS20_Training_355 in some copies
_GRADES = ("HGG", "LGG")
_TREATED = re.compile(r"brats-gli-\d+-[1-9]\d\d", re.IGNORECASE)  # visits after treatment, from 2024 on: from 100
_CHILD = re.compile(r"brats-ped-.*", re.IGNORECASE)  # whose labels have other meanings in 2024 than in 2023


def tumour_labels(enhancing: int) -> LabelSet:
    """The regions of a glioma: 1 is necrosis, 2 edema, and the enhancing tumour 4 until 2022, 3 from 2023 on."""
    return LabelSet({"WT": (1, 2, enhancing), "TC": (1, enhancing), "ET": (enhancing,)}, order=(2, 1, enhancing))


# After treatment: 1 is the non-enhancing core, 2 the surrounding FLAIR hyperintensity, 3 the enhancing tissue, 4 the
# resection cavity, which is in no other region. De Verdier et al. 2024, arXiv 2405.18368; values as in released maps.
AFTER_TREATMENT = LabelSet({"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,), "RC": (4,)}, order=(2, 1, 3, 4))


class Brats(Layout):
    """Files named by patient and contrast, one folder per patient; groups are the grades, if folders give them."""

    name = "BraTS"
    expected = "BraTS (<ID>/<ID>_flair.nii.gz with _t1, _t1ce, _t2 and _seg, or -t2f, -t1n, -t1c, -t2w and -seg)"

    def find(self, folder: Path, files: Sequence[Path], labelled: bool) -> list[Case]:
        patients: dict[tuple[Path, str], dict[str, Path]] = {}
        for alike in by_stem(path for path in files if suffix(path)):
            path = alike[0]
            match = _NAME.fullmatch(path.parent.name + "_seg" if stem(path) == _MISNAMED else stem(path))
            if not match:
                continue
            patient = patients.setdefault((path.parent, match[1]), {})
            image = _ENDINGS[match[2].lower()]
            if image in patient:
                raise DatasetError(
                    f"{path.parent} has {patient[image].name} and {path.name}, both of which are {image}; keep one."
                )
            patient[image] = first_of(alike)
        cases = [_case(folder, *patient, found) for patient, found in patients.items()]
        marked = [case for case in cases if os.path.exists(case.label_map) or not _is_validation(folder, case)]
        return marked if marked and labelled else cases

    def label_set(self, folder: Path, cases: Sequence[Case]) -> LabelSet | None:
        """The labels by the values of the first map with an enhancing tumour, else by the names of the files.

        None for children. If any visit is after treatment, the labels are those of 2024, a superset of those of 2023.
        """
        by_mark = {_mark(case.id, case.images): case.id for case in cases}
        if len(by_mark) > 1:
            raise DatasetError(
                f"{folder} has cases with the names used until 2022 ({by_mark['_']}) and from 2023 on "
                f"({by_mark['-']}), whose labels differ; keep one kind in a folder."
            )
        if any(_CHILD.fullmatch(case.id) for case in cases):
            return None
        treated = any(_TREATED.fullmatch(case.id) for case in cases)
        for case in cases:
            try:
                found = set(np.unique(read_labels(case.label_map).voxels).tolist())
            except ScanError:
                continue  # unreadable files raise an error when used
            known = [{0, 1, 2, 3, 4}] if treated else [{0, 1, 2, 3}, {0, 1, 2, 4}]
            if not any(found <= labels for labels in known):
                raise DatasetError(
                    f"{case.labels} has the labels {', '.join(map(str, sorted(found)))}; BraTS has 0, 1, 2, 4 until "
                    "2022, 0, 1, 2, 3 from 2023 on, and also 4 in visits after treatment (BraTS-GLI-00005-100). If the "
                    "files are from another data set, name them in a CSV table."
                )
            if treated:
                return AFTER_TREATMENT
            if found & {3, 4}:
                return tumour_labels(max(found))
        return AFTER_TREATMENT if treated else tumour_labels(3 if "-" in by_mark else 4)


def _case(folder: Path, place: Path, patient: str, found: dict[str, Path]) -> Case:
    images = {name: found[name] for name in IMAGES if name in found}
    grades = [part.upper() for part in place.relative_to(folder).parts if part.upper() in _GRADES]
    labels = found.get("seg") or place / f"{patient}{_mark(patient, images)}seg.nii.gz"
    return Case(patient, images, labels, grades[0] if grades else EVERYONE)


def _mark(patient: str, images: Mapping[str, Path]) -> str:
    """The separator between patient and contrast: a hyphen from 2023 on."""
    return next(iter(images.values())).name[len(patient)]


def _is_validation(folder: Path, case: Case) -> bool:
    """Whether the labels of a case are not public, by its id or a folder."""
    return "validation" in str(case.label_map.relative_to(folder)).lower()
