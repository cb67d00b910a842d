"""A case: a patient's images by name, the label map of them all, and the group; and a data set of cases."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planar3d.errors import DatasetError


@dataclass(frozen=True)
class Case:
    """The files of one patient, or of one visit.

    Attributes:
        id: no other case of the data set has it.
        images: by name: flair, t1, t1ce, t2; of nnU-Net data sets what `channel_names` calls them, in small letters.
        labels: a map of what is to be found in the images, or a lesion mask; None where nothing was marked.
        group: center, site or grade; folds have cases of each.
    """

    id: str
    images: Mapping[str, Path] = field(hash=False)
    labels: Path | None
    group: str

    @property
    def label_map(self) -> Path:
        """The label map of a case that must have one.

        Raises:
            DatasetError: it has none.
        """
        if self.labels is None:
            raise DatasetError(f"{self.id} has no label map; one is needed to train and to score.")
        return self.labels

    def to_json(self) -> dict[str, Any]:
        """The case without its id, as a row of folds.json."""
        images = {name: os.path.abspath(path) for name, path in self.images.items()}
        return {"images": images, "labels": self.labels and os.path.abspath(self.labels), "group": self.group}

    @classmethod
    def from_json(cls, case_id: str, row: Mapping[str, Any]) -> "Case":
        """A case from a row of folds.json."""
        row = as_written_today(row)
        images = {name: Path(path) for name, path in row["images"].items()}
        return cls(case_id, images, row["labels"] and Path(row["labels"]), row["group"])


@dataclass(frozen=True)
class Dataset:
    """Cases in alphabetical order, and the layout they were found in."""

    cases: tuple[Case, ...]
    layout: str
    folder: Path

    def by_id(self) -> dict[str, Case]:
        """The cases by their ids."""
        return {case.id: case for case in self.cases}


def as_written_today(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of folds.json as it is written today; older ones have one scan, which is FLAIR, and its mask."""
    if "scan" not in row:
        return row
    return {"images": {"flair": row["scan"]}, "labels": row.get("mask"), "group": row.get("group")}
