"""MSSEG 2016: the challenge's first distribution, and that of the Shanoir portal."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from planar3d.errors import DatasetError
from planar3d.scans.case import Case, Layout
from planar3d.scans.image_files import by_stem, first_of, stem, suffix


@dataclass(frozen=True)
class Msseg(Layout):
    """Places of patients, as a pattern of their id and group, with scan and mask of each.

    A folder has the layout if a patient has a scan. A patient with only a mask is a case without its scan, unless
    another folder has the patient's scan: the challenge also delivered pre-processed scans, with the same masks.
    """

    name: str
    expected: str
    patients: str
    scan: str
    mask: str
    preprocessed: str

    def find(self, folder: Path, files: Sequence[Path], labelled: bool) -> list[Case]:
        found: dict[Path, tuple[re.Match[str], dict[str, Path]]] = {}
        for alike in by_stem(path for path in files if suffix(path)):
            within = alike[0].with_name(stem(alike[0])).relative_to(folder).as_posix()
            for name in (self.scan, self.mask, self.preprocessed):
                if match := re.fullmatch(f"{self.patients}/{name}", within, re.IGNORECASE):
                    patient = folder / match.string[: match.end("id")]
                    found.setdefault(patient, (match, {}))[1][name] = first_of(alike)
        scanned = {match["id"] for match, images in found.values() if self.scan in images}
        if not scanned:
            both = {self.preprocessed, self.mask}  # without a mask it may be a file of another layout
            instead = next((its[self.preprocessed] for _, its in found.values() if both <= its.keys()), None)
            if instead and labelled:
                raise DatasetError(
                    f"{folder} has only pre-processed scans of MSSEG 2016 ({instead.relative_to(folder)}); the "
                    f"unprocessed ones are needed, {self.expected}. Name their folder, or list scans and masks in a "
                    "CSV table to use the pre-processed ones."
                )
            return []
        cases = []
        for patient, (match, images) in found.items():
            if self.scan not in images and (self.mask not in images or match["id"] in scanned):
                continue
            scan, mask = (images.get(name, patient / f"{name}.nii.gz") for name in (self.scan, self.mask))
            cases.append(Case(match["id"].replace("/", "_"), {"flair": scan}, mask, match["group"]))
        return cases


# A folder's name begins with the center's two digits; names of the portal are never mapped to these.
FIRST_DISTRIBUTION = Msseg(
    "MSSEG 2016, first distribution",
    "TrainingDataset_MSSEG/<ID>/3DFLAIR.nii.gz with Consensus.nii.gz beside it",
    "(?:(?:[^/]+/)?TrainingDataset_MSSEG/)?(?P<id>(?P<group>[^/]{1,2})[^/]*)",
    "3DFLAIR",
    "Consensus",
    "FLAIR_preprocessed",
)
SHANOIR = Msseg(
    "MSSEG 2016, Shanoir portal",
    "Training/Center_xx/Patient_yy/Raw_Data/FLAIR.nii.gz with Masks/Consensus.nii.gz",
    "(?:(?:[^/]+/)?Training/)?(?P<id>(?P<group>Center_[^/]+)/Patient_[^/]+)",
    "Raw_Data/FLAIR",
    "Masks/Consensus",
    "Preprocessed_Data/FLAIR_preprocessed",
)
