"""The networks' own arguments, as a recipe holds them, by the network's name."""

from dataclasses import dataclass
from typing import Annotated, Literal

from planar3d.sections import POSITIVE, Rule, Section

_ODD = Rule(lambda v: v > 0 and v % 2 == 1, "an odd number of slices, at least 1, is needed")
_SHARES = Rule(
    lambda v: bool(v) and min(v) > 0 and abs(sum(v) - 1) < 1e-6, "factors greater than 0 that add up to 1 are needed"
)
MappingName = Literal["planar", "zero", "average", "scale", "repeat", "acs", "acs_mean", "acs_soft"]
_FILTERS = Rule(lambda v: bool(v) and min(v) > 0, "numbers greater than 0 are needed, deepest level first")


class Network(Section):
    """Arguments of a network; every network has the weights that its encoder begins with."""

    encoder_weights: str

    @property
    def begins_with(self) -> str | None:
        """What the encoder is built with: `"imagenet"`, a file, or None for random weights."""
        return None if self.encoder_weights == "none" else self.encoder_weights


@dataclass(frozen=True)
class PlanarResUNetSettings(Network):
    """The planar 3D res-u-net (Kolarik 2020, section 3.4)."""

    name = "planar-resunet"

    encoder: str = "vgg16"  # one of networks/encoders.py
    encoder_weights: str = "imagenet"  # or "none", or a file
    encoder_range: Literal["unit", "imagenet"] = "unit"  # "imagenet": inputs and weights are brought together
    mapping: MappingName = "planar"  # from the encoder's 2D kernels to 3D ones
    alpha: Annotated[tuple[float, ...], _SHARES] = (0.25, 0.5, 0.25)  # of the slices, with mapping=scale
    encoder_depth: Annotated[int, _ODD] = 1  # slices of an encoder's kernel; 1: as the mapping has it
    decoder_filters: Annotated[tuple[int, ...], _FILTERS] = (256, 128, 64, 32)  # of the decoder, deepest level first
    bridge_filters: Annotated[int, POSITIVE] = 512  # of the convolutions between encoder and decoder


@dataclass(frozen=True)
class AlbuNetSettings(Network):
    """AlbuNet3D, and AlbuNet2D without its layers along depth (Wacker 2019)."""

    name = "albunet"

    encoder_weights: str = "imagenet"  # or "none", or a file
    depth_layers: bool = True  # the four convolutions that join slices
    encoder_bias: bool = False  # random biases of the encoder's convolutions, which ResNet-34 has none of


NETWORKS: dict[str, type[Network]] = {made.name: made for made in (PlanarResUNetSettings, AlbuNetSettings)}
