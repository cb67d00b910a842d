"""Crops of random places, numbered: a number always gives the same crop, so that a resumed training sees the same."""

from collections.abc import Sequence

import numpy as np

from planar3d.recipes import Recipe
from planar3d.scans.intensities import HEAD_LEVEL
from planar3d.scans.windows import at_least, network_input
from planar3d.training.augmentation import Placement, change_grey_levels
from planar3d.training.extraction import extracted_brain

# A crop that shows a lesion voxel has it in its middle two thirds.
_NEAR = 1 / 3
_EXTRACTED = 1 / 3  # of the crops, with the augmentation "extraction"


class CropSamples:
    """Batches of (network input, mask) of crops from prepared scans.

    Args:
        voxels: uint8 (slices, rows, cols), one a stack of slices that the network sees together.
        masks: uint8 {0, 1} of the same shapes.
        recipe: gives depth, crop, the share around lesions, augmentation, channels and seed.
    """

    def __init__(self, voxels: Sequence[np.ndarray], masks: Sequence[np.ndarray], recipe: Recipe) -> None:
        self.stacks = [
            tuple(at_least(volume, recipe.depth)[0] for volume in pair) for pair in zip(voxels, masks, strict=True)
        ]
        self.lesions = [np.argwhere(mask) for _, mask in self.stacks]
        self.brains = []
        if "extraction" in recipe.augmentation:
            self.brains = [extracted_brain(voxels, mask, recipe.pixel_mm) for voxels, mask in self.stacks]
        self.recipe = recipe

    def batch(self, numbers: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The crops of these numbers: float32 (crops, depth, rows, cols, channels), uint8 {0, 1} (…, 1)."""
        pairs = [self.crop(int(number)) for number in numbers]
        voxels, masks = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
        return network_input(voxels, self.recipe.channels), masks[..., None]

    def crop(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Grey levels float32 and mask uint8 {0, 1} of a crop, (depth, rows, cols)."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, number])
        chosen = int(rng.integers(len(self.stacks)))
        voxels, mask = self.stacks[chosen]
        if self.brains and rng.random() < _EXTRACTED:
            voxels = self.brains[chosen]
        first = int(rng.integers(len(voxels) - recipe.depth + 1))
        window = slice(first, first + recipe.depth)
        place = Placement.drawn(*self._middle(chosen, voxels[window], rng), recipe, rng)
        cut = place.cut(mask[window], recipe.crop) > 0.5
        return change_grey_levels(place.cut(voxels[window], recipe.crop), recipe, rng), cut.astype(np.uint8)

    def _middle(self, stack: int, window: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
        """Row and column of a crop's middle: near a lesion voxel, or anywhere in the head."""
        lesions = self.lesions[stack]
        if len(lesions) and rng.random() < self.recipe.lesion_share:
            _, row, col = lesions[rng.integers(len(lesions))]
            reach = self.recipe.crop * _NEAR
            return row + rng.uniform(-reach, reach), col + rng.uniform(-reach, reach)
        head = np.argwhere(window[len(window) // 2] > HEAD_LEVEL)
        row, col = head[rng.integers(len(head))] if len(head) else np.array(window.shape[1:]) // 2
        return float(row), float(col)
