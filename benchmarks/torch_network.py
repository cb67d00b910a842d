"""The planar res-u-net as written for torch, measured beside the Keras network.

It holds the weights of a Keras network, layer by layer under the same names, and gives the same probabilities.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3))  # filters and convolutions of VGG-16's blocks 1-4
LEVELS = (6, 7, 8, 9)  # of the decoder, deepest first


class PlanarResUNet(nn.Module):
    """Planar 3D res-u-net, channels first.

    Args:
        channels: of the input.
        decoder_filters: of the decoder levels, deepest first.
        bridge_filters: of `conv51` and `conv52`.

    Source: Kolarik 2020, figure 4 and section 3.4.
    """

    def __init__(
        self,
        channels: int = 3,
        decoder_filters: tuple[int, ...] = (256, 128, 64, 32),
        bridge_filters: int = 512,
    ) -> None:
        super().__init__()
        incoming = channels
        for block, (filters, convolutions) in enumerate(BLOCKS, start=1):
            for number in range(1, convolutions + 1):
                self.add_module(f"block{block}_conv{number}", nn.Conv3d(incoming, filters, (1, 3, 3), padding="same"))
                incoming = filters
        self.pool = nn.MaxPool3d(2)
        self.conv51 = nn.Conv3d(incoming, bridge_filters, (1, 3, 3), padding="same")
        self.conv52 = nn.Conv3d(bridge_filters, bridge_filters, (1, 3, 3), padding="same")
        incoming += bridge_filters
        for level, filters, (skip, _) in zip(LEVELS, decoder_filters, reversed(BLOCKS), strict=True):
            depth = 2 if level == 6 else 3
            joined = filters + skip
            self.add_module(f"trans{level}", nn.ConvTranspose3d(incoming, filters, 2, stride=2))
            self.add_module(
                f"conv{level}1", nn.Conv3d(joined, filters, (depth, 3, 3), dilation=(1, 2, 2), padding="same")
            )
            self.add_module(f"conv{level}2", nn.Conv3d(filters, filters, (depth, 3, 3), padding="same"))
            incoming = joined + filters
        self.conv10 = nn.Conv3d(incoming, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """From (batch, channels, depth, rows, cols) to lesion probabilities (batch, 1, depth, rows, cols)."""
        skips = []
        for block, (_, convolutions) in enumerate(BLOCKS, start=1):
            for number in range(1, convolutions + 1):
                x = torch.relu(self.get_submodule(f"block{block}_conv{number}")(x))
            skips.append(x)
            x = self.pool(x)
        x = torch.cat([x, torch.relu(self.conv52(torch.relu(self.conv51(x))))], dim=1)
        for level, skip in zip(LEVELS, reversed(skips), strict=True):
            joined = torch.cat([self.get_submodule(f"trans{level}")(x), skip], dim=1)
            y = torch.relu(self.get_submodule(f"conv{level}1")(joined))
            y = torch.relu(self.get_submodule(f"conv{level}2")(y))
            x = torch.cat([joined, y], dim=1)
        return torch.sigmoid(self.conv10(x))


def torch_network(arrays: Mapping[str, np.ndarray]) -> PlanarResUNet:
    """Build the network of these weights, and load them.

    Args:
        arrays: `<layer>/kernel` and `<layer>/bias` as Keras has them: kernels are (depth, rows, cols, in, out), those
            of transposed convolutions (depth, rows, cols, out, in). Either way the last two axes, exchanged, come
            first in torch, and the taps keep their order.
    """
    network = PlanarResUNet(
        arrays["block1_conv1/kernel"].shape[-2],
        tuple(len(arrays[f"conv{level}2/bias"]) for level in LEVELS),
        len(arrays["conv51/bias"]),
    )
    state = {}
    for name, array in arrays.items():
        layer, _, kind = name.partition("/")
        values = array.transpose(4, 3, 0, 1, 2) if kind == "kernel" else array
        state[f"{layer}.{'weight' if kind == 'kernel' else 'bias'}"] = torch.tensor(values.copy())
    network.load_state_dict(state)
    return network.eval()
