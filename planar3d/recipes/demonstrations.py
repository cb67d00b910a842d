"""Demonstrations of each system without data: its phantom, and its recipe at a size of minutes."""

from dataclasses import dataclass

from planar3d.recipes import DEMO, INFLATED, MODERN, RECIPES, RELEASED, Recipe
from planar3d.scans.tiles import DepthWindows


@dataclass(frozen=True)
class Demonstration:
    """A reduced recipe and its phantom."""

    recipe: Recipe  # takes minutes on two cores, for every fold
    layout: str = "msseg"  # of the phantom, see `write_phantom`
    reduction: float = 4.0  # divides the grids of the phantom's scans
    scans_per_center: int = 5  # for each of the phantom's three centers
    folds: str | None = None  # number of folds; default: as in `group_folds`
    # The folds run by default, all if None; compiling a network takes time.
    only: str | None = None


def _like_demo(recipe: Recipe, **changes: object) -> Demonstration:
    """A recipe of the res-u-net, as small as `DEMO`; without cached features, it sees less of a scan."""
    fields = ("network.decoder_filters", "network.bridge_filters", "training.learning_rate", "training.epochs")
    reduced = {field: DEMO.leaves()[field] for field in fields}
    chosen = recipe.changed(name=f"{recipe.name}-demo", output_prior=0.01, **{**reduced, "size": 48, **changes})
    return Demonstration(chosen, scans_per_center=3, only="1")


def _patches(name: str, layout: str, shape: tuple[int, int, int], batch_size: int, **changes: object) -> Demonstration:
    """A recipe of patches on a phantom, with a random encoder: ImageNet weights would need a download."""
    step = (shape[0], shape[1] // 2, shape[2] // 2)
    tiles = {"tiles.shape": shape, "tiles.step": step, "batch_size": batch_size, "patches_per_epoch": 40 * batch_size}
    chosen = {"foreground_share": 0.7, "augmentation": ("flip",), **_SHORT, **tiles, **changes}
    return Demonstration(
        RECIPES[name].changed(name=f"{name}-demo", **chosen), layout, scans_per_center=2, folds="2", only="1"
    )


def _crops(name: str, **changes: object) -> Demonstration:
    """A recipe for a whole crop of a scan at once."""
    reduced = RECIPES[name].changed(name=f"{name}-demo", learning_rate=1e-3, **{**_SHORT, **changes})
    return Demonstration(reduced, "brats", reduction=6, scans_per_center=4, folds="2", only="1")


_SHORT = {"encoder_weights": "none", "epochs": 6}
_FILLED = {"tiles.smallest": (36, 48, 48)}
_SQUEEZED = {"factors": (2, 2), "filters": (8, 16)}
# Batch statistics take about two hundred steps; an epoch has six.
_CROP = {"crop": (24, 32, 32), "factors": (2, 4), "tiles": DepthWindows(depth=24, stride=24), "epochs": 40}

# The loss of Wacker 2019 excludes the background, which some class then covers for the first hundreds of steps.
# By the name of the reduced recipe.
DEMONSTRATIONS = {
    "paper": Demonstration(DEMO),
    "released": _like_demo(RELEASED),
    "modern": _like_demo(MODERN, size=64, pixel_mm=3.6, crop=32, crops_per_epoch=60, precision="float32"),
    # With repeated kernels, features grow from layer to layer.
    **{r.name: _like_demo(r, monitor="val_dice", unit_variance=("bridge", "decoder")) for r in INFLATED},
    "wacker2019-3d": _patches("wacker2019-3d", "brats", (4, 32, 32), 4, dice_of="all"),
    "wacker2019-3d-released": _patches("wacker2019-3d-released", "brats", (4, 32, 32), 4, **_FILLED),
    "wacker2019-2d": _patches("wacker2019-2d", "brats", (1, 32, 32), 16, dice_of="all"),
    "wacker2019-2d-released": _patches("wacker2019-2d-released", "brats", (1, 32, 32), 16, **_FILLED),
    "messaoudi2020": _crops("messaoudi2020", **_CROP),
    "messaoudi2020-released": _crops("messaoudi2020-released", **_CROP),
    **{
        (name := f"messaoudi2023-omnia-{data}{version}"): _patches(
            name, data, (1, 64, 64), 8, size=64, encoder="b0", augmentation=()
        )
        for data in ("camus", "chaos")
        for version in ("", "-released")
    },
    "messaoudi2023-ds": _patches("messaoudi2023-ds", "brats", (12, 32, 32), 2, **_SQUEEZED),
    "messaoudi2023-ds-released": _patches(
        "messaoudi2023-ds-released", "brats", (12, 32, 32), 2, **_SQUEEZED, up_kernels=(2, 2), up_strides=(2, 2)
    ),
    "messaoudi2023-dx": _patches("messaoudi2023-dx", "brats", (32, 32, 32), 2),
    "messaoudi2023-dx-released": _patches("messaoudi2023-dx-released", "brats", (32, 32, 32), 2),
}
