"""Messaoudi et al. 2023: DS-Net on BraTS. See docs/fidelity.md."""

from planar3d.networks.settings import DSNetSettings
from planar3d.recipes.recipe import Recipe
from planar3d.scans.preparation import NonZeroBox
from planar3d.scans.targets import Regions
from planar3d.scans.tiles import Patches
from planar3d.training.losses import CrossEntropyAndDice
from planar3d.training.optimizer_settings import Nadam
from planar3d.training.patches import PatchSampling
from planar3d.training.schedules import Cosine
from planar3d.training.settings import Training

MESSAOUDI2023_DS = Recipe(
    "messaoudi2023-ds",
    preparation=NonZeroBox(images=("t1", "t1ce", "t2", "flair"), within="image"),
    tiles=Patches(shape=(128, 128, 128), step=(64, 64, 64), overlap="average"),
    network=DSNetSettings(
        up_kernels=(),
        up_strides=(),
        convolutions=2,
        full_resolution=16,
        activation_2d="relu",
        encoder_padding="same",
        encoder_epsilon=1e-3,
    ),
    targets=Regions(regions=("WT=1+2+4", "TC=1+4", "ET=4"), order=(2, 1, 4)),
    training=Training(
        samples=PatchSampling(patches_per_epoch=1251, augmentation=()),  # as many as BraTS 2022 has cases
        loss=CrossEntropyAndDice(),  # eq. 5
        frozen=(),
        learning_rate=1e-3,
        optimizer=Nadam(beta_1=0.95, beta_2=0.99, lookahead_steps=6, lookahead_share=0.5),
        schedule=Cosine(floor=1e-5, constant_epochs=40),
        batch_size=1,
        epochs=90,
        patience=0,
        monitor="last",
    ),
)

MESSAOUDI2023_DS_RELEASED = MESSAOUDI2023_DS.changed(
    name="messaoudi2023-ds-released",
    network=DSNetSettings(),
    epsilon=1e-5,
    gradient_share="beta_1",
)
