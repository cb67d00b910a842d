"""The phantom's abdomens: a body of ellipsoids with liver, kidneys and spleen, in CT or three MR sequences."""

from collections.abc import Iterable

import numpy as np
from scipy import ndimage

from planar3d.scans.nifti_header import header_with
from planar3d.scans.phantom_scanner import PhantomCenter
from planar3d.scans.slice_folders import ORGANS
from planar3d.scans.volume import Scan

_CT = "01"  # the center with CT; the others have MR
_GRIDS = {"CT": ((512, 512, 80), (0.75, 0.75, 3.0)), "MR": ((320, 320, 36), (1.25, 1.25, 6.5))}  # voxels, mm
# Ellipsoids in mm left, posterior and superior of the body's center: centers and radii; later ones overwrite others.
_BODY = ((0, 0, 0), (170, 115, 400))
_PLACES = {
    "spleen": ((100, 35, 40), (28, 38, 50)),
    "liver": ((-65, -10, 25), (80, 70, 65)),
    "right kidney": ((-65, 60, -45), (26, 24, 48)),
    "left kidney": ((62, 58, -35), (26, 24, 48)),
}
_FAT = 0.9  # of the body's radius; beyond is fat
# Signals of muscle, fat, liver, kidneys and spleen: Hounsfield units, or typical MR values.
_SIGNALS = {
    "CT": (45, -100, 110, 190, 125),
    "InPhase": (260, 700, 330, 300, 270),
    "OutPhase": (240, 560, 300, 290, 260),
    "T2SPIR": (120, 60, 220, 520, 430),
}
_NOISE = {"CT": 12.0, "InPhase": 18.0, "OutPhase": 18.0, "T2SPIR": 22.0}
_SPREAD, _SHIFT = 0.05, 5.0  # of sizes between people, relative; of positions, mm


def make_abdomen_case(
    center: PhantomCenter, load: float, reduction: float, rng: np.random.Generator
) -> dict[str, Scan]:
    """Scan one person's abdomen, with CT at the first center and MR at the others.

    Returns:
        The series of a person by their folders, int16, and the organs last of each: `Ground`, uint8.
    """
    modality = "CT" if center.name == _CT else "MR"
    voxels, mm = _GRIDS[modality]
    divided_by = (reduction, reduction, reduction**0.5)  # slices are already thick
    grid = tuple(max(2, round(n / by)) for n, by in zip(voxels, divided_by, strict=True))
    spacing = np.multiply(voxels, mm) / grid
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(grid) - 1) / 2
    header = header_with(affine, grid)
    places = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * d for n, d in zip(grid, spacing, strict=True)]
    body = _reach(places, *_BODY)
    labels = np.zeros(grid, np.uint8)
    for organ, (middle, radii) in _PLACES.items():
        size = np.exp(_SPREAD * rng.standard_normal())
        moved = np.add(middle, _SHIFT * rng.standard_normal(3))
        labels[_reach(places, moved, np.multiply(radii, size)) < 1] = ORGANS[organ]
    labels[body > _FAT] = 0

    def image(kind: str) -> Scan:
        muscle, fat, liver, kidney, spleen = _SIGNALS[kind]
        signal = np.where(body < _FAT, float(muscle), float(fat))
        for organ, level in zip(ORGANS, (liver, kidney, kidney, spleen), strict=True):
            signal[labels == ORGANS[organ]] = level
        signal[body > 1] = -1000.0 if kind == "CT" else 0.0
        noisy = ndimage.gaussian_filter(signal, 0.5) + _NOISE[kind] * rng.standard_normal(grid)
        return Scan(np.rint(noisy if kind == "CT" else np.abs(noisy)).astype(np.int16), header)

    if modality == "CT":
        return {
            "DICOM_anon": image("CT"),
            "Ground": Scan(np.where(labels == ORGANS["liver"], np.uint8(255), np.uint8(0)), header),
        }
    organs = Scan(labels, header)
    return {
        "T1DUAL/DICOM_anon/InPhase": image("InPhase"),
        "T1DUAL/DICOM_anon/OutPhase": image("OutPhase"),
        "T1DUAL/Ground": organs,
        "T2SPIR/DICOM_anon": image("T2SPIR"),
        "T2SPIR/Ground": organs,
    }


def _reach(places: list[np.ndarray], middle: Iterable[float], radii: Iterable[float]) -> np.ndarray:
    """Distance from a center, (i, j, k), relative to the radii; positions in mm along each axis."""
    parts = [((place - m) / r) ** 2 for place, m, r in zip(places, middle, radii, strict=True)]
    return np.sqrt(parts[0][:, None, None] + parts[1][:, None] + parts[2])
