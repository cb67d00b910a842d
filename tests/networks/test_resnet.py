"""ResNets in Keras compute what torchvision's compute with the same weights."""

import numpy as np
import pytest

from planar3d.networks.resnet import ResNet18, ResNet34, ResNet50
from planar3d.transfer.torch_weights import load_torch

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytestmark = pytest.mark.torch
nn = torch.nn


class Block(nn.Module):
    """A basic block or a bottleneck, its parts named as torchvision names them."""

    def __init__(self, inside, filters, stride, bottleneck):
        super().__init__()
        out = 4 * filters if bottleneck else filters
        # (kernel, stride) of each convolution: torchvision's bottleneck strides in the middle one.
        shapes = [(1, 1), (3, stride), (1, 1)] if bottleneck else [(3, stride), (3, 1)]
        widths = [inside, *[filters] * (len(shapes) - 1), out]
        for i, (kernel, step) in enumerate(shapes, start=1):
            convolution = nn.Conv2d(widths[i - 1], widths[i], kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{i}", convolution)
            self.add_module(f"bn{i}", nn.BatchNorm2d(widths[i]))
        self.last = len(shapes)
        self.downsample = None
        if stride > 1 or inside != out:
            self.downsample = nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = x
        for i in range(1, self.last + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y if i == self.last else y.relu()
        return (y + (self.downsample(x) if self.downsample else x)).relu()


class ResNet(nn.Module):
    """A ResNet, its parts named as torchvision names them."""

    def __init__(self, blocks, bottleneck):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        inside = 64
        for stage, count in enumerate(blocks):
            parts = []
            for i in range(count):
                filters = 64 * 2**stage
                parts.append(Block(inside, filters, 2 if stage and not i else 1, bottleneck))
                inside = 4 * filters if bottleneck else filters
            self.add_module(f"layer{stage + 1}", nn.Sequential(*parts))
        self.fc = nn.Linear(inside, 10)

    def features(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


NETWORKS = {
    ResNet18: ((2, 2, 2, 2), False),
    ResNet34: ((3, 4, 6, 3), False),
    ResNet50: ((3, 4, 6, 3), True),
}


def random_state(network, path):
    """Random weights, also of the normalization, whose defaults would hide a mistake."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 0.6)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    save_file(network.state_dict(), path)


@pytest.mark.parametrize("build", NETWORKS, ids=lambda build: build.__name__)
def test_logits_and_features_are_those_of_torch(build, tmp_path):
    theirs = ResNet(*NETWORKS[build]).eval()
    random_state(theirs, tmp_path / "a.safetensors")
    whole, headless = build((None, None, 3), classes=10), build((None, None, 3), include_top=False)
    report = load_torch(whole, tmp_path / "a.safetensors")
    assert not report.missing and not report.unused and len(report.matched) == len(whole.weights)
    unused = load_torch(headless, tmp_path / "a.safetensors").unused
    assert {weight.name for weight in unused} == {"predictions/kernel", "predictions/bias"}
    # Odd sizes pad otherwise than even ones.
    for rows, cols in ((64, 64), (75, 52)):
        x = np.random.default_rng(rows).normal(size=(1, rows, cols, 3)).astype(np.float32)
        with torch.no_grad():
            image = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
            logits, features = theirs(image).numpy(), theirs.features(image).numpy().transpose(0, 2, 3, 1)
        for ours, expected in ((whole(x), logits), (headless(x), features)):
            assert ours.shape == expected.shape
            assert np.abs(np.asarray(ours) - expected).max() < 2e-5 * max(1, np.abs(expected).max())
