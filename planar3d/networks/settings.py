"""The arguments of networks in a recipe, by the network's name; recipes are read without Keras, which networks need."""

from dataclasses import dataclass
from typing import Annotated, Literal

from planar3d.errors import RecipeError
from planar3d.sections import NOT_NEGATIVE, POSITIVE, Limit, Section

_ODD = Limit(lambda v: v > 0 and v % 2 == 1, "an odd number of slices, at least 1, is needed")
_SHARES = Limit(
    lambda v: bool(v) and min(v) > 0 and abs(sum(v) - 1) < 1e-6, "factors greater than 0 that add up to 1 are needed"
)
MappingName = Literal["planar", "zero", "average", "scale", "repeat", "acs", "acs_mean", "acs_soft"]
_NUMBERS = Limit(lambda v: bool(v) and min(v) > 0, "numbers greater than 0 are needed, one for each level")


@dataclass(frozen=True)
class Network(Section):
    """Arguments of a network; every network has initial weights for its encoder."""

    encoder_weights: str = "imagenet"  # or "none" for random ones, or a file


@dataclass(frozen=True)
class PlanarResUNetSettings(Network):
    """The planar 3D res-u-net (Kolarik 2020, section 3.4)."""

    name = "planar-resunet"

    encoder: str = "vgg16"  # one of networks/encoders.py
    encoder_range: Literal["unit", "imagenet"] = "unit"  # "imagenet": inputs and weights are matched
    mapping: MappingName = "planar"  # mapping of the encoder's 2D kernels to 3D
    alpha: Annotated[tuple[float, ...], _SHARES] = (0.25, 0.5, 0.25)  # factors of the slices, with mapping=scale
    encoder_depth: Annotated[int, _ODD] = 1  # depth of the encoder's kernels if not 1; planar then averages
    decoder_filters: Annotated[tuple[int, ...], _NUMBERS] = (256, 128, 64, 32)  # decoder filters, deepest first
    bridge_filters: Annotated[int, POSITIVE] = 512  # filters of the convolutions between encoder and decoder


@dataclass(frozen=True)
class AlbuNetSettings(Network):
    """AlbuNet3D, and AlbuNet2D without its layers along depth (Wacker 2019)."""

    name = "albunet"

    depth_layers: bool = True  # the four convolutions that combine slices
    encoder_bias: bool = False  # add random biases to the encoder's convolutions


@dataclass(frozen=True)
class EfficientEmbeddingSettings(Network):
    """The efficient embedding network (Messaoudi 2020)."""

    name = "efficient-embedding"

    factors: Annotated[tuple[int, ...], _NUMBERS] = (3, 3, 4)  # successive factors that reduce depth to three slices
    encoder_range: Literal["unit", "grey levels"] = "unit"  # "grey levels": slices are read as 0 to 255


@dataclass(frozen=True)
class DSNetSettings(Network):
    """DS-Net (Messaoudi 2023), with its values in the released code."""

    name = "ds-net"

    factors: Annotated[tuple[int, ...], _NUMBERS] = (3, 2, 2, 4)  # successive factors that reduce depth to three slices
    filters: Annotated[tuple[int, ...], _NUMBERS] = (16, 32, 48, 96)  # filters of the 3D levels, outermost first
    up_kernels: tuple[int, ...] = (4, 3, 2, 5)  # depths of transposed convolutions; none: nearest
    up_strides: tuple[int, ...] = (3, 2, 2, 3)  # strides of transposed convolutions
    convolutions: Annotated[int, POSITIVE] = 1  # convolutions in each 3D decoder level
    full_resolution: Annotated[int, NOT_NEGATIVE] = 0  # filters before the 2D encoder; 0: none, RGB input
    activation_2d: Literal["silu", "relu"] = "silu"  # activation of the 2D decoder
    encoder_padding: Literal["symmetric", "same"] = "symmetric"  # of strided convolutions; weights expect "same"
    encoder_epsilon: Annotated[float, POSITIVE] = 1e-5  # of the encoder's normalization; its weights expect 1e-3

    def check(self) -> None:
        """Refuse inconsistent levels."""
        lengths = {len(self.factors), len(self.filters)} | {len(self.up_kernels), len(self.up_strides)} - {0}
        if len(lengths) > 1 or len(self.up_kernels) != len(self.up_strides):
            raise RecipeError(
                f"factors={self.factors}, filters={self.filters}, up_kernels={self.up_kernels} and "
                f"up_strides={self.up_strides} must have equal lengths, one number per level."
            )


@dataclass(frozen=True)
class OmniaNetSettings(Network):
    """Omnia-Net (Messaoudi 2023)."""

    name = "omnia-net"

    encoder: Literal["b0", "b4"] = "b0"  # variant of EfficientNet
    encoder_padding: Literal["symmetric", "same"] = "same"  # of strided convolutions; weights expect "same"
    encoder_epsilon: Annotated[float, POSITIVE] = 1e-3  # of the encoder's normalization, as its weights expect
    stem: Literal["fitted", "normal"] = "fitted"  # first kernel: spread over 16 inputs, or random


@dataclass(frozen=True)
class DXNetSettings(Network):
    """DX-Net (Messaoudi 2023)."""

    name = "dx-net"

    norm: Literal["instance", "batch"] = "instance"  # kind of normalization
    encoder_padding: Literal["symmetric", "same"] = "symmetric"  # as for DS-Net
    encoder_epsilon: Annotated[float, POSITIVE] = 1e-5  # as for DS-Net
    stem: Literal["normal", "fitted"] = "normal"  # as for Omnia-Net


_MESSAOUDI = (EfficientEmbeddingSettings, DSNetSettings, OmniaNetSettings, DXNetSettings)
NETWORKS: dict[str, type[Network]] = {made.name: made for made in (PlanarResUNetSettings, AlbuNetSettings, *_MESSAOUDI)}
