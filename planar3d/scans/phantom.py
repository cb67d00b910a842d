"""The embedded phantom: synthetic scans in the layouts of challenges."""

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from planar3d.errors import DatasetError, path_of
from planar3d.extras import check_extra
from planar3d.files import remove_temporaries, write_json
from planar3d.locks import locked
from planar3d.scans.bids import read_json_object
from planar3d.scans.case import PHANTOM
from planar3d.scans.phantom_head import BRAIN_ORIGIN, TISSUES, build_head
from planar3d.scans.phantom_layouts import (
    MSSEG,
    PhantomLayout,
    describe_decathlon,
    save_as,
    save_camus,
    save_chaos,
    save_decathlon,
)
from planar3d.scans.phantom_lesions import FAR, grow_lesions, make_tumour_case
from planar3d.scans.phantom_organs import make_abdomen_case, make_heart_case
from planar3d.scans.phantom_scanner import CENTERS, PhantomCenter, Subject, draw_subject, header_of, scanned
from planar3d.scans.volume import Scan
from planar3d.sections import whole
from planar3d.wording import listed

_REDUCTIONS = (1, 16)
_TISSUE_SPREAD = 0.04  # of signals between scans, relative
_SOFT_EDGE = 1.6  # mm: width of a lesion's rim


def write_phantom(
    folder: str | Path,
    *,
    seed: int = 0,
    scans_per_center: int = 5,
    reduction: float = 1.0,
    layout: str | PhantomLayout = "msseg",
    progress: Callable[[str], None] | None = None,
) -> list[str]:
    """Write synthetic scans with their label maps, in the layout of a challenge.

    The brain is ICBM152's, with a different deformation for each scan. Heads of the layout `msseg` have a skull, face
    and neck of simple shapes, and lesions up to the published share of the voxels. Brains of the layout `brats` have
    no skull and a tumour of three nested parts; `decathlon` has the same in the layout of the Medical Segmentation
    Decathlon. The abdomens of `chaos` (CT and MR) and the hearts of `camus` (ultrasound) are simple shapes. A scan
    depends only on its name, `seed` and `reduction`.

    Args:
        folder: gets files with the challenge's names: NIfTI images (int16) and label maps (uint8), stored left,
            posterior, superior; DICOM and PNG files for chaos; mhd and raw files for camus. `phantom.json` has the
            settings.
        seed: the same seed gives the same voxels.
        scans_per_center: for each of the three centers; beyond five the lesion loads repeat.
        reduction: divides the grid and multiplies the voxel size along each axis, 1 to 16.
        layout: msseg, brats, decathlon, chaos or camus; or a layout of your own.
        progress: called with a line for each scan written.

    Returns:
        The scans' names; `01PHANTOM1`, or `BraTS_01PHANTOM1`, is the first of center 01.

    Raises:
        DatasetError: a number is out of range, the layout is unknown, or the folder has another phantom.
        Planar3DError: nilearn, which has the brain, is not installed; or pydicom, Pillow or SimpleITK.
    """
    least, most = _REDUCTIONS
    if not isinstance(reduction, Real) or not least <= reduction <= most:
        raise DatasetError(f"reduction={reduction!r}: a number from {least} to {most} is needed.")
    seed, reduction = whole("seed", seed, 0, DatasetError), float(reduction)
    scans_per_center = whole("scans_per_center", scans_per_center, 1, DatasetError)
    if not isinstance(layout, PhantomLayout) and layout not in list(_LAYOUTS):
        raise DatasetError(f"The phantom has no layout {layout}; choose one of {', '.join(_LAYOUTS)}.")
    made = layout if isinstance(layout, PhantomLayout) else _LAYOUTS[layout]
    check_packages(made)
    named = "own" if isinstance(layout, PhantomLayout) else layout
    settings = {"layout": named, "seed": seed, "reduction": reduction, "scans_per_center": scans_per_center}
    settings |= made.source
    place = path_of(folder, "The phantom's folder", DatasetError)
    refuse_other_phantom(place, settings)
    with locked(place, "writing the phantom", wait=progress or (lambda text: None)):
        refuse_other_phantom(place, settings)  # of another process since
        remove_temporaries(*(inner for inner in place.rglob("*") if inner.is_dir()))
        names = list[str]()
        for center, number in product(CENTERS, range(1, scans_per_center + 1)):
            name = made.named.format(center=center.name, number=number)
            load = center.loads[(number - 1) % len(center.loads)]
            scans = made.make(center, load, reduction, np.random.default_rng([seed, zlib.crc32(name.encode())]))
            if not names:
                write_json(place / PHANTOM, settings)
            made.save(place, name, scans)
            names.append(name)
            if progress:
                *_, labels = scans.values()
                size = " × ".join(map(str, labels.voxels.shape))
                progress(f"{name}: {size} voxels, {(labels.voxels > 0).mean():.3%} {made.marked}")
        made.finish(place, names)
    return names


def refuse_other_phantom(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise a `DatasetError` if a folder has a phantom with other arguments of `write_phantom`, or other files.

    Real cases may have the same names, as in the Decathlon and CAMUS.
    """
    found = read_json_object(folder / PHANTOM, DatasetError) or settings
    files = sorted(path.name for path in folder.glob("[!.]*"))
    if files and PHANTOM not in files:
        raise DatasetError(f"{folder} has {listed(files)} and is not a phantom; name an empty or new folder.")
    if found != settings:
        there, needed = (", ".join(f"{name} {value}" for name, value in each.items()) for each in (found, settings))
        raise DatasetError(
            f"{folder} has a phantom with other settings ({there}; needed: {needed}). Delete it, or name another."
        )


def check_packages(layout: str | PhantomLayout) -> None:
    """Raise the error of a missing package that `write_phantom` needs for a layout."""
    made = layout if isinstance(layout, PhantomLayout) else _LAYOUTS[layout]
    check_extra(made.extra, *made.packages)


def phantom_groups(layout: str, scans_per_center: int) -> dict[str, str]:
    """The group of each patient of a phantom, by the names that `write_phantom` returns."""
    made = _LAYOUTS[layout]
    return {
        made.named.format(center=center.name, number=number): group
        for center, group in zip(CENTERS, made.groups, strict=True)
        for number in range(1, scans_per_center + 1)
    }


def make_head(center: PhantomCenter, load: float, reduction: float, rng: np.random.Generator) -> dict[str, Scan]:
    """Scan one person at one center, and mark the lesions; a load of 0 gives none."""
    of_person, of_disease, of_scanner = rng.spawn(3)
    view = np.multiply(center.grid, center.spacing)
    grid = tuple(round(n / reduction) for n in center.grid)
    ratio = center.lesion_ratio * load
    person = draw_subject(view, of_person)
    signal, depth, brightness = _observe(person, center, grid, ratio, of_disease)
    lesion_voxels = max(1, round(ratio * depth.size))
    outline = np.partition(depth, -lesion_voxels - 1, axis=None)[-lesion_voxels - 1] if load else np.inf  # exact
    edge = max(_SOFT_EDGE, float(np.mean(view / grid)))
    share = np.clip((depth - outline) / edge + 0.5, 0, 1)  # of a voxel taken up by lesion
    signal += share * (1 + center.lesion_contrast * brightness - signal)
    raw = scanned(center, signal, view, of_scanner)
    header = header_of(center, view, grid, of_scanner)
    return {"3DFLAIR": Scan(raw, header), "Consensus": Scan((depth > outline).astype(np.uint8), header)}


def _observe(
    person: Subject, center: PhantomCenter, grid: tuple[int, ...], ratio: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signal without lesions relative to white matter, depth in lesions [mm], their contrast; float32 (i, j, k)."""
    head = build_head(max(1, round(np.min(person.view / grid))))  # no finer than the grid can show
    tissues = {
        tissue: center.contrast[tissue] * np.exp(_TISSUE_SPREAD * rng.standard_normal()) for tissue in TISSUES[1:]
    }
    flair = head.flair({"white": 1.0, **tissues})
    lesions = grow_lesions(ratio * np.prod(person.view) * np.linalg.det(person.pose[:, :3]), rng)
    signal, brightness = np.empty(grid, np.float32), np.ones(grid, np.float32)
    depth = np.full(grid, FAR, np.float32)
    corner = np.reshape(BRAIN_ORIGIN, (3, 1, 1))
    for i, positions in enumerate(person.positions(grid)):
        in_head = (positions - head.origin[:, None, None]) / head.step
        ndimage.map_coordinates(flair, in_head, output=signal[i], order=1)
        in_brain = positions - corner
        ndimage.map_coordinates(lesions.depth, in_brain, output=depth[i], order=1, cval=FAR)
        near = depth[i] > FAR
        brightness[i][near] = ndimage.map_coordinates(lesions.contrast, in_brain[:, near], order=1)
    return signal, depth, brightness


_of_heads = partial(PhantomLayout, packages=("nilearn",), extra="study")  # which has the brain

_LAYOUTS = {
    "msseg": _of_heads(
        "{center}PHANTOM{number}", "lesion", make_head, save_as(MSSEG), groups=[center.name for center in CENTERS]
    ),
    "brats": _of_heads(
        "BraTS_{center}PHANTOM{number}", "tumour", make_tumour_case, save_as("{name}/{name}_{kind}.nii.gz")
    ),
    "decathlon": _of_heads("BRATS_{center}{number}", "tumour", make_tumour_case, save_decathlon, describe_decathlon),
    "chaos": PhantomLayout(
        "{center}{number}",
        "organs",
        make_abdomen_case,
        save_chaos,
        groups=("CT", "MR", "MR"),
        packages=("PIL", "pydicom"),
    ),
    "camus": PhantomLayout(
        "patient{center}0{number}",
        "heart",
        make_heart_case,
        save_camus,
        groups=("Good",) * len(CENTERS),
        packages=("SimpleITK",),
    ),
}
