"""DX-Net has the work of its authors' layers, and EfficientNet-B0's kernels at every depth tap."""

import keras
import numpy as np
import pytest
from valueless import valueless

from planar3d.conversion.channels import fitted
from planar3d.graph.described import layer_costs
from planar3d.networks.dx_net import DXNet
from planar3d.networks.efficientnet import EfficientNet

OPEN = (None, None, None, 4)


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """EfficientNet-B0 of red, green and blue, and its file."""
    network = EfficientNet("b0", (32, 32, 3))
    file = tmp_path_factory.mktemp("b0") / "b0.weights.h5"
    network.save_weights(file)
    return network, file


@pytest.mark.parametrize(("padding", "epsilon", "padded"), [("symmetric", 1e-5, 5), ("same", 1e-3, 0)])
def test_it_takes_the_work_computed_from_the_released_layers(padding, epsilon, padded):
    with valueless():
        network = DXNet(OPEN, encoder_padding=padding, encoder_epsilon=epsilon, encoder_weights=None)
    assert network.count_params() == 12_542_831
    assert sum(isinstance(layer, keras.layers.ZeroPadding3D) for layer in network.layers) == padded
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.GroupNormalization)]
    own = {layer.name for layer in norms if layer.name.startswith(("full", "up"))}
    assert {layer.name in own: layer.epsilon for layer in norms} == {True: 1e-5, False: epsilon}
    work = sum(cost.macs for cost in layer_costs(network, (128, 128, 128, 4)))
    assert round(work / 1e9, 1) == 124.0
    rates = [layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)]
    np.testing.assert_allclose(rates, [0.4 * block / 16 for block in (2, 4, 6, 7, 9, 10, 12, 13, 14)])


def test_batch_normalization_has_statistics_beside_the_same_parameters_and_random_kernels_differ_along_depth():
    network = DXNet((32, 32, 32, 4), norm="batch", encoder_weights=None)
    counted = [sum(int(np.prod(w.shape)) for w in ws) for ws in (network.trainable_weights, network.weights)]
    assert counted == [12_542_831, 12_542_831 + 41_472]
    dwconv = np.asarray(network.get_layer("block3a_dwconv").kernel)
    assert dwconv.shape == (5, 5, 5, 1, 144) and not np.array_equal(dwconv[0], dwconv[1])


@pytest.mark.parametrize("stem", ["normal", "fitted"])
def test_its_encoder_repeats_2d_kernels_along_depth(flat, stem):
    network = DXNet(OPEN, stem=stem, encoder_weights=flat[1])
    for name in ("block1a_dwconv", "block3a_dwconv", "block5c_project_conv", "block7a_se_reduce"):
        kernel, ours = flat[0].get_layer(name).kernel.numpy(), network.get_layer(name).kernel.numpy()
        if "dwconv" in name:
            kernel = kernel.transpose(0, 1, 3, 2)
        np.testing.assert_array_equal(ours, np.broadcast_to(kernel, ours.shape))
    kernel, ours = flat[0].get_layer("stem_conv").kernel.numpy(), network.get_layer("stem_conv").kernel.numpy()
    assert ours.shape == (3, 3, 3, 16, 32)
    if stem == "fitted":
        np.testing.assert_allclose(ours, np.broadcast_to(fitted(kernel, 16), ours.shape))
    else:
        assert np.std(ours) == pytest.approx(1, rel=0.05)


def test_what_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="stem='random' is unknown; choose one of: 'normal', 'fitted'"):
        DXNet(OPEN, stem="random", encoder_weights=None)
    with pytest.raises(ValueError, match="depth is 16, but dx_net halves it level by level"):
        DXNet((16, 32, 32, 4), encoder_weights=None)
