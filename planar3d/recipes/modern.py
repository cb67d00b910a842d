"""A recipe that segments better than paper and release in the same time."""

from planar3d.networks.settings import PlanarResUNetSettings
from planar3d.recipes.recipe import Recipe
from planar3d.scans.preparation import AxialSlices
from planar3d.scans.targets import Binary
from planar3d.scans.tiles import DepthWindows
from planar3d.training.crops import CropSampling
from planar3d.training.optimizer_settings import Adam
from planar3d.training.schedules import Cosine
from planar3d.training.settings import Training

# Developed in measured steps on nine patients with thick slices, see docs/results.md.
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
