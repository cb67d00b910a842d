"""Data sets described by `dataset.json`: raw ones of nnU-Net, versions 2 and 1, and those of the Decathlon."""

import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from planar3d.errors import DatasetError, Planar3DWarning
from planar3d.scans.bids import read_json_object
from planar3d.scans.case import Case, LabelSet, Layout
from planar3d.scans.image_files import is_nifti, stem
from planar3d.scans.labels import Labels
from planar3d.scans.tables import is_name
from planar3d.wording import counted

_DESCRIPTION = "dataset.json"
_LABELS = {"imagesTr": "labelsTr", "imagesTs": "labelsTs"}  # the latter need not exist
_NO_TARGETS = ("background", "ignore")  # the latter marks voxels without a label, in no region
_NUMBER = re.compile("[0-9]{1,9}")


class NnUNet(Layout):
    """Images are named by case and channel, CASE_0000.nii.gz, unless `dataset` lists them; `imagesTs` has no labels.

    Either folder of images may be given alone.
    """

    name = "nnU-Net raw"
    expected = "nnU-Net (dataset.json, imagesTr/<ID>_0000.nii.gz and labelsTr/<ID>.nii.gz)"

    def find(self, folder: Path, files: Sequence[Path], labelled: bool) -> list[Case]:
        root = _root(folder)
        about = _description(root)
        channels, ending = _channel_names(root, about), _ending(root, about)
        if not channels:
            return []
        if "dataset" in about:
            train, test = [*_listed(root, about, channels)], list[Case]()
        else:
            train = _numbered(root, "imagesTr", files, channels, ending, labelled)
            test = _numbered(root, "imagesTs", files, channels, ending, labelled=False)
            said = about.get("numTraining")
            if labelled and train and isinstance(said, int) and said != len(train):
                warnings.warn(
                    f"{root / _DESCRIPTION} says numTraining {said}, but {root / 'imagesTr'} has "
                    f"{counted(train, 'case')}. Check that no file is missing.",
                    Planar3DWarning,
                    stacklevel=2,
                )
        if not train and not test and "channel_names" in about:
            raise DatasetError(f"{folder} has no images named imagesTr/<ID>_0000{ending}, as {_DESCRIPTION} describes.")
        return train if labelled and train else [*train, *test]

    def label_set(self, folder: Path, cases: Sequence[Case]) -> LabelSet | None:
        root = _root(folder)
        about = _description(root)
        values: dict[str, Labels] = {}
        for name, value in _object(root, about, "labels").items():
            if _NUMBER.fullmatch(name) and isinstance(value, str):  # version 1 has them reversed
                name, value = value, int(name)
            values[name] = _whole_numbers(root, "labels", value)
        values = {name: numbers for name, numbers in values.items() if name not in _NO_TARGETS and numbers != (0,)}
        order = _whole_numbers(root, "regions_class_order", about.get("regions_class_order", []))
        if not any(len(numbers) > 1 for numbers in values.values()):
            return LabelSet(values) if values else None
        if len(order) != len(values):
            raise DatasetError(
                f"{root / _DESCRIPTION}: labels has the regions {', '.join(values)}, so regions_class_order needs "
                f"{counted(values, 'value')}; it has {len(order)}."
            )
        return LabelSet(values, order)


class Decathlon(NnUNet):
    """Images named by `modality`, one per volume; `test` lists images without labels.

    Labels are those of `dataset.json`: in Task01_BrainTumour, 1 is edema and 2 the non-enhancing core.
    """

    name = "Medical Segmentation Decathlon"
    expected = "Medical Segmentation Decathlon (dataset.json with the list “training” of images and labels)"

    def find(self, folder: Path, files: Sequence[Path], labelled: bool) -> list[Case]:
        about = _description(folder)
        if not {"modality", "training"} <= about.keys():
            return []
        names = _channel_names(folder, about)
        marked = [_case_of(folder, row, names) for row in _rows(folder, about, "training")]
        unmarked = [_case_of(folder, {"image": row}, names) for row in _rows(folder, about, "test")]
        return marked if labelled and marked else [*marked, *unmarked]


def _root(folder: Path) -> Path:
    return folder.parent if folder.name in _LABELS else folder


def _description(root: Path) -> dict[str, Any]:
    """The content of `dataset.json`; empty if it does not exist."""
    return read_json_object(root / _DESCRIPTION, DatasetError)


def _object(root: Path, about: Mapping[str, Any], key: str) -> dict[str, Any]:
    content = about.get(key, {})
    if not isinstance(content, dict):
        raise DatasetError(f"{root / _DESCRIPTION}: {key} is not an object of names and values. Fix it.")
    return content


def _channel_names(root: Path, about: Mapping[str, Any]) -> list[str]:
    """The names of the channels in lower case, in their order; repeated names get their numbers."""
    given = _object(root, about, "channel_names" if "channel_names" in about else "modality")
    numbers = _whole_numbers(root, "channel_names", list(given))
    if sorted(numbers) != list(range(len(numbers))):
        raise DatasetError(
            f"{root / _DESCRIPTION}: the channels are {', '.join(given)}; they must be numbered from 0. Fix them."
        )
    names = [str(name).lower() for _, name in sorted(zip(numbers, given.values(), strict=True))]
    return [name if names.count(name) == 1 else f"{name}_{number}" for number, name in enumerate(names)]


def _ending(root: Path, about: Mapping[str, Any]) -> str:
    ending = str(about.get("file_ending", ".nii.gz"))
    if not is_nifti(Path(f"x{ending}")):
        raise DatasetError(
            f"{root / _DESCRIPTION}: file_ending is {ending}; .nii.gz and .nii are supported. Convert the images."
        )
    return ending


def _listed(root: Path, about: Mapping[str, Any], channels: Sequence[str]) -> Iterator[Case]:
    """The cases of the section `dataset`: `{"CASE": {"images": [path, …], "label": path}, …}`."""
    for name, files in _object(root, about, "dataset").items():
        images, labels = (files.get(key) for key in ("images", "label")) if isinstance(files, dict) else (None, None)
        if not (is_name(name) and images and isinstance(images, list) and isinstance(labels, str)):
            raise DatasetError(
                f"{root / _DESCRIPTION}: {name} in the section “dataset” needs a name valid for files, paths in "
                "“images”, and “label”."
            )
        paths = dict(enumerate(_inside(root, str(path)) for path in images))
        yield Case(name, _by_name(root, name, paths, channels), _inside(root, labels))


def _numbered(
    root: Path, place: str, files: Sequence[Path], channels: Sequence[str], ending: str, labelled: bool
) -> list[Case]:
    """The cases of a folder of images that are named by case and channel."""
    labels, images = root / _LABELS[place], defaultdict[str, dict[int, Path]](dict)
    marked = (path for path in labels.glob("[!.]*") if path.name.lower().endswith(ending.lower()))
    maps = {path.name[: -len(ending)]: path for path in marked}
    numbered = re.compile(rf"(?P<id>.+)_(?P<channel>\d{{4}})(?i:{re.escape(ending)})")
    for path in files:
        if path.parent == root / place and (match := numbered.fullmatch(path.name)):
            images[match["id"]][int(match["channel"])] = path
    for case in maps if labelled and images else ():  # without an image: it is missing, or has another name
        images.setdefault(case, {0: root / place / f"{case}_0000{ending}"})
    return [
        Case(case, _by_name(root, case, by_number, channels), maps.get(case, labels / f"{case}{ending}"))
        for case, by_number in images.items()
    ]


def _by_name(root: Path, case: str, images: Mapping[int, Path], channels: Sequence[str]) -> dict[str, Path]:
    if beyond := [path for number, path in sorted(images.items()) if number >= len(channels)]:
        raise DatasetError(
            f"{case} has the image {beyond[0].name}, but {root / _DESCRIPTION} names {counted(channels, 'channel')}: "
            f"{', '.join(channels)}. Add its name, or remove the image."
        )
    return {channels[number]: path for number, path in sorted(images.items())}


def _inside(root: Path, text: str) -> Path:
    """A path from the description; links are not followed, as they may lead to a common store."""
    path = Path(os.path.normpath(root / text))
    if not path.is_relative_to(os.path.normpath(root)):
        raise DatasetError(
            f"{root / _DESCRIPTION} names {text}, which is outside the data set. Move the file into it, or name the "
            "files in a CSV table, which accepts any path."
        )
    return path


def _whole_numbers(root: Path, key: str, given: Any) -> Labels:
    values = given if isinstance(given, list) else [given]
    if not all(_NUMBER.fullmatch(str(value)) for value in values):
        raise DatasetError(f"{root / _DESCRIPTION}: {key} has {given!r}, where whole numbers are needed. Fix it.")
    return tuple(map(int, values))


def _rows(folder: Path, about: dict[str, Any], key: str) -> list[Any]:
    """The entries of a list of files, without those that macOS adds."""
    rows = about.get(key, [])
    if not isinstance(rows, list):
        raise DatasetError(f"{folder / _DESCRIPTION}: {key} is not a list of files. Fix it.")
    images = [row.get("image", "") if isinstance(row, dict) else row for row in rows]
    return [row for row, image in zip(rows, images, strict=True) if not os.path.basename(str(image)).startswith("._")]


def _case_of(folder: Path, row: Any, names: Sequence[str]) -> Case:
    image, label = (row.get(key) for key in ("image", "label")) if isinstance(row, dict) else (None, None)
    name = stem(Path(str(image)))
    if not isinstance(image, str) or not isinstance(label, str | None) or not is_name(name):
        raise DatasetError(
            f'{folder / _DESCRIPTION} lists {row!r}; {{"image": "./imagesTr/<ID>.nii.gz", "label": …}} is needed.'
        )
    path = _inside(folder, image)
    volumes = [path] if len(names) == 1 else [path.with_name(f"{path.name}[{number}]") for number in range(len(names))]
    return Case(name, dict(zip(names, volumes, strict=True)), _inside(folder, label) if label else None)
