"""Generator of synthetic heads: an anatomy, real lesion shapes, a contrast and a scanner, all drawn at random."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from planar3d.scans.nifti_header import header_with
from planar3d.scans.phantom_fields import smooth_noise, spread
from planar3d.scans.phantom_layouts import MSSEG, PhantomLayout, save_as
from planar3d.scans.phantom_scanner import PhantomCenter
from planar3d.scans.volume import Scan
from planar3d.training.synthesis.anatomy import Anatomy
from planar3d.training.synthesis.contrast import Contrast
from planar3d.training.synthesis.lesions import LesionShapes, place_lesions
from planar3d.training.synthesis.scanner import CUTS, Acquisition, Pose, averaged, bias, kept_of, with_noise

_CUT_SHARES = (0.25, 0.2, 0.1, 0.2, 0.1, 0.15)  # of `CUTS`
_GAIN = (0.2, 1.0)  # of lesions, relative to white matter
_FAINT, _FAINT_GAIN = 0.25, (0.14, 0.3)  # of the heads
_NOISE = (0.008, 0.08)  # standard deviation, of white matter
_CORRECTED, _BIAS = 0.4, (0.03, 0.25)  # share of heads without bias; else the standard deviation of its logarithm
_TEXTURE, _MOTTLE_NODE = (0.01, 0.04), 9.0  # between voxels of a tissue; mm of smooth variation
_WHITE = (60.0, 4000.0)  # raw value of white matter
_LEAST_CONTRAST = 0.08  # of a visible lesion to the surrounding tissue, relative to white matter
_SUPPORT = 0.03  # share of a voxel from which it counts as part of a lesion


@dataclass(frozen=True)
class GeneratedHead:
    """A synthetic scan."""

    image: np.ndarray  # raw values, float32 whole numbers (left, posterior, superior); zero around an extracted brain
    affine: np.ndarray  # 4×4, to mm (right, anterior, superior)
    lesions: np.ndarray  # uint8 {0, 1} on the same grid
    drawn: dict[str, Any]  # drawn values, for records

    @property
    def scan(self) -> Scan:
        """The image."""
        return Scan(self.image, header_with(self.affine, self.image.shape))

    @property
    def mask(self) -> Scan:
        """The lesions."""
        return Scan(self.lesions, header_with(self.affine, self.image.shape))

    @property
    def load_ml(self) -> float:
        """Volume of the lesions."""
        return float(np.count_nonzero(self.lesions) * self.mask.voxel_mm3 / 1000)


@dataclass(frozen=True)
class HeadGenerator:
    """A generator of heads."""

    anatomies: Sequence[Anatomy]  # heads; each scan has one, deformed
    shapes: LesionShapes | None = None  # lesions of patients; default: no lesions
    without_lesions: float = 1 / 3  # share of heads without lesions
    # Range of the lesion volume, log-uniform; the visible volume is smaller.
    loads_ml: tuple[float, float] = (0.3, 150.0)
    extracted: float = 0.5  # share of heads that show only the brain
    least_mm3: float = 10.0  # smallest volume of a visible lesion
    # Shares of scans with thick axial slices, with isotropic voxels, and with slices interpolated to 1 mm.
    acquisitions: tuple[float, float, float] = (0.5, 0.3, 0.2)
    coarser: float = 1.0  # multiplies the size of all voxels

    def generate(self, seed: int) -> GeneratedHead:
        """The head with this number, the same in every process.

        Source: labels to signals to slices as in SynthSeg (Billot et al. 2023), only with contrasts of FLAIR.
        """
        of_head, of_lesions, of_pose, of_contrast, of_scanner = np.random.default_rng(seed).spawn(5)
        anatomy = self.anatomies[int(of_head.integers(len(self.anatomies)))]
        extracted = bool(of_head.random() < self.extracted)
        contrast, pose = Contrast.drawn(of_contrast), Pose.drawn(anatomy, extracted, of_pose)
        acquisition = Acquisition.drawn(self.acquisitions, self.coarser, of_scanner)
        drawn: dict[str, Any] = {
            "seed": seed,
            "anatomy": anatomy.name,
            "spacing": acquisition.spacing.round(3).tolist(),
            "acquired": acquisition.acquired.round(3).tolist(),
            "cortex": contrast.of("cortex"),
            "fluid": contrast.of("fluid"),
            "wanted_ml": 0.0,
            "noise": float(np.exp(of_scanner.uniform(*np.log(_NOISE)))),
            "bias": 0.0 if of_scanner.random() < _CORRECTED else float(of_scanner.uniform(*_BIAS)),
            "cut": str(of_scanner.choice(list(CUTS), p=_CUT_SHARES)) if extracted else "none",
        }

        box, added = contrast.around_ventricles(anatomy)
        around = np.zeros(anatomy.labels.shape, np.float32)
        around[box] = added
        volumes = [anatomy.labels, around]
        if self.shapes and of_lesions.random() >= self.without_lesions:
            drawn["wanted_ml"] = float(np.exp(of_lesions.uniform(*np.log(self.loads_ml))))
            faint = of_lesions.random() < _FAINT
            drawn["gain"] = float(of_lesions.uniform(*(_FAINT_GAIN if faint else _GAIN)))
            stretched = 1 / abs(np.linalg.det(pose.matrix))
            wanted = 1000 * drawn["wanted_ml"] / stretched
            volumes += place_lesions(anatomy, self.shapes, wanted, drawn["gain"], of_lesions)
        labels, around, *lesions = pose.sampled(*volumes)

        signal = _signal(labels, around, contrast, of_scanner)
        matrices = acquisition.weights(labels.shape)
        image = averaged(signal, matrices)
        mask = np.zeros(image.shape, bool)
        if lesions:
            share, level = lesions
            excess = averaged(share * np.maximum(level - signal, 0), matrices)
            mask, excess = self._seen(averaged(share, matrices), excess, drawn["noise"], acquisition.spacing)
            image += excess
        image = with_noise(image, drawn["noise"], of_scanner)
        if drawn["bias"]:
            image *= bias(pose.grid, image.shape, drawn["bias"], of_scanner)
        image *= np.float32(np.exp(of_scanner.uniform(*np.log(_WHITE))))
        image = np.maximum(np.rint(image), 1)
        if extracted:
            kept = kept_of(labels, acquisition, drawn["cut"], of_scanner)
            image *= kept
            mask &= kept
        affine = np.diag([*acquisition.spacing * [-1, -1, 1], 1.0])
        affine[:3, 3] = of_scanner.normal(0, 8, 3) - affine[:3, :3] @ (np.array(image.shape) - 1) / 2
        head = GeneratedHead(image, affine, mask.astype(np.uint8), drawn)
        drawn["load_ml"] = head.load_ml
        return head

    def _seen(
        self, share: np.ndarray, excess: np.ndarray, noise: float, spacing: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The mask of visible lesions, and their added signal; others are removed.

        A lesion is visible if it has the size and brightness of the settings, and four times the noise of the mean of
        its voxels.
        """
        mask = share > 0.5
        found, count = ndimage.label(share > _SUPPORT)
        own = found[mask]
        voxels = np.bincount(own, minlength=count + 1)
        mean = np.bincount(own, excess[mask], count + 1) / np.maximum(voxels, 1)
        seen = (voxels * np.prod(spacing) >= self.least_mm3) & (mean >= _LEAST_CONTRAST)
        seen &= mean * np.sqrt(voxels) >= 4 * noise
        kept = seen[found]
        mask &= kept
        pieces, count = ndimage.label(mask)
        large = np.bincount(pieces.ravel(), minlength=count + 1) * np.prod(spacing) >= self.least_mm3
        large[0] = False
        return large[pieces], excess * kept


def _signal(labels: np.ndarray, around: np.ndarray, contrast: Contrast, rng: np.random.Generator) -> np.ndarray:
    """Signal without lesions, float32: tissue, smooth variation, and texture."""
    mottle = spread(smooth_noise(rng, [round(n / _MOTTLE_NODE) + 2 for n in labels.shape], 0.7), labels.shape)
    mottle *= contrast.spreads[labels]
    signal = contrast.signals[labels]
    signal += mottle
    signal += around
    texture = rng.standard_normal(labels.shape, np.float32)
    texture *= np.float32(rng.uniform(*_TEXTURE))
    texture += 1
    signal *= texture
    return np.maximum(signal, 0, out=signal)


def phantom_of(generator: HeadGenerator) -> PhantomLayout:
    """A generator's heads as a layout for `write_phantom`: that of MSSEG 2016."""

    def make(center: PhantomCenter, load: float, reduction: float, rng: np.random.Generator) -> dict[str, Scan]:
        head = replace(generator, coarser=reduction).generate(int(rng.integers(2**32)))
        return {
            "3DFLAIR": Scan(np.minimum(head.image, 32767).astype(np.int16), head.scan.header),
            "Consensus": head.mask,
        }

    source = {
        "anatomies": ", ".join(anatomy.name for anatomy in generator.anatomies),
        "lesion_shapes": len(generator.shapes.volumes) if generator.shapes else 0,
    }
    return PhantomLayout("{center}PHANTOM{number}", "lesion", make, save_as(MSSEG), source=source)
