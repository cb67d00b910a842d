"""VGG-16's first two blocks with eight filters a layer, by the name `narrow-vgg16` once this is imported.

What holds of training, resuming, studies and commands holds whatever the encoder's width and depth, and this one makes
a network of a third of the layers, with a fraction of the arithmetic and of the bytes. Laws of the network itself are
tried on the whole one.
"""

from dataclasses import replace

import keras

from planar3d.conversion.choices import KernelMapping
from planar3d.networks.encoder_weights import EncoderWeights, fill_encoder
from planar3d.networks.encoders import ENCODERS, InputShape, Levels
from planar3d.networks.vgg16 import BLOCKS, vgg16_pool

NAME = "narrow-vgg16"
LEVELS = 2


def narrow_vgg16(input_shape: InputShape, weights: EncoderWeights, matched: bool, mapping: KernelMapping) -> Levels:
    """The layers and names of VGG-16's first levels; weights are those of a file, or random."""
    inputs = x = keras.Input(input_shape, name="input")
    skips = []
    for number, (_, convolutions) in enumerate(BLOCKS[:LEVELS], start=1):
        for i in range(1, convolutions + 1):
            name = f"block{number}_conv{i}"
            x = mapping.convolution(8, (3, 3), padding="same", activation="relu", name=name)(x)
        skips.append(x)
        x = vgg16_pool(x, number)
    fill_encoder(keras.Model(inputs, x), weights, mapping)
    return Levels(inputs, skips, x, [(2, 2, 2)] * LEVELS, first_kernel=2)


FEATURES = dict(list(ENCODERS["vgg16"].feature_levels.items())[:LEVELS])
ENCODERS[NAME] = replace(
    ENCODERS["vgg16"], levels=narrow_vgg16, count=LEVELS, divisors=(2**LEVELS,) * 3, feature_levels=FEATURES
)
