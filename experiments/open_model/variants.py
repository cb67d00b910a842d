"""The trainings that share a GPU: sources, initial weights and crops of each."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from heads import GENERATED

from planar3d.recipes import Recipe
from planar3d.training.crops import CropSamples

HOMES = ("home-1", "home-2", "home-3")
SHARES = {**dict.fromkeys(HOMES, 0.2), "open-ms": 0.25, "p39": 0.15}  # of the real crops
EXTRACTED = 1 / 3  # of the home site's crops
LOOK_EVERY = 20  # batches
FEWEST = 4  # stacks of generated heads before a training starts


@dataclass(frozen=True)
class Variant:
    """A training."""

    name: str
    without: tuple[str, ...] = ()  # excluded sources, on which it is tested as on scans of other sites
    start: str = "published"  # version 1, trained on the whole home site; or `"imagenet"`, trained on no scan
    rate: float = 2e-4  # the highest learning rate
    trains: bool = True  # False for the unchanged version 1

    @classmethod
    def of(cls, name: str) -> "Variant":
        """`all`, `version-1`, `without-SOURCE`, `fold-1` to `fold-3` (of home), and `imagenet`, all from ImageNet."""
        anew = {"start": "imagenet", "rate": 5e-4}
        if name == "without-home":
            return cls(name, HOMES, **anew)  # type: ignore[arg-type]
        if name.startswith("fold-"):
            return cls(name, (f"home-{name[-1]}",), **anew)  # type: ignore[arg-type]
        if name.startswith("without-"):
            return cls(name, (name.removeprefix("without-"),))
        if name == "imagenet":
            return cls(name, **anew)  # type: ignore[arg-type]
        return cls(name, trains=name != "version-1")

    def tested(self, source: str) -> bool:
        """Whether it is scored on a source; a network with excluded sources, on those and on generated heads."""
        return not self.without or source in self.without or source.endswith("lesions")

    def seen(self, source: str) -> str:
        """Whether it was trained on a source's scans: `"yes"` or `"no"`."""
        of_home_alone = self.name == "version-1" and not source.startswith("home")
        return "no" if source in self.without or source.endswith("lesions") or of_home_alone else "yes"


class Crops:
    """Batches of crops by number: each from a source, by its share, and from any of its stacks of slices."""

    def __init__(self, folder: Path, shares: Mapping[str, float], recipe: Recipe, batch: int) -> None:
        self.folder, self.shares, self.recipe, self.batch = folder, shares, recipe, batch
        self.files: dict[str, list[Path]] = {}

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Grey levels float32 (crops, slices, rows, cols), and masks uint8 of the same shape."""
        if not self.files or number % LOOK_EVERY == 0:
            self.look()
        return self.crops(range(number * self.batch, (number + 1) * self.batch))

    def crops(self, numbers: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """The same of single crops by number; `look` comes before."""
        voxels, masks = (np.stack(arrays) for arrays in zip(*map(self.crop, numbers), strict=True))
        return voxels.astype(np.float32), masks

    def look(self) -> None:
        """List the files; wait until there are enough."""
        while True:
            self.files = {source: sorted((self.folder / source).glob("*.npy")) for source in self.shares}
            if all(self.files.values()) and len(self.files.get(GENERATED, range(FEWEST))) >= FEWEST:
                return
            time.sleep(1)

    def crop(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """One crop, (slices, rows, cols)."""
        rng = np.random.default_rng([self.recipe.training.seed, number, 2])
        source = str(rng.choice(list(self.shares), p=list(self.shares.values())))
        files = self.files[source]
        voxels, lesions = np.load(files[int(rng.integers(len(files)))])
        return CropSamples([voxels[..., None]], [lesions], self.recipe).crop(number)


def shares_of(variant: Variant, synthetic: float) -> dict[str, float]:
    """The shares of a training's crops by folder of stacks; they sum to 1."""
    real = {source: share for source, share in SHARES.items() if source not in variant.without}
    shares = {GENERATED: synthetic} if synthetic else {}
    for source, share in real.items():
        share *= (1 - synthetic) / sum(real.values())
        if source in HOMES:
            shares[f"{source}-extracted"] = EXTRACTED * share
            share *= 1 - EXTRACTED
        shares[source] = share
    return shares
