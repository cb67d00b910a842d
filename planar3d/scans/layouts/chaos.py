"""CHAOS: abdominal CT and MR as DICOM series, with organ masks as PNG files."""

import os
from collections.abc import Sequence
from pathlib import Path

from planar3d.scans.case import Case, LabelSet, Layout
from planar3d.scans.slice_folders import IMAGES, MASKS, ORGANS

_SEQUENCES = ("T1DUAL", "T2SPIR")
_PHASES = ("InPhase", "OutPhase")


class Chaos(Layout):
    """A case is a series, its image named `image`; groups are CT and MR, of different patients.

    The phases of T1DUAL are two cases with the same masks.
    """

    name = "CHAOS"
    expected = "CHAOS (CT/<n>/DICOM_anon and MR/<n>/T1DUAL or T2SPIR, each with Ground)"
    labels = LabelSet({organ: (label,) for organ, label in ORGANS.items()})  # in CT only the liver

    def find(self, folder: Path, files: Sequence[Path], labelled: bool) -> list[Case]:
        places = dict.fromkeys(path.parent for path in files if path.name.lower().endswith(".dcm"))
        cases = [case for place in places if (case := _case(place))]
        masks = {path.parent for path in files if path.parent.name == MASKS and path.name.lower().endswith(".png")}
        cases += [Case(str(place), {}, place) for place in sorted(masks - {case.labels for case in cases})]
        marked = [case for case in cases if os.path.isdir(case.label_map) or not _is_test(case)]
        return marked if labelled and marked else cases


def _case(place: Path) -> Case | None:
    """The series in a folder, `DICOM_anon` or one of its phases; None for another name."""
    path = Path(os.path.abspath(place))
    phase = path.name if path.name in _PHASES else ""
    images = path.parent if phase else path
    if images.name != IMAGES:
        return None
    sequence = images.parent.name if images.parent.name in _SEQUENCES else ""
    person = images.parent.parent if sequence else images.parent
    group = "MR" if sequence else "CT"
    patient = f"{group}_{person.name}"
    case_id = "_".join(filter(None, (patient, sequence, phase)))
    masks = (place.parent if phase else place).with_name(MASKS)
    return Case(case_id, {"image": place}, masks, group, patient)


def _is_test(case: Case) -> bool:
    """Whether the masks of a case are not public."""
    return "test_sets" in os.path.abspath(case.label_map).lower()
