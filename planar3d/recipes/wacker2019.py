"""Wacker et al. 2019: AlbuNet3D and AlbuNet2D on BraTS. See docs/fidelity.md."""

from planar3d.networks.settings import AlbuNetSettings
from planar3d.recipes.recipe import Recipe
from planar3d.scans.preparation import NonZeroBox
from planar3d.scans.targets import Classes
from planar3d.scans.tiles import Patches, SteppedPatches
from planar3d.training.losses import MultipleDice
from planar3d.training.patches import PatchSampling
from planar3d.training.schedules import InverseDecay
from planar3d.training.settings import Adam, Training

WACKER2019_3D = Recipe(
    "wacker2019-3d",
    preparation=NonZeroBox(images=("flair", "t1ce", "t2")),  # red, green and blue of ImageNet's kernels
    tiles=Patches(shape=(24, 128, 128), step=(24, 32, 32), overlap="average"),
    network=AlbuNetSettings(),
    targets=Classes(classes=("necrosis=1", "edema=2", "enhancing=4"), regions=("WT=1+2+4", "TC=1+4", "ET=4")),
    training=Training(
        samples=PatchSampling(patches_per_epoch=2400),
        loss=MultipleDice(dice_of="foreground"),  # eqs. 1 and 2
        frozen=(),
        learning_rate=1e-3,
        optimizer=Adam(epsilon=1e-8),  # torch's
        schedule=InverseDecay(decay=0.0),
        batch_size=24,
        epochs=50,
        patience=0,
        monitor="last",
    ),
)

WACKER2019_3D_RELEASED = WACKER2019_3D.changed(
    name="wacker2019-3d-released",
    images=("t1ce", "t2", "flair"),
    tiles=SteppedPatches(shape=(24, 128, 128), step=(24, 32, 32), averaged="logits", smallest=(144, 192, 192)),
    encoder_bias=True,
    dice_of="all",
    denominator_smoothing=1e-15,
)

_IN_2D = {"shape": (1, 128, 128), "step": (1, 32, 32), "patches_per_epoch": 6400, "batch_size": 64}
WACKER2019_2D = WACKER2019_3D.changed(name="wacker2019-2d", depth_layers=False, **_IN_2D)
# Its depth layers are kept: for one slice, only their middle taps matter.
WACKER2019_2D_RELEASED = WACKER2019_3D_RELEASED.changed(name="wacker2019-2d-released", **_IN_2D)
