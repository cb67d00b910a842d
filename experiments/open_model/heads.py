"""Training stacks of slices from real scans and generated heads, as files for several trainings.

The processes of `work` first prepare the real scans and the test heads, then generate training heads, and finally score
the results of the trainings. Files are written atomically, so that listed files are complete.
"""

import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from packed import Packed, read_anatomies, read_packed
from scoring import score_what_was_found, told

from planar3d.inference.prepared_scan import prepare
from planar3d.recipes import MODERN, Recipe
from planar3d.scans.preparation.prepared import save_prepared
from planar3d.scans.volume import Scan
from planar3d.training.augmentation import extracted_brain
from planar3d.training.synthesis import GeneratedHead, HeadGenerator, LesionShapes

SLABS = (
    6.5,
    3.25,
)  # mm, of the recipe's field `slice_mm`: slabs of thin slices as version 1 has them, and half as thick
THIN = 3.5  # mm between slices: scans with closer slices allow either
HALF_SLABS = 0.3  # of the generated heads with thin slices
STACKS_OF_A_HEAD = 3  # kept per head with thin slices
TEST_SEED = 10**6
TEST_HEADS = 40  # generated; heads without or with few lesions are kept
TEST_LOADS_ML = (0.6, 3.0)  # drawn; the visible volume is smaller
FEW_ML = (0.5, 2.0)
GENERATED = "generated"


@dataclass(frozen=True)
class Times:
    """When the parts of a run end, in seconds of `time.time()`."""

    pool: float
    training: float
    end: float


def work(number: int, processes: int, generating: int, data: Path, folder: Path, times: Times) -> None:
    """The whole task of one process.

    Args:
        number: of this process; it determines its scans and seeds.
        processes: number of processes.
        generating: number of processes that generate heads during training; the others leave the processor free.
        data: as written by `packed.py`.
        folder: of the stacks.
        times: of the run.
    """
    os.nice(5)
    for path in sorted(data.glob("scan-*.xz"))[number::processes]:
        write_scan(folder, read_packed(path))
    shapes = LesionShapes.load(data / "shapes.npz")
    generator = HeadGenerator(read_anatomies(data, "train"), shapes)
    for seed in itertools.count(number, processes):
        if time.time() > (times.training if number < generating else times.pool):
            break
        with told():
            write_head(folder, generator.generate(seed), seed)
    if number >= generating:
        generator = HeadGenerator(read_anatomies(data, "test"), shapes, without_lesions=0.5, loads_ml=TEST_LOADS_ML)
        for seed in range(number - generating, TEST_HEADS, processes - generating):
            with told():
                write_test_head(folder, f"head-{seed:03d}", generator.generate(TEST_SEED + seed))
    score_what_was_found(folder, times.end)


def write_scan(folder: Path, packed: Packed) -> None:
    """Prepare a real scan for testing, and its training stacks, unchanged and with the brain extracted."""
    for slab in SLABS if max(packed.scan.spacing) < THIN else SLABS[:1]:
        write_tested(folder, packed.name, packed.source, packed.scan, packed.lesions, slab)
        for number, (voxels, lesions) in enumerate(stacks_of(packed.scan, packed.lesions, slab)):
            write_stack(folder / packed.source / f"{packed.name}-{slab:g}-{number}.npy", voxels, lesions)
            if packed.source.startswith("home"):
                brain = extracted_brain(voxels, lesions, MODERN.preparation.pixel_mm)  # type: ignore[attr-defined]
                write_stack(folder / f"{packed.source}-extracted" / f"{packed.name}.npy", brain, lesions)


def write_test_head(folder: Path, name: str, head: GeneratedHead) -> None:
    """Prepare a generated head for testing, if it has no or few lesions."""
    if head.load_ml == 0 or FEW_ML[0] <= head.load_ml <= FEW_ML[1]:
        for slab in SLABS if max(head.scan.spacing) < THIN else SLABS[:1]:
            write_tested(folder, name, "few-lesions" if head.load_ml else "no-lesions", head.scan, head.mask, slab)


def write_head(folder: Path, head: GeneratedHead, seed: int) -> None:
    """Write some training stacks of a generated head."""
    rng = np.random.default_rng([seed, 1])
    stacks = stacks_of(head.scan, head.mask, SLABS[int(rng.random() < HALF_SLABS)])
    for number in rng.permutation(len(stacks))[:STACKS_OF_A_HEAD]:
        write_stack(folder / GENERATED / f"{seed:06d}-{number}.npy", *stacks[number])


def stacks_of(scan: Scan, lesions: Scan, slab: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """The stacks of slices for the network, and their masks, uint8 (slices, rows, cols)."""
    recipe = with_slabs(slab)
    prepared = prepare(scan, recipe)
    marked = prepared.align(lesions)
    return [(prepared.voxels[of][..., 0], marked[of]) for of in recipe.preparation.stacks(prepared, recipe.tiles.depth)]


def with_slabs(slab: float, recipe: Recipe = MODERN) -> Recipe:
    """The recipe with slabs of a thickness."""
    return recipe.changed(slice_mm=slab)


def write_stack(path: Path, voxels: np.ndarray, lesions: np.ndarray) -> None:
    """Write uint8 (2, slices, rows, cols): grey levels, mask."""
    write_array(path, np.stack([voxels, (lesions > 0).astype(np.uint8)]))


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    with beside.open("wb") as file:
        np.save(file, array)
    beside.rename(path)


def write_tested(folder: Path, name: str, source: str, scan: Scan, lesions: Scan, slab: float) -> None:
    """Write a prepared scan and its native mask for testing, tested/<source>/<name>@<slab>/."""
    place = folder / "tested" / source / f"{name}@{slab:g}"
    place.mkdir(parents=True, exist_ok=True)
    np.save(place / "reference.npy", lesions.voxels > 0)
    save_prepared(place, prepare(scan, with_slabs(slab)), None)
