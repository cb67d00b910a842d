"""Numbered patches at random positions: a number always gives the same patch, so that resumed training is exact."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from planar3d.errors import RecipeError, ScanError
from planar3d.scans.labels import Targets
from planar3d.scans.preparation import Preparation
from planar3d.scans.preparation.eight_bit import EightBit
from planar3d.scans.preparation.prepared import Prepared
from planar3d.scans.tiles import Tiles
from planar3d.scans.windows import cut_tile
from planar3d.sections import POSITIVE, SHARE
from planar3d.training.patch_augmentation import TRANSFORMS, Transform, augment_patch
from planar3d.training.samples import NEAR, DrawnSampling

if TYPE_CHECKING:
    from planar3d.recipes import Recipe


@dataclass(frozen=True)
class PatchSampling(DrawnSampling):
    """Patches of the tiles' shape at random positions, for any number of cases; all cases are used for training."""

    name = "patches"
    shows_brains = True

    patches_per_epoch: Annotated[int, POSITIVE] = 100  # whatever the number of cases
    foreground_share: Annotated[float, SHARE] = 0.0  # share of patches around a foreground voxel
    augmentation: tuple[Transform, ...] = TRANSFORMS  # see training/patch_augmentation.py
    augmented_share: Annotated[float, SHARE] = 0.0  # share changed by each transform except flip; 0: Wacker 2019's

    def split(self, train: int, validation: int, slices: int, tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(self.patches_per_epoch), np.arange(0)

    def check_with(self, preparation: Preparation, targets: Targets) -> None:
        """Refuse 8-bit images: the augmentation needs standardized ones."""
        if isinstance(preparation, EightBit):
            raise RecipeError(
                f"training.samples='patches' needs one image per channel, but this recipe has "
                f"preparation={preparation.name!r}; set preparation='non-zero-box', or training.samples='crops'."
            )

    def samples(self, scans: Sequence[tuple[Prepared, np.ndarray]], recipe: "Recipe") -> "PatchSamples":
        return PatchSamples([prepared.voxels for prepared, _ in scans], [labels for _, labels in scans], recipe)


class PatchSamples:
    """Batches of (network input, targets) of patches from volumes of any size.

    Args:
        images: (slices, rows, cols, channels), memory-mapped or not, one per case; cases are drawn with replacement.
        labels: whole numbers (slices, rows, cols) of the same voxels; 0 is background.
        recipe: its patches are padded on both sides where a volume is shorter.

    Raises:
        ScanError: labels and their image differ in shape.

    Source: Wacker 2019, its released `brats_data_loader.py` (no share around the foreground); the share is nnU-Net's.
    """

    def __init__(self, images: Sequence[np.ndarray], labels: Sequence[np.ndarray], recipe: "Recipe") -> None:
        for number, (image, marked) in enumerate(zip(images, labels, strict=True), start=1):
            if image.shape[:-1] != marked.shape:
                raise ScanError(
                    f"Case {number} of {len(images)} has an image of {image.shape[:-1]} voxels and labels of "
                    f"{marked.shape}; they must be on one grid. Prepare them again."
                )
        self.images, self.labels, self.recipe = images, labels, recipe
        self.sampling: PatchSampling = recipe.training.samples  # type: ignore[assignment]
        around = self.sampling.foreground_share > 0
        self.foreground = [np.flatnonzero(marked).astype(np.uint32) for marked in labels] if around else []

    def batch(self, numbers: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The patches of these numbers: float32 (patches, slices, rows, cols, channels), targets (…, outputs)."""
        pairs, encode = [self.patch(int(number)) for number in numbers], self.recipe.targets.encode
        return np.stack([image for image, _ in pairs]), np.stack([encode(labels) for _, labels in pairs])

    def patch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The image float32 (slices, rows, cols, channels) and the labels of a patch."""
        preparation, rng = self.recipe.preparation, np.random.default_rng([self.recipe.training.seed, number])
        case = int(rng.integers(len(self.images)))
        starts, lengths = self._place(case, rng)
        image = preparation.as_input(cut_tile(self.images[case], starts, lengths, air=preparation.air))
        cut = cut_tile(self.labels[case], starts, lengths)
        sampling = self.sampling
        return augment_patch(image, cut, rng, sampling.augmentation, preparation.air, sampling.augmented_share)

    def _place(self, case: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """First voxels and lengths of a patch."""
        volume = self.labels[case].shape
        lengths = [length or entries for length, entries in zip(self.recipe.tiles.shape, volume, strict=True)]
        surplus = [entries - length for entries, length in zip(volume, lengths, strict=True)]
        # A shorter volume is centered in the patch.
        ranges = [(0, more) if more >= 0 else (-(-more // 2),) * 2 for more in surplus]
        marked = self.foreground[case] if self.foreground else ()
        if len(marked) and rng.random() < self.sampling.foreground_share:
            voxel = np.unravel_index(int(marked[rng.integers(len(marked))]), volume)
            for axis, (at, length, (least, most)) in enumerate(zip(voxel, lengths, ranges, strict=True)):
                reach = round(length * NEAR)
                first = int(at) - length // 2
                ranges[axis] = min(max(first - reach, least), most), max(min(first + reach, most), least)
        return [int(rng.integers(least, most, endpoint=True)) for least, most in ranges], lengths
