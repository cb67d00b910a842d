"""Kolarik 2020: the paper, the authors' released code, the reduced size of `make reproduce`, and a better one.

docs/fidelity.md lists the differences between paper and released code.
"""

from planar3d.networks.settings import PlanarResUNetSettings
from planar3d.recipes.recipe import Recipe
from planar3d.scans.preparation import AxialSlices, SagittalCube
from planar3d.scans.targets import Binary
from planar3d.scans.tiles import DepthWindows
from planar3d.training.crops import CropSampling
from planar3d.training.losses import BceMinusDice
from planar3d.training.samples import WindowSampling
from planar3d.training.schedules import Cosine
from planar3d.training.settings import Adam, Training

PAPER = Recipe("paper")  # the defaults of every section are the paper's

RELEASED = Recipe(
    "released",
    preparation=SagittalCube(raw_values="float16", resampling="scipy"),
    targets=Binary(threshold_rule="released"),
    training=Training(
        samples=WindowSampling(validation="every 12th window", window_borders="none", shuffle="every epoch"),
        loss=BceMinusDice(dice_smoothing=1.0),
        frozen=("encoder", "bridge"),
        optimizer=Adam(epsilon=1e-8),
        batch_size=3,
        patience=0,
        monitor="val_dice",
        seed=256,
    ),
)

# Sizes for five folds within minutes on two cores; the architecture and the threshold are the paper's.
DEMO = Recipe(
    "demo",
    preparation=SagittalCube(size=64),
    network=PlanarResUNetSettings(decoder_filters=(64, 32, 16, 8), bridge_filters=64),
    training=Training(
        samples=WindowSampling(shuffle="every epoch", cached_features="float32"),
        output_prior=0.01,
        learning_rate=1e-3,
        epochs=6,
        monitor="val_dice",
    ),
)

# Better than paper and release in the same time; developed in measured steps on nine patients with thick slices, see
# docs/results.md.
MODERN = Recipe(
    "modern",
    preparation=AxialSlices(spline_order=1, grey_levels="median"),
    tiles=DepthWindows(stride=4, planes="head"),
    network=PlanarResUNetSettings(encoder_range="imagenet"),
    targets=Binary(threshold=32.0, smallest_lesion_mm3=20.0),
    training=Training(
        samples=CropSampling(
            augmentation=("flip", "rotation", "zoom", "brightness", "contrast", "blur", "noise", "extraction")
        ),
        frozen=("block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2"),
        output_prior=0.01,
        unit_variance=("bridge", "decoder"),
        learning_rate=5e-4,
        optimizer=Adam(clip_norm=1.0),
        schedule=Cosine(warmup_steps=40),
        epochs=18,
        patience=0,
        monitor="last",
        precision="bf16",
    ),
)

# The paper's network with other mappings of 2D kernels: Eshed 2018, Yang 2021. See docs/fidelity.md.
_MAPPINGS = {
    "eshed2018-zero": "zero",
    "eshed2018-average": "average",
    "eshed2018-scale": "scale",
    "yang2021-acs": "acs",
    "yang2021-acs-mean": "acs_mean",
    "yang2021-acs-soft": "acs_soft",
    "paper-repeat": "repeat",  # from Messaoudi 2023, where DX-Net uses it for another encoder
}
INFLATED = tuple(PAPER.changed(name=name, mapping=mapping) for name, mapping in _MAPPINGS.items())
