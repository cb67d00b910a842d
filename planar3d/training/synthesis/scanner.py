"""The scan of a head: pose, voxels, noise and bias; and brain extraction."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.spatial.transform import Rotation
from scipy.special import ndtr

from planar3d.scans.phantom_fields import between_nodes, smooth_noise, spread
from planar3d.training.synthesis.anatomy import BRAIN, Anatomy, tissue

_NODE, _DEFORMATION = 16.0, 2.2  # mm: between the nodes of the displacement, and its standard deviation
_SCALE, _TURN = 0.07, (6.0, 3.0, 3.0)  # standard deviations: of sizes; of nodding, leaning and turning in degrees
_BIAS_NODE, _EDGE = 45.0, 0.45  # mm; standard deviation in mm of the ends of a voxel's profile
_NEGLIGIBLE = 1e-4  # of a weight


@dataclass(frozen=True)
class Pose:
    """The pose of a head in a field of view, and its deformation."""

    grid: tuple[int, ...]  # voxels of 1 mm of the field of view, (left, posterior, superior)
    matrix: np.ndarray  # 3×3, from the view to the anatomy's voxels
    center: np.ndarray  # the anatomy's voxel at the center of the view
    displacement: np.ndarray  # (3, i, j, k) displacement in voxels of the anatomy, on nodes spread over the view

    @classmethod
    def drawn(cls, anatomy: Anatomy, extracted: bool, rng: np.random.Generator) -> "Pose":
        """Draw the pose of the head; the view contains the brain, and the parts of a whole head beside it."""
        scale = np.exp(_SCALE * rng.standard_normal() + 0.4 * _SCALE * rng.standard_normal(3))
        turn = anatomy.upright @ Rotation.from_euler("xyz", rng.normal(0, _TURN), degrees=True).as_matrix()
        matrix = turn * np.array([rng.choice((-1.0, 1.0)), -1, 1]) / scale
        low, high = (np.array([getattr(part, end) for part in anatomy.brain], float) for end in ("start", "stop"))
        if not extracted:
            low[:2], high[:2] = 0, anatomy.labels.shape[:2]
        half = np.sqrt(np.linalg.inv(matrix) ** 2 @ ((high - low) / 2) ** 2)  # of a rotated ellipsoid
        before, after = rng.uniform((2, 2, 0), (16, 16, 12), (2, 3))  # mm beside, below and above
        grid = tuple(np.ceil(2 * half + before + after).astype(int).tolist())
        center = (low + high - 1) / 2 + matrix @ (after - before) / 2
        nodes = [round(n / _NODE) + 2 for n in grid]
        displacement = _DEFORMATION * np.stack([smooth_noise(rng, nodes, 1.0) for _ in range(3)])
        return cls(grid, matrix, center, displacement)

    def sampled(self, *volumes: np.ndarray) -> list[np.ndarray]:
        """Volumes of the anatomy in the field of view, by the nearest voxel; zero beyond."""
        padded = [np.pad(volume, 1) for volume in volumes]
        shape, (_, rows, cols) = padded[0].shape, self.grid
        taken = [np.empty(self.grid, volume.dtype) for volume in volumes]
        i, j, k = (np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in self.grid)
        matrix = self.matrix.astype(np.float32)
        in_plane = matrix[:, 1, None, None] * j[:, None] + matrix[:, 2, None, None] * k
        in_plane += (self.center + 1.5).astype(np.float32)[:, None, None]  # 1 of the padding, 0.5 to round
        planes = spread(self.displacement, (rows, cols))
        for plane, (here, left, share) in enumerate(zip(i, *between_nodes(planes.shape[1], self.grid[0]), strict=True)):
            flat = np.zeros((rows, cols), np.int32)
            for axis, length in enumerate(shape):
                at = planes[axis, left] * (1 - share)
                at += planes[axis, left + 1] * share
                at += in_plane[axis]
                at += matrix[axis, 0] * here
                np.clip(at, 0, length - 1, out=at)
                flat *= length
                flat += at.astype(np.int32)
            for volume, target in zip(padded, taken, strict=True):
                np.take(volume.ravel(), flat, out=target[plane], mode="clip")
        return taken


@dataclass(frozen=True)
class Acquisition:
    """The voxels of a scan, and the extent that each averages."""

    spacing: np.ndarray  # mm between voxels along (left, posterior, superior)
    acquired: np.ndarray  # mm between measured voxels, from which the scan is interpolated
    width: np.ndarray  # mm averaged by a measured voxel

    @classmethod
    def drawn(cls, shares: Sequence[float], coarser: float, rng: np.random.Generator) -> "Acquisition":
        """Draw, with these shares, thick axial slices, isotropic voxels, or slices interpolated to 1 mm."""
        kind = rng.choice(3, p=shares)
        if kind == 0:
            pixel, distance = rng.uniform(0.4, 1.2), rng.uniform(3.0, 8.0)
            spacing = acquired = np.array([pixel, pixel, distance])
            width = np.array([max(pixel, rng.uniform(0.7, 1.2))] * 2 + [distance * rng.uniform(0.8, 1.0)])
        elif kind == 1:
            spacing = acquired = np.full(3, rng.uniform(0.85, 1.3))
            width = spacing * rng.uniform(1.0, 1.3)
        else:
            spacing, acquired = np.ones(3), np.full(3, 1.0)
            acquired[rng.choice(3, p=(0.25, 0.15, 0.6))] = rng.uniform(1.5, 4.5)
            width = np.maximum(acquired, rng.uniform(0.9, 1.4))
        return cls(coarser * spacing, coarser * acquired, coarser * width)

    def weights(self, lengths: Sequence[int], blur: float = 0.0) -> list[sparse.csr_array]:
        """For each axis, the weights of the view's 1 mm voxels in the scan's voxels, float32 (scan, view).

        Args:
            lengths: voxels of the view.
            blur: standard deviation in mm of additional smoothing.
        """
        matrices = []
        for axis, length in enumerate(lengths):
            measured = _centers(length, self.acquired[axis])
            apart = measured[:, None] - np.arange(length)
            half, edge = self.width[axis] / 2, np.hypot(_EDGE, blur)
            matrix = _normalized(ndtr((apart + half) / edge) - ndtr((apart - half) / edge))
            if self.spacing[axis] != self.acquired[axis]:
                steps = np.abs(_centers(length, self.spacing[axis])[:, None] - measured) / self.acquired[axis]
                matrix = _normalized(np.maximum(1 - steps, 1e-6)) @ matrix
            matrix[matrix < _NEGLIGIBLE] = 0
            matrices.append(sparse.csr_array(matrix, dtype=np.float32))
        return matrices


def _centers(length: int, step: float) -> np.ndarray:
    count = max(1, int(length / step))
    return (np.arange(count) - (count - 1) / 2) * step + (length - 1) / 2


def _normalized(matrix: np.ndarray) -> np.ndarray:
    return matrix / matrix.sum(axis=1, keepdims=True)


def averaged(volume: np.ndarray, matrices: Sequence[sparse.csr_array]) -> np.ndarray:
    """A volume in the scan's voxels; the axis that shrinks most is first.

    Sparse products run in one thread, and give the same on every machine.
    """
    for axis in sorted(range(3), key=lambda axis: matrices[axis].shape[0] / matrices[axis].shape[1]):
        first = np.moveaxis(volume, axis, 0)
        product = matrices[axis] @ first.reshape(len(first), -1)
        volume = np.moveaxis(product.reshape(-1, *first.shape[1:]), 0, axis)
    return np.ascontiguousarray(volume)


# Brain extractions: the kept tissues, mm of smoothing, and the share from which voxels are kept.
_WITH_FLUID = BRAIN | tissue("fluid", "vessel")
CUTS: dict[str, tuple[np.ndarray, float, float]] = {
    "tissue": (BRAIN, 0.7, 0.5),
    "tight": (BRAIN, 2.0, 0.5),
    "eroded": (BRAIN, 2.0, 0.75),
    "with fluid": (_WITH_FLUID, 1.5, 0.5),
    "loose": (_WITH_FLUID, 3.0, 0.25),
    "remnants": (BRAIN, 1.5, 0.4),
}
_REMNANT_NODE, _REMNANTS = 9.0, (1.2, 2.4)  # mm; standard deviations above which skull remains
_REMNANT_BLUR, _REMNANT_SHARE = 4.0, 0.15  # distance from the brain, as for a cut


def kept_of(labels: np.ndarray, acquisition: Acquisition, cut: str, rng: np.random.Generator) -> np.ndarray:
    """The voxels of a scan kept by a cut, bool."""
    tissues, blur, least = CUTS[cut]
    matrices = acquisition.weights(labels.shape, blur)
    shape = [matrix.shape[0] for matrix in matrices]
    nodes = [round(n / _REMNANT_NODE) + 2 for n in labels.shape]
    uneven = spread(smooth_noise(rng, nodes, 0.8), shape)
    share = averaged(tissues[labels].astype(np.float32), matrices)
    kept = share > least + 0.08 * uneven
    if cut == "remnants":
        near = averaged(_WITH_FLUID[labels].astype(np.float32), acquisition.weights(labels.shape, _REMNANT_BLUR))
        kept |= (near > _REMNANT_SHARE) & (uneven > rng.uniform(*_REMNANTS))
    return kept


def bias(view: Sequence[int], shape: Sequence[int], strength: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the coil's sensitivity, float32; `strength` is the standard deviation of its logarithm."""
    nodes = [round(n / _BIAS_NODE) + 2 for n in view]
    return np.exp(spread(np.float32(strength) * smooth_noise(rng, nodes, 0.7), shape))


def with_noise(signal: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """The magnitude of a signal with complex noise, float32 (Rician)."""
    real = rng.standard_normal(signal.shape, np.float32)
    imaginary = rng.standard_normal(signal.shape, np.float32)
    real *= np.float32(deviation)
    imaginary *= np.float32(deviation)
    real += signal
    return np.hypot(real, imaginary, out=real)
