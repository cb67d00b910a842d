"""Messaoudi et al. 2020: the efficient embedding network on BraTS. See docs/fidelity.md."""

from planar3d.networks.settings import EfficientEmbeddingSettings
from planar3d.recipes.recipe import Recipe
from planar3d.scans.preparation import CenterCrop
from planar3d.scans.targets import Classes, Regions
from planar3d.scans.tiles import DepthWindows
from planar3d.training.losses import CrossEntropyAndDice
from planar3d.training.samples import WindowSampling
from planar3d.training.schedules import Plateau
from planar3d.training.settings import Adam, Nadam, Training

# One network per modality, with averaged probabilities: this one, and with --set images=t1, t1ce and t2.
MESSAOUDI2020 = Recipe(
    "messaoudi2020",
    preparation=CenterCrop(images=("flair",), within="image", crop=(108, 192, 160)),
    tiles=DepthWindows(depth=108, stride=108),  # the whole crop at once
    network=EfficientEmbeddingSettings(factors=(3, 3, 4)),
    targets=Regions(regions=("WT=1+2+4", "TC=1+4", "ET=4"), order=(2, 1, 4)),
    training=Training(
        samples=WindowSampling(validation="none", shuffle="every epoch"),  # each case once per epoch
        loss=CrossEntropyAndDice(denominator="squares"),  # eqs. 1 and 2, plus 1
        frozen=(),
        learning_rate=1e-4,
        optimizer=Adam(),
        schedule=Plateau(watched="loss", factor=0.1, plateau=50),
        batch_size=1,
        epochs=300,
        patience=0,
        monitor="last",
    ),
)

MESSAOUDI2020_RELEASED = MESSAOUDI2020.changed(
    name="messaoudi2020-released",
    images=("flair", "t1", "t1ce", "t2"),
    crop=(144, 192, 160),
    tiles=DepthWindows(depth=144, stride=144),
    factors=(3, 4, 4),
    encoder_range="grey levels",  # the layers of keras.applications
    targets=Classes(classes=("necrosis=1", "edema=2", "enhancing=4"), regions=("WT=1+2+4", "TC=1+4", "ET=4")),
    cross_entropy="categorical",
    optimizer=Nadam(),  # as in TensorFlow 2 until 2.10; Keras 3 has another momentum
)
