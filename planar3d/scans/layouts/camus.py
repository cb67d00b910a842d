"""CAMUS: echocardiograms of two views at two instants, in either release."""

import re
from collections.abc import Sequence
from pathlib import Path

from planar3d.errors import DatasetError
from planar3d.scans.case import EVERYONE, Case, LabelSet, Layout
from planar3d.scans.folds import Fold
from planar3d.scans.image_files import by_stem, first_of, is_there, stem, suffix

VIEWS, INSTANTS = ("2CH", "4CH"), ("ED", "ES")
_NAME = re.compile(rf"((patient[0-9]+)_({'|'.join(VIEWS)})_(?:{'|'.join(INSTANTS)}))(_gt)?", re.IGNORECASE)
_QUALITIES = ("Poor", "Medium", "Good")
_SPLIT = "database_split"


class Camus(Layout):
    """Each image of a view at end diastole or end systole is a case, with the image `image`; sequences are ignored.

    Groups are the image quality of the poorer view; the scored epicardium is the union of cavity and myocardium.
    """

    name = "CAMUS"
    expected = "CAMUS (patient0001/patient0001_2CH_ED.mhd or .nii.gz with _gt, likewise 4CH and ES)"
    labels = LabelSet({"cavity": (1,), "myocardium": (2,), "atrium": (3,)})

    def find(self, folder: Path, files: Sequence[Path], labelled: bool) -> list[Case]:
        found: dict[tuple[Path, str], dict[str, Path]] = {}
        for alike in by_stem(path for path in files if suffix(path)):
            if match := _NAME.fullmatch(stem(alike[0])):
                found.setdefault((alike[0].parent, match[1]), {})["labels" if match[4] else "image"] = first_of(alike)
        cases = []
        for (place, name), pair in found.items():
            labels = pair.pop("labels", None) or pair["image"].with_name(f"{name}_gt{suffix(pair['image'])}")
            patient, _, kind = name.partition("_")  # view and instant, by which tables choose images
            said = [read_info(place / f"Info_{each}.cfg").get("ImageQuality", "") for each in VIEWS]
            quality = next((quality for quality in _QUALITIES if quality in said), EVERYONE)  # of the poorer view
            cases.append(Case(f"{patient}_{kind.upper()}", pair, labels, quality, patient))
        marked = [case for case in cases if is_there(case.labels) or "testing" not in case.label_map.parts]
        return marked if labelled and marked else cases

    def split(self, folder: Path, cases: Sequence[Case]) -> Fold | None:
        """The lists of `database_split`, in the folder or beside it."""
        places = [place / _SPLIT for place in (folder, folder.parent) if (place / _SPLIT).is_dir()]
        if not places:
            return None
        by_part = [_patients(places[0] / f"subgroup_{part}.txt") for part in ("training", "validation", "testing")]
        return Fold(*(tuple(sorted(case.id for case in cases if case.patient in patients)) for patients in by_part))


def read_info(path: Path) -> dict[str, str]:
    """The lines `Key: value` of an Info file; empty if it does not exist.

    `ED` and `ES` are numbers of frames of the sequence, from 1; the volumes in ml and the ejection fraction in % are
    `LVedv`, `LVesv` and `LVef` in one release, the last `EF` in the other.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, colon, value in (line.partition(":") for line in lines) if colon}


def _patients(path: Path) -> set[str]:
    try:
        return set(path.read_text(encoding="utf-8-sig").split())
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read ({error}). It should list one patient per line; fix it.") from None
