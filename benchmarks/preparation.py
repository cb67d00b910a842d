"""Preparation of a scan: nibabel and scipy as the release used them, against the package.

    python benchmarks/preparation.py --data FOLDER

FOLDER holds data/ms_flair (default: PLANAR3D_TEST_DATA). Besides its scans, a volume of 261×336×336 voxels, the size at
the challenge's third center, is made from the first scan. Without a folder the embedded phantom is used.
"""

import gzip
import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import nibabel as nib
import numpy as np
import typer
from scipy import ndimage
from side_by_side import Measurement, conditions, measure, record, table

from planar3d.cli import main
from planar3d.inference.prepared_scan import prepare
from planar3d.recipes import PAPER
from planar3d.scans import nifti
from planar3d.scans.intensities import to_8_bit, to_16_bit_range
from planar3d.scans.layouts import find_cases
from planar3d.scans.phantom import write_phantom
from planar3d.scans.preparation import SagittalCube
from planar3d.scans.preparation.prepared import save_prepared
from planar3d.scans.resample import resample_by_matrices
from planar3d.scans.volume import read_mask, read_scan

LARGE = (261, 336, 336)
SIZE = PAPER.size
CPU = "processor seconds"
STAGES = ("read", "orient, 16 bit", "resample", "8 bit", "write")
Stages = dict[str, float]


def plain(path: Path, folder: Path) -> Callable[[], tuple[Stages, np.ndarray]]:
    """The release's way: nibabel reads, NumPy turns and scales whole volumes, scipy resamples."""

    clock = _Clock()

    def call() -> tuple[Stages, np.ndarray]:
        clock.begin()
        image = nib.Nifti1Image.from_filename(path)
        voxels = image.get_fdata(dtype=np.float32, caching="unchanged")
        clock.stop("read")
        raw = np.ascontiguousarray(SagittalCube().geometry(image.header).turned(voxels))
        raw = (65535 * (raw - raw.min()) / (raw.max() - raw.min())).astype(np.float32, copy=False)
        clock.stop("orient, 16 bit")
        cube = _zoom(raw, (SIZE,) * 3, PAPER.spline_order)
        clock.stop("resample")
        cube = (65535 * (cube - cube.min()) / (cube.max() - cube.min())).astype(np.float32, copy=False)
        eight_bit = np.floor(cube / 256).astype(np.uint8)
        clock.stop("8 bit")
        np.save(folder / "plain.npy", eight_bit)
        clock.stop("write")
        return clock.medians(), eight_bit

    return call


def package(path: Path, folder: Path, gunzip: str) -> Callable[[], tuple[Stages, np.ndarray]]:
    """The package, unpacking with isal, or with zlib as if isal were not installed."""
    if gunzip == "zlib":
        nifti.GzipFile = gzip.GzipFile

    clock = _Clock()

    def call() -> tuple[Stages, np.ndarray]:
        clock.begin()
        scan = read_scan(path)
        clock.stop("read")
        # The steps of `prepare`, one by one.
        geometry = SagittalCube().geometry(scan.header)
        raw = to_16_bit_range(geometry.turned(scan.voxels), *scan.limits)
        clock.stop("orient, 16 bit")
        cube = resample_by_matrices(raw, (SIZE,) * 3, PAPER.spline_order)
        clock.stop("resample")
        eight_bit = to_8_bit(cube)
        clock.stop("8 bit")
        np.save(folder / "package.npy", eight_bit)
        clock.stop("write")
        return clock.medians(), eight_bit

    return call


def whole(path: Path, folder: Path) -> Callable[[], np.ndarray]:
    """The package by its public functions, file to file."""

    def call() -> np.ndarray:
        prepared = prepare(read_scan(path), PAPER)
        save_prepared(folder / "prepared", prepared, None)
        return prepared.voxels[..., 0]

    return call


def run(
    data: Annotated[Path | None, typer.Option(envvar="PLANAR3D_TEST_DATA", help="Holds data/ms_flair.")] = None,
    calls: Annotated[int, typer.Option(help="Calls of each contestant; the first is not counted.")] = 6,
    scans: Annotated[int, typer.Option(help="Number of real scans, besides the large volume.")] = 9,
) -> None:
    """Measure, compare and record."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if data is None:
            write_phantom(folder / "phantom", reduction=2)
        cases = find_cases(data / "data" / "ms_flair" if data else folder / "phantom").cases
        large, large_mask = _large_volume(cases[0].images["flair"], cases[0].label_map, folder)
        unpackers = ["zlib", *(["isal"] if importlib.util.find_spec("isal") else [])]
        before = measure(plain, large, folder, calls=calls)
        after = {u: measure(package, large, folder, u, calls=calls) for u in unpackers}
        public = measure(whole, large, folder, calls=calls)
        best = after[unpackers[-1]]
        rows = []
        for title, scan, mask in [
            ("large volume", large, large_mask),
            *((c.id, c.images["flair"], c.label_map) for c in cases),
        ][: scans + 1]:
            slow = before if scan == large else measure(plain, scan, folder, calls=3)
            fast = best if scan == large else measure(package, scan, folder, unpackers[-1], calls=3)
            rows.append(_compared(title, scan, mask, slow, fast))
    text = [
        f"A gzipped int16 volume of {'×'.join(map(str, LARGE))} voxels, derived from {cases[0].id}, to {SIZE}³ at "
        f"spline order {PAPER.spline_order}, in seconds (median of {calls - 1} calls after the first).",
        _stage_table(before, after),
        f"The package's public functions, file to file: {public.seconds:.2f} s, {before.seconds / public.seconds:.1f}× "
        f"(its first call in a new process: {public.first:.2f} s), peak memory {public.peak_gib:.2f} GiB.",
        "Cubes in both ways, and masks to the cube and back compared with `scipy.ndimage.zoom` at order 0:",
        table(
            ["scan", "voxels", "scipy s", "package s", "ratio", "largest difference", "voxels that differ", "masks"],
            rows,
        ),
        conditions(f"unpacked by {' and '.join(unpackers)}"),
    ]
    record("Preparation of a scan", "\n\n".join(text))


class _Clock:
    """Seconds of each stage, and processor seconds of all, call by call."""

    def __init__(self) -> None:
        self.calls: list[Stages] = []

    def begin(self) -> None:
        self.calls.append({})
        self._cpu, self._began = time.process_time(), time.perf_counter()

    def stop(self, stage: str) -> None:
        now = time.perf_counter()
        self.calls[-1][stage], self._began = now - self._began, now
        self.calls[-1][CPU] = time.process_time() - self._cpu

    def medians(self) -> Stages:
        """Over the calls after the first."""
        later = self.calls[1:] or self.calls
        return {stage: float(np.median([call[stage] for call in later])) for stage in later[0]}


def _large_volume(scan_path: Path, mask_path: Path, folder: Path) -> tuple[Path, Path]:
    """A scan and its mask on 261×336×336 voxels, with noise, because smooth voxels compress too well."""
    scan = read_scan(scan_path)
    voxels = _zoom(scan.voxels, LARGE, 1)
    corner = scan.voxels[:16, :16]
    voxels += np.random.default_rng(0).normal(0, corner.std(), LARGE).astype(np.float32)
    affine = scan.affine @ np.diag([*(o / n for o, n in zip(scan.voxels.shape, LARGE, strict=True)), 1])
    header = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), affine).header
    header.set_data_shape(LARGE)
    mask = _zoom(read_mask(mask_path, scan).voxels, LARGE, 0)
    paths = folder / "large.nii.gz", folder / "large_mask.nii.gz"
    for path, array in zip(paths, (np.rint(voxels).astype(np.int16), mask), strict=True):
        nib.save(nib.Nifti1Image(array, affine, header, dtype=array.dtype), path)
    return paths


def _compared(title: str, scan_path: Path, mask_path: Path, slow: Measurement, fast: Measurement) -> list[str]:
    difference = np.abs(slow.value[1].astype(np.int16) - fast.value[1])
    scan = read_scan(scan_path)
    return [
        title,
        "×".join(map(str, scan.voxels.shape)),
        f"{slow.seconds:.2f}",
        f"{fast.seconds:.2f}",
        f"{slow.seconds / fast.seconds:.1f}×",
        f"{difference.max()} grey level{'s' if difference.max() != 1 else ''}",
        f"{1e4 * np.count_nonzero(difference) / difference.size:.3f} of 10,000",
        "identical" if _masks_agree(scan, mask_path) else "DIFFERENT",
    ]


def _masks_agree(scan: Any, mask_path: Path) -> bool:
    """Whether a mask to the cube and back equals scipy's result."""
    mask, prepared = read_mask(mask_path, scan), prepare(scan, PAPER)
    geometry = prepared.geometry
    there = prepared.align(mask)
    sagittal = geometry.turned(mask.voxels)
    if not np.array_equal(there, _zoom(sagittal, there.shape, 0)):
        return False
    back = _zoom(there, geometry.native, 0)
    restored = geometry.turned(prepared.restore(there).voxels)
    return np.array_equal(restored, back)


def _zoom(volume: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    return ndimage.zoom(volume, [new / old for new, old in zip(shape, volume.shape, strict=True)], order=order)


def _stage_table(before: Measurement, after: dict[str, Measurement]) -> str:
    headings = ["stage", "nibabel, scipy", *(f"package, {name}" for name in after), "ratio"]
    last = list(after.values())[-1]
    rows = []
    for stage in STAGES:
        seconds = [m.value[0][stage] for m in (before, *after.values())]
        rows.append([stage, *(f"{s:.3f}" for s in seconds), f"{seconds[0] / seconds[-1]:.1f}×"])
    processor = [m.value[0][CPU] for m in (before, *after.values())]
    totals = [m.seconds for m in (before, *after.values())]
    rows.append(["all", *(f"{s:.2f}" for s in totals), f"{totals[0] / totals[-1]:.1f}×"])
    rows.append(
        ["first call", *(f"{m.first:.2f}" for m in (before, *after.values())), f"{before.first / last.first:.1f}×"]
    )
    rows.append([CPU, *(f"{s:.2f}" for s in processor), f"{processor[0] / processor[-1]:.1f}×"])
    peaks = [m.peak_gib for m in (before, *after.values())]
    rows.append(["peak memory, GiB", *(f"{p:.2f}" for p in peaks), f"{peaks[0] / peaks[-1]:.1f}×"])
    return table(headings, rows)


if __name__ == "__main__":
    main(run)
