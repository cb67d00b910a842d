"""The road of a data set that a test shares: from its folder to label maps on the native grid, by a tiny network."""

import dataclasses
from dataclasses import dataclass

import keras
import numpy as np

from planar3d.inference.segmenter import segment
from planar3d.networks.architecture import Architecture, layers_with_weights
from planar3d.networks.registry import ARCHITECTURES
from planar3d.networks.settings import NETWORKS, Network
from planar3d.recipes import Recipe
from planar3d.scans.case import read_images
from planar3d.scans.preparation import NonZeroBox
from planar3d.scans.targets import Classes
from planar3d.scans.tiles import Patches
from planar3d.training.losses import CrossEntropyAndDice
from planar3d.training.patches import PatchSampling
from planar3d.training.settings import Training


def recipe_of(images, classes, shape=(4, 16, 16), **targets):
    """A recipe of patches that takes these images."""
    return Recipe(
        "tiny",
        preparation=NonZeroBox(images=images),
        tiles=Patches(shape=shape, step=tuple(max(1, n // 2) for n in shape)),
        targets=Classes(classes=classes, **targets),
        training=Training(samples=PatchSampling(), frozen=(), monitor="last"),
    )


def segmented(case, recipe):
    """A case's images by the recipe, and the label map that a network of random weights makes of them."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, None, len(recipe.preparation.images)))
    outputs = keras.layers.Conv3D(recipe.targets.outputs, 3, padding="same", activation="softmax")(inputs)
    images = {name: case.images[name] for name in recipe.preparation.images}
    labels = segment(images, (keras.Model(inputs, outputs), recipe))
    scans = read_images(images, flat=True)
    first = next(iter(scans.values()))
    assert labels.voxels.shape == first.voxels.shape and np.allclose(labels.affine, first.affine)
    assert set(np.unique(labels.voxels)) <= {0}.union(*recipe.targets.channels)
    return scans, labels


@dataclass(frozen=True)
class Tiny(Network):
    """One convolution."""

    name = "tiny"
    encoder_weights: str = "none"


def tiny(input_shape, outputs, activation, weights=None, encoder_weights=None):
    """A network of one convolution."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv3D(outputs, 3, padding="same", activation=activation, dtype="float32", name="head")(inputs)
    return keras.Model(inputs, x, name="tiny")


def with_tiny(monkeypatch, recipe):
    """A recipe of that network, which the tables have for the time of a test."""
    architecture = Architecture(
        build=tiny,
        arguments=lambda settings, targets: {"outputs": targets.outputs, "activation": targets.activation},
        divisors=lambda arguments: (1, 1, 1),
        groups=lambda network: {"all": layers_with_weights(network)},
        head="head",
    )
    monkeypatch.setitem(NETWORKS, "tiny", Tiny)
    monkeypatch.setitem(ARCHITECTURES, "tiny", architecture)
    training = Training(
        samples=PatchSampling(patches_per_epoch=8, augmentation=("flip",)),
        loss=CrossEntropyAndDice(cross_entropy="categorical"),
        frozen=(),
        learning_rate=0.02,
        epochs=2,
        monitor="last",
    )
    return dataclasses.replace(recipe, network=Tiny(), training=training)
