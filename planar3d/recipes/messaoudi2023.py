"""Messaoudi et al. 2023: Omnia-Net on CAMUS and CHAOS, DS-Net and DX-Net on BraTS. See docs/fidelity.md."""

from planar3d.networks.settings import DSNetSettings, DXNetSettings, OmniaNetSettings
from planar3d.recipes.recipe import Recipe
from planar3d.scans.preparation import NonZeroBox, ResizedSlices
from planar3d.scans.targets import Classes, Regions
from planar3d.scans.tiles import Patches
from planar3d.training.losses import CrossEntropyAndDice
from planar3d.training.patches import PatchSampling
from planar3d.training.schedules import Cosine, Exponential
from planar3d.training.settings import Nadam, Training

# Differences of the released code in network and optimizer.
_AS_RELEASED = {
    "encoder_padding": "symmetric",
    "encoder_epsilon": 1e-5,
    "stem": "normal",
    "gradient_share": "beta_1",
    "epsilon": 1e-5,
}

MESSAOUDI2023_OMNIA_CAMUS = Recipe(
    "messaoudi2023-omnia-camus",
    preparation=ResizedSlices(size=256),
    tiles=Patches(shape=(1, 256, 256), step=(1, 256, 256), overlap="average"),
    network=OmniaNetSettings(),
    targets=Classes(
        classes=("cavity=1", "myocardium=2", "atrium=3"),
        regions=("endocardium=1", "epicardium=1+2", "atrium=3"),
        in_head=False,
        measures="camus",
    ),
    training=Training(
        samples=PatchSampling(patches_per_epoch=1440, augmentation=()),  # four fifths of 450 patients' four images
        loss=CrossEntropyAndDice(),  # eq. 5
        frozen=(),
        learning_rate=3e-4,
        optimizer=Nadam(),
        schedule=Exponential(factor=0.95, floor=1e-5),
        batch_size=8,
        epochs=67,  # after which the rate is 1e-5
        patience=0,
        monitor="last",
    ),
)

MESSAOUDI2023_OMNIA_CAMUS_RELEASED = MESSAOUDI2023_OMNIA_CAMUS.changed(
    name="messaoudi2023-omnia-camus-released", **_AS_RELEASED
)

MESSAOUDI2023_OMNIA_CHAOS = MESSAOUDI2023_OMNIA_CAMUS.changed(
    name="messaoudi2023-omnia-chaos",
    size=512,
    tiles=Patches(shape=(1, 512, 512), step=(1, 512, 512), overlap="average"),
    encoder="b4",
    patches_per_epoch=2369,  # four fifths of the 1,367 CT and 1,594 MR slices for training
    targets=Classes(
        classes=("liver=63", "right kidney=126", "left kidney=189", "spleen=252"), in_head=False, measures="chaos"
    ),
    augmentation=("turn", "zoom", "translation", "shear", "window", "noise"),
    augmented_share=0.5,
    learning_rate=1e-3,
    epochs=90,
)

MESSAOUDI2023_OMNIA_CHAOS_RELEASED = MESSAOUDI2023_OMNIA_CHAOS.changed(
    name="messaoudi2023-omnia-chaos-released", **_AS_RELEASED
)

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
        samples=PatchSampling(patches_per_epoch=1251, augmentation=()),  # the number of cases of BraTS 2022
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
    name="messaoudi2023-ds-released", network=DSNetSettings(), epsilon=1e-5, gradient_share="beta_1"
)

MESSAOUDI2023_DX = MESSAOUDI2023_DS.changed(
    name="messaoudi2023-dx", network=DXNetSettings(encoder_padding="same", encoder_epsilon=1e-3, stem="fitted")
)

MESSAOUDI2023_DX_RELEASED = MESSAOUDI2023_DS_RELEASED.changed(
    name="messaoudi2023-dx-released", network=DXNetSettings(norm="batch")
)
