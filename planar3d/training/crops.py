"""Numbered crops at random positions: a number always gives the same crop, so that resumed training is exact."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from planar3d.errors import RecipeError
from planar3d.scans.intensities import HEAD_LEVEL
from planar3d.scans.labels import Targets
from planar3d.scans.preparation import AxialSlices, Preparation
from planar3d.scans.preparation.eight_bit import EightBit
from planar3d.scans.preparation.prepared import Prepared
from planar3d.scans.tiles import Lengths, Tiles
from planar3d.scans.windows import at_least
from planar3d.sections import MULTIPLE_OF_16, POSITIVE, SHARE, plausible
from planar3d.training.augmentation import Placement, Transform, change_grey_levels, extracted_brain
from planar3d.training.samples import NEAR, DrawnSampling

if TYPE_CHECKING:
    from planar3d.recipes import Recipe

_EXTRACTED = 1 / 3  # of the crops, with the augmentation "extraction"


@dataclass(frozen=True)
class CropSampling(DrawnSampling):
    """Crops at random positions, for any number of scans; all scans are used for training."""

    name = "crops"

    crop: Annotated[int, MULTIPLE_OF_16, plausible(16, 1024)] = 128  # rows and columns of crops
    crops_per_epoch: Annotated[int, POSITIVE] = 100  # whatever the number of scans
    lesion_share: Annotated[float, SHARE] = 0.6  # share around a lesion's row and column; others are in the head
    augmentation: tuple[Transform, ...] = ()  # see training/augmentation.py

    def split(self, train: int, validation: int, slices: int, tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(self.crops_per_epoch), np.arange(0)

    @property
    def shows_brains(self) -> bool:  # type: ignore[override]
        return "extraction" in self.augmentation

    def check_with(self, preparation: Preparation, targets: Targets) -> None:
        """Refuse images with channels, and labels that rotation and scaling would mix."""
        if not isinstance(preparation, EightBit) or targets.channels != ((1,),):
            raise RecipeError(
                f"training.samples='crops' needs one 8-bit image and its mask of {{0, 1}}, but this recipe has "
                f"preparation={preparation.name!r} and targets={targets.name!r}; for several images and labels, set "
                "training.samples='patches'."
            )
        if self.shows_brains and not (isinstance(preparation, AxialSlices) and preparation.levels.tell_air):
            others = ",".join(name for name in self.augmentation if name != "extraction")
            raise RecipeError(
                "the augmentation 'extraction' finds brains by the distances and grey levels of "
                "preparation='axial-slices' with grey_levels='median'. Use these, or omit it: "
                f"--set augmentation={others}."
            )

    def shape(self, tiles: Tiles, preparation: Preparation) -> Lengths:
        return tiles.depth, self.crop, self.crop

    def samples(self, scans: Sequence[tuple[Prepared, np.ndarray]], recipe: "Recipe") -> "CropSamples":
        stacks = [
            (prepared.voxels[stack], labels[stack])
            for prepared, labels in scans
            for stack in recipe.preparation.stacks(prepared, recipe.tiles.depth)
        ]
        return CropSamples([voxels for voxels, _ in stacks], [labels for _, labels in stacks], recipe)


class CropSamples:
    """Batches of (network input, mask) of crops from prepared scans.

    Args:
        voxels: uint8 (slices, rows, cols, 1), one per stack of slices.
        masks: uint8 {0, 1} (slices, rows, cols) of the same grids.
    """

    def __init__(self, voxels: Sequence[np.ndarray], masks: Sequence[np.ndarray], recipe: "Recipe") -> None:
        self.sampling: CropSampling = recipe.training.samples  # type: ignore[assignment]
        self.recipe, self.depth = recipe, recipe.tiles.depth
        self.stacks = [
            (at_least(volume[..., 0], self.depth)[0], at_least(mask, self.depth)[0])
            for volume, mask in zip(voxels, masks, strict=True)
        ]
        self.lesions = [np.argwhere(mask) for _, mask in self.stacks]
        extracted = self.stacks if self.sampling.shows_brains else ()
        self.brains = [extracted_brain(voxels, mask, recipe.pixel_mm) for voxels, mask in extracted]

    def batch(self, numbers: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The crops of these numbers: float32 (crops, depth, rows, cols, channels), uint8 {0, 1} (…, 1)."""
        pairs = [self.crop(int(number)) for number in numbers]
        voxels, masks = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
        return self.recipe.preparation.as_input(voxels[..., None]), self.recipe.targets.encode(masks)

    def crop(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Grey levels float32 and mask uint8 {0, 1} of a crop, (depth, rows, cols)."""
        crop, names = self.sampling.crop, self.sampling.augmentation
        rng = np.random.default_rng([self.recipe.training.seed, number])
        chosen = int(rng.integers(len(self.stacks)))
        voxels, mask = self.stacks[chosen]
        if self.brains and rng.random() < _EXTRACTED:
            voxels = self.brains[chosen]
        first = int(rng.integers(len(voxels) - self.depth + 1))
        window = slice(first, first + self.depth)
        place = Placement.drawn(*self._middle(chosen, voxels[window], rng), names, rng)
        cut = place.cut(mask[window], crop) > 0.5
        return change_grey_levels(place.cut(voxels[window], crop), names, rng), cut.astype(np.uint8)

    def _middle(self, stack: int, window: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
        """Row and column of a crop's center: near those of a lesion voxel in any slice, or anywhere in the head."""
        lesions = self.lesions[stack]
        if len(lesions) and rng.random() < self.sampling.lesion_share:
            _, row, col = lesions[rng.integers(len(lesions))]
            reach = self.sampling.crop * NEAR
            return row + rng.uniform(-reach, reach), col + rng.uniform(-reach, reach)
        head = np.argwhere(window[len(window) // 2] > HEAD_LEVEL)
        row, col = head[rng.integers(len(head))] if len(head) else np.array(window.shape[1:]) // 2
        return float(row), float(col)
