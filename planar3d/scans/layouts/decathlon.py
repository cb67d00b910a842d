"""The Medical Segmentation Decathlon: `dataset.json` lists the files, and an image may have several volumes."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from planar3d.errors import DatasetError
from planar3d.scans.case import Case
from planar3d.scans.image_files import stem
from planar3d.scans.layouts.nnunet import DESCRIPTION, NnUNet, channel_names, description, inside
from planar3d.scans.tables import is_name


class Decathlon(NnUNet):
    """Images named by `modality`, one per volume; `test` lists images without labels.

    Labels are those of `dataset.json`: in Task01_BrainTumour, 1 is edema and 2 the non-enhancing core.
    """

    name = "Medical Segmentation Decathlon"
    expected = "Medical Segmentation Decathlon (dataset.json with the list “training” of images and labels)"

    def find(self, folder: Path, files: Sequence[Path], labelled: bool) -> list[Case]:  # noqa: D102
        about = description(folder)
        if not {"modality", "training"} <= about.keys():
            return []
        names = channel_names(folder, about)
        marked = [_case(folder, row, names) for row in _rows(folder, about, "training")]
        unmarked = [_case(folder, {"image": row}, names) for row in _rows(folder, about, "test")]
        return marked if labelled and marked else [*marked, *unmarked]


def _rows(folder: Path, about: dict[str, Any], key: str) -> list[Any]:
    """The entries of a list of files, without those that macOS adds."""
    rows = about.get(key, [])
    if not isinstance(rows, list):
        raise DatasetError(f"{folder / DESCRIPTION}: {key} is not a list of files. Fix it.")
    images = [row.get("image", "") if isinstance(row, dict) else row for row in rows]
    return [row for row, image in zip(rows, images, strict=True) if not os.path.basename(str(image)).startswith("._")]


def _case(folder: Path, row: Any, names: Sequence[str]) -> Case:
    image, label = (row.get(key) for key in ("image", "label")) if isinstance(row, dict) else (None, None)
    name = stem(Path(str(image)))
    if not isinstance(image, str) or not isinstance(label, str | None) or not is_name(name):
        raise DatasetError(
            f'{folder / DESCRIPTION} lists {row!r}; {{"image": "./imagesTr/<ID>.nii.gz", "label": …}} is needed.'
        )
    path = inside(folder, image)
    volumes = [path] if len(names) == 1 else [path.with_name(f"{path.name}[{number}]") for number in range(len(names))]
    return Case(name, dict(zip(names, volumes, strict=True)), inside(folder, label) if label else None)
