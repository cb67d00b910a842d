"""How each system is shown where no data are at hand: on which phantom, and its recipe at a size of minutes."""

from dataclasses import dataclass

from planar3d.errors import RecipeError
from planar3d.recipes import DEMO, MODERN, RELEASED, WACKER2019_2D, WACKER2019_3D, Recipe


@dataclass(frozen=True)
class Demonstration:
    """A reduced recipe and its phantom.

    Attributes:
        recipe: what two cores finish within minutes, on every fold.
        layout: of the phantom, see `write_phantom`.
        reduction: divides the grids of the phantom's scans.
        scans_per_center: for each of the phantom's three centers.
        folds: how many; if None, as many as `group_folds` makes.
    """

    recipe: Recipe
    layout: str = "msseg"
    reduction: float = 4.0
    scans_per_center: int = 5
    folds: str | None = None


def _like_demo(recipe: Recipe) -> Recipe:
    """A recipe of the res-u-net, as small and as quick as `DEMO`."""
    leaves = DEMO.leaves()
    reduced = {field: leaves[field] for field in ("network.decoder_filters", "network.bridge_filters")}
    reduced |= {field: leaves[field] for field in ("training.learning_rate", "training.epochs")}
    return recipe.changed(name=f"{recipe.name}-demo", **reduced)


def _tumours(recipe: Recipe, **changes: object) -> Demonstration:
    """A recipe for BraTS on a phantom of tumours, from a random encoder: its ImageNet weights would be a download."""
    reduced = recipe.changed(
        name=f"{recipe.name}-demo",
        encoder_weights="none",
        foreground_share=0.7,
        augmentation=("flip",),
        epochs=6,
        **changes,
    )
    return Demonstration(reduced, layout="brats", scans_per_center=2, folds="2")


# By the name of the recipe that each of them reduces.
DEMONSTRATIONS = {
    "paper": Demonstration(DEMO),
    "released": Demonstration(_like_demo(RELEASED).changed(size=64)),
    "modern": Demonstration(_like_demo(MODERN)),
    "wacker2019-3d": _tumours(WACKER2019_3D, shape=(4, 32, 32), step=(4, 16, 16), batch_size=4, patches_per_epoch=160),
    "wacker2019-2d": _tumours(WACKER2019_2D, shape=(1, 32, 32), step=(1, 16, 16), batch_size=16, patches_per_epoch=640),
}


def find_demonstration(system: str) -> Demonstration:
    """The demonstration of a system, by the name of its recipe.

    Raises:
        RecipeError: there is none of that name.
    """
    if system not in DEMONSTRATIONS:
        raise RecipeError(f"There is no system {system!r}; choose one of: {', '.join(DEMONSTRATIONS)}.")
    return DEMONSTRATIONS[system]
