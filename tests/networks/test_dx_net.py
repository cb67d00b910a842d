"""DX-Net has the work of its authors' layers, and EfficientNet-B0's kernels at every depth tap."""

import keras
import numpy as np
import pytest
from narrow_networks import narrow_networks
from valueless import valueless

from planar3d.conversion.channels import fitted
from planar3d.graph.described import layer_costs
from planar3d.networks.dx_net import DXNet
from planar3d.networks.efficientnet import EfficientNet

OPEN = (None, None, None, 4)


@pytest.mark.parametrize(
    ("norm", "padding", "epsilon", "padded"), [("instance", "symmetric", 1e-5, 5), ("batch", "same", 1e-3, 0)]
)
def test_it_has_the_work_and_the_parameters_computed_from_the_released_layers(norm, padding, epsilon, padded):
    with valueless():
        network = DXNet(OPEN, norm=norm, encoder_padding=padding, encoder_epsilon=epsilon, encoder_weights=None)
    statistics = 41_472 if norm == "batch" else 0
    assert [sum(w.shape.num_elements() for w in ws) for ws in (network.trainable_weights, network.weights)] == [
        12_542_831,
        12_542_831 + statistics,
    ]
    assert sum(isinstance(layer, keras.layers.ZeroPadding3D) for layer in network.layers) == padded
    kind = {"instance": keras.layers.GroupNormalization, "batch": keras.layers.BatchNormalization}[norm]
    norms = [layer for layer in network.layers if isinstance(layer, kind)]
    own = {layer.name for layer in norms if layer.name.startswith(("full", "up"))}
    assert {layer.name in own: layer.epsilon for layer in norms} == {True: 1e-5, False: epsilon}
    work = sum(cost.macs for cost in layer_costs(network, (128, 128, 128, 4)))
    assert round(work / 1e9, 1) == 124.0
    rates = [layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)]
    np.testing.assert_allclose(rates, [0.4 * block / 16 for block in (2, 4, 6, 7, 9, 10, 12, 13, 14)])


def test_its_encoder_repeats_2d_kernels_along_depth_and_random_ones_differ(tmp_path, monkeypatch):
    narrow_networks(monkeypatch)
    file, flat = tmp_path / "b0.weights.h5", EfficientNet("b0", (32, 32, 3))
    flat.save_weights(file)
    networks = {stem: DXNet(OPEN, stem=stem, encoder_weights=file) for stem in ("normal", "fitted")}
    for name in ("block1a_dwconv", "block3a_dwconv", "block4a_project_conv", "block6a_se_reduce"):
        kernel = flat.get_layer(name).kernel.numpy()
        if "dwconv" in name:
            kernel = kernel.transpose(0, 1, 3, 2)
        for network in networks.values():
            ours = network.get_layer(name).kernel.numpy()
            np.testing.assert_array_equal(ours, np.broadcast_to(kernel, ours.shape))
    kernel = flat.get_layer("stem_conv").kernel.numpy()
    normal, ours = (networks[stem].get_layer("stem_conv").kernel.numpy() for stem in ("normal", "fitted"))
    assert ours.shape == (3, 3, 3, 16, 32)
    np.testing.assert_allclose(ours, np.broadcast_to(fitted(kernel, 16), ours.shape))
    assert np.std(normal) == pytest.approx(1, rel=0.05)
    random = DXNet(OPEN, encoder_weights=None).get_layer("block3a_dwconv").kernel.numpy()
    assert random.shape[:3] == (5, 5, 5) and not np.array_equal(random[0], random[1])


def test_what_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="stem='random' is unknown; choose one of: 'normal', 'fitted'"):
        DXNet(OPEN, stem="random", encoder_weights=None)
    with pytest.raises(ValueError, match="depth is 16, but dx_net halves it level by level"):
        DXNet((16, 32, 32, 4), encoder_weights=None)
