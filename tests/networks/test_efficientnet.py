"""EfficientNets compute what those of keras.applications and of torch compute with the same arrays."""

import keras
import numpy as np
import pytest
from keras.src.applications import efficientnet as applications
from narrow_networks import narrow_networks
from valueless import valueless

from planar3d.conversion.convert import convert
from planar3d.errors import WeightsError
from planar3d.graph.keras_graph import nodes_of
from planar3d.networks import efficientnet
from planar3d.networks.efficientnet import SCALES, STAGES, EfficientNet, EfficientNetLite0
from planar3d.scans.volume import read_scan
from planar3d.transfer.torch_names import torch_names
from planar3d.transfer.torch_weights import load_torch

WEIGHTS = "weights/efficientnet_lite0_imagenet_keras_layout.npz"


def in_torch(torch, arrays, x):
    """Logits (batch, classes) by torch's functions; arrays by EfficientNet-PyTorch's names in Keras' order of axes."""
    act, tensors = torch.nn.functional, {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}

    def convolved(x, name, stride=1):
        kernel = tensors[f"{name}.weight"]
        depthwise = "depthwise" in name
        kernel = kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
        size = kernel.shape[-1]
        # TensorFlow's 'same': as much as is needed, and the odd one at the end.
        needed = [max(0, (-(-n // stride) - 1) * stride + size - n) for n in (x.shape[3], x.shape[2])]
        x = act.pad(x, [side for n in needed for side in (n // 2, n - n // 2)])
        return act.conv2d(x, kernel, stride=stride, groups=x.shape[1] if depthwise else 1)

    def normalized(x, name):
        mean, var, gamma, beta = (tensors[f"{name}.{w}"] for w in ("running_mean", "running_var", "weight", "bias"))
        return act.batch_norm(x, mean, var, gamma, beta, eps=1e-3)

    x = act.relu6(normalized(convolved(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), "_conv_stem", 2), "_bn0"))
    number = 0
    for stage in STAGES:
        for i in range(stage.blocks):
            y, name = x, f"_blocks.{number}"
            if f"{name}._expand_conv.weight" in tensors:
                y = act.relu6(normalized(convolved(y, f"{name}._expand_conv"), f"{name}._bn0"))
            stride = 1 if i else stage.stride
            y = act.relu6(normalized(convolved(y, f"{name}._depthwise_conv", stride), f"{name}._bn1"))
            y = normalized(convolved(y, f"{name}._project_conv"), f"{name}._bn2")
            x, number = (x + y if i else y), number + 1
    x = act.relu6(normalized(convolved(x, "_conv_head"), "_bn1"))
    return (x.mean((2, 3)) @ tensors["_fc.weight"] + tensors["_fc.bias"]).numpy()


@pytest.fixture
def weights(real_data):
    return real_data / WEIGHTS


@pytest.fixture
def slices(real_data):
    """Neighbouring slices of a FLAIR as the network expects them, (slices, rows, cols, RGB), rows and cols odd."""
    voxels = read_scan(min((real_data / "data/ms_flair").glob("sub-*/anat/*FLAIR.nii.gz"))).voxels
    voxels = np.moveaxis(voxels, -1, 0)[8:10, 40:167, 50:181].astype(np.float32)
    grey = 255 * np.clip(voxels / np.percentile(voxels, 99.5), 0, 1)
    return np.repeat(((grey - 127) / 128)[..., np.newaxis], 3, axis=-1).astype(np.float32)


@pytest.mark.real
def test_logits_of_real_slices_are_those_of_torch(torch, weights, slices):
    network = EfficientNetLite0((None, None, 3))
    report = load_torch(network, weights, layout="keras")
    assert len(report.matched) == len(network.weights) == 247 and not report.missing and not report.unused
    with np.load(weights) as arrays:
        expected = in_torch(torch, dict(arrays), slices)
    assert np.abs(np.asarray(network(slices)) - expected).max() < 1e-4 < np.abs(expected).max()


@pytest.mark.real
def test_converted_to_3d_it_equals_itself_on_every_slice_of_a_real_scan(weights, slices):
    network = EfficientNetLite0((None, None, 3), include_top=False)
    load_torch(network, weights, layout="keras")
    volumes = convert(network)
    expected, found = np.asarray(network(slices)), np.asarray(volumes(slices[np.newaxis]))[0]
    assert volumes.transfer_report.share == 1 and found.shape == expected.shape == (2, 4, 5, 1280)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_it_has_the_parameters_of_its_paper_and_halves_the_image_five_times():
    with valueless():
        network, encoder = EfficientNetLite0((64, 96, 3)), EfficientNetLite0((64, 96, 3), include_top=False)
    assert network.output_shape == (None, 1000)
    # Google's table of the lite variants: 4.7 million.
    assert round(network.count_params() / 1e6, 1) == 4.7
    assert encoder.output_shape == (None, 2, 3, 1280)


def test_it_is_keras_applications_network_without_the_standardization():
    theirs = keras.applications.EfficientNetB0(False, None, input_shape=(64, 96, 3))
    ours = EfficientNet("b0", (64, 96, 3))
    assert sum(int(np.prod(v.shape)) for v in ours.trainable_weights) == 4_007_548
    named = {weight.path: weight for weight in theirs.weights if "normalization" not in weight.path}
    assert named.keys() == {weight.path for weight in ours.weights}
    rng = np.random.default_rng(0)
    for weight in ours.weights:
        assert weight.shape == named[weight.path].shape
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) if "variance" in weight.path else weight)
        named[weight.path].assign(weight)
    entry = theirs.get_layer("stem_conv_pad").input
    body = keras.Model(entry, theirs.output)
    x = rng.standard_normal((2, 64, 96, 3)).astype(np.float32)
    np.testing.assert_allclose(ours(x), body(x), rtol=1e-4, atol=1e-6)


def _layers(network):
    """What each layer is, puts out and takes, by its name, but for layers that standardize or only pad."""
    left_out = (keras.layers.Rescaling, keras.layers.Normalization, keras.layers.ZeroPadding2D)
    found, standing_for = {}, {}
    for node in nodes_of(network):
        layer, before = node.operation, [standing_for.get(id(t), "input") for t in node.input_tensors]
        standing_for[id(node.outputs[0])] = before[0] if isinstance(layer, left_out) else layer.name
        if not isinstance(layer, left_out):
            dropped = round(getattr(layer, "rate", 0), 9), getattr(layer, "noise_shape", None)
            active = getattr(layer, "activation", None)
            found[layer.name] = (type(layer), layer.output.shape, active, dropped, before)
    return found


def _assert_same_layers(ours, theirs):
    assert _layers(ours) == _layers(theirs)
    shapes = {w.path: w.shape for w in theirs.weights if "normalization" not in w.path}
    assert {w.path: w.shape for w in ours.weights} == shapes


def test_a_wide_and_deep_variant_has_the_layers_of_keras_applications():
    with valueless():
        theirs = keras.applications.EfficientNetB4(False, None, input_shape=(32, 64, 3))
        ours = EfficientNet("b4", (32, 64, 3))
    _assert_same_layers(ours, theirs)


@pytest.mark.parametrize("variant", SCALES)
def test_all_variants_have_the_factors_of_keras_applications_and_its_widths(variant, monkeypatch):
    of_keras = applications.EfficientNet
    with monkeypatch.context() as patch:
        patch.setattr(applications, "EfficientNet", lambda *factors, **_: factors[:2])
        wider, deeper = getattr(applications, f"EfficientNet{variant.upper()}")()
    assert SCALES[variant] == (wider, deeper)
    monkeypatch.setitem(SCALES, variant, (wider, 0.1))  # one block of each stage
    with valueless():
        theirs = of_keras(wider, 0.1, 32, name="short", include_top=False, weights=None, input_shape=(32, 64, 3))
        ours = EfficientNet(variant, (32, 64, 3))
    _assert_same_layers(ours, theirs)


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"variant": "b8"}, "variant='b8' is unknown; choose one of: 'b0', 'b1'"),
        ({"norm": "layer"}, "norm='layer' is unknown; choose one of: 'batch', 'instance'"),
        ({"padding": "valid"}, "padding='valid' is unknown; choose one of: 'same', 'symmetric'"),
    ],
)
def test_what_does_not_exist_is_refused(choice, says):
    with pytest.raises(ValueError, match=says):
        EfficientNet(**choice)


def test_with_symmetric_padding_strides_centre_on_even_pixels_as_torch_s(monkeypatch):
    monkeypatch.setattr(efficientnet, "STAGES", ())
    same, symmetric = (EfficientNet("b0", (32, 32, 3), padding=padding) for padding in ("same", "symmetric"))
    for model in (same, symmetric):
        model.get_layer("stem_conv").kernel.assign(
            np.eye(3)[1][:, None, None, None] * np.eye(3)[1][:, None, None] * np.ones((3, 32))
        )
    x = np.arange(32.0)[None, :, None, None] * np.ones((1, 32, 32, 3))
    # The kernel's middle alone counts: it says on which row each output centres.
    rows = [keras.Model(m.input, m.get_layer("stem_conv").output)(x)[0, :, 5, 0] for m in (same, symmetric)]
    np.testing.assert_array_equal(rows[0], 3 * np.arange(1, 32, 2))
    np.testing.assert_array_equal(rows[1], 3 * np.arange(0, 32, 2))


def test_an_instance_is_normalized_by_itself(monkeypatch):
    narrow_networks(monkeypatch)
    network = EfficientNet("b0", (32, 32, 16), norm="instance", epsilon=1e-5, drop_path=0)
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 16)).astype(np.float32)
    both, alone = network(x), network(x[:1])
    np.testing.assert_allclose(both[:1], alone, rtol=1e-4, atol=1e-5)
    assert not any(
        isinstance(layer, keras.layers.BatchNormalization | keras.layers.Dropout) for layer in network.layers
    )
    assert len(network.trainable_weights) == len(network.weights)


def as_released(torch, state, x, rank):
    """The encoder of Messaoudi 2023 by torch's functions, on images, or on volumes with its kernels repeated."""
    act = torch.nn.functional
    convolve, axes = (act.conv2d, act.conv3d)[rank - 2], tuple(range(2, 2 + rank))

    def convolved(x, name, stride=1):
        kernel = state[f"{name}.weight"]
        size = kernel.shape[-1]
        kernel = kernel if rank == 2 else kernel.unsqueeze(2).repeat(1, 1, size, 1, 1)
        groups = x.shape[1] if name.endswith("conv_dw") else 1
        return convolve(x, kernel, state.get(f"{name}.bias"), stride, size // 2, groups=groups)

    def normalized(x, name):
        mean, var, gamma, beta = (state[f"{name}.{w}"] for w in ("running_mean", "running_var", "weight", "bias"))
        return act.batch_norm(x, mean, var, gamma, beta, eps=1e-5)

    x = act.silu(normalized(convolved(x, "conv1", 2), "bnorm1"))
    for number, stage in enumerate(STAGES):
        for i in range(stage.blocks):
            y, block = x, f"enc{number}.{i}"
            if number:
                y = act.silu(normalized(convolved(y, f"{block}.conv_pw"), f"{block}.bn1"))
            project, *norms = ("conv_pwl", "bn2", "bn3") if number else ("conv_pw", "bn1", "bn2")
            y = convolved(y, f"{block}.conv_dw", 1 if i else stage.stride)
            y = act.silu(normalized(y, f"{block}.{norms[0]}"))
            share = act.silu(convolved(y.mean(axes, keepdim=True), f"{block}.se.conv_reduce"))
            y = y * torch.sigmoid(convolved(share, f"{block}.se.conv_expand"))
            y = normalized(convolved(y, f"{block}.{project}"), f"{block}.{norms[1]}")
            x = x + y if i else y
    return act.silu(normalized(convolved(x, "conv_head"), "norm_head"))


def test_the_released_encoder_s_weights_compute_in_2d_and_converted_what_they_do_in_torch(torch, tmp_path):
    keras.utils.set_random_seed(0)
    theirs, ours = (EfficientNet("b0", (32, 32, 3), padding="symmetric", epsilon=1e-5) for _ in range(2))
    layers = {layer.name: layer for layer in theirs.layers}
    parts = {"gamma": "weight", "moving_mean": "running_mean", "moving_variance": "running_var", "kernel": "weight"}
    rng, state = np.random.default_rng(0), {}
    for torch_name, name in torch_names("efficientnetb0").items():
        released = torch_name.startswith(("conv1", "bnorm1", "enc", "conv_head", "norm_head"))
        for weight in layers[name].weights if released and name in layers else ():
            normalizes = isinstance(layers[name], keras.layers.BatchNormalization)
            array = rng.uniform(0.5, 1.5, weight.shape) if normalizes else np.asarray(weight)
            if array.ndim == 4:
                depthwise = isinstance(layers[name], keras.layers.DepthwiseConv2D)
                array = array.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
            part = parts.get(weight.name, "bias")
            state[f"{torch_name}.{part}"] = torch.from_numpy(np.ascontiguousarray(array, np.float32))
    torch.save(state, tmp_path / "Efficient_B0_3ch.pt")
    report = load_torch(ours, tmp_path / "Efficient_B0_3ch.pt")
    assert not report.missing and not report.unused
    volumes = convert(ours, "repeat", depth_pooling="match", global_pooling="volume")
    for network, shape in ((ours, (1, 32, 32, 3)), (volumes, (1, 32, 32, 32, 3))):
        x = rng.standard_normal(shape).astype(np.float32)
        with torch.no_grad():
            given = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
            expected = np.moveaxis(as_released(torch, state, given, len(shape) - 2).numpy(), 1, -1)
        assert np.abs(network(x) - expected).max() < 1e-4 * np.abs(expected).max()
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3)), tmp_path / "Full_Efficient_B0_3ch.pt")
    with pytest.raises(WeightsError, match="has more than tensors"):
        load_torch(ours, tmp_path / "Full_Efficient_B0_3ch.pt")


def _seen(array, size, stride):
    """What a kernel sees at each place, (rows, cols, channels, size, size), with TensorFlow's padding 'same'."""
    needed = [max(0, (-(-n // stride) - 1) * stride + size - n) for n in array.shape[:2]]
    padded = np.pad(array, [*((n // 2, n - n // 2) for n in needed), (0, 0)])
    return np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(0, 1))[::stride, ::stride]


def by_numpy(state, x):
    """Stem and first blocks of two stages of timm's `tf_efficientnet_b0`, from one image (rows, cols, RGB)."""

    def convolved(x, name, stride=1):
        kernel = state[f"{name}.weight"]
        sums = "rcaij,abij->rca" if name.endswith("conv_dw") else "rcaij,oaij->rco"
        return np.einsum(sums, _seen(x, kernel.shape[-1], stride), kernel) + state.get(f"{name}.bias", 0)

    def normalized(x, name):
        mean, var, gamma, beta = (state[f"{name}.{w}"] for w in ("running_mean", "running_var", "weight", "bias"))
        return (x - mean) / np.sqrt(var + 1e-3) * gamma + beta

    def silu(x):
        return x / (1 + np.exp(-x))

    def excited(x, name):
        share = silu(convolved(x.mean((0, 1), keepdims=True), f"{name}.se.conv_reduce"))
        return x / (1 + np.exp(-convolved(share, f"{name}.se.conv_expand")))

    x = silu(normalized(convolved(x, "conv_stem", 2), "bn1"))
    x = excited(silu(normalized(convolved(x, "blocks.0.0.conv_dw"), "blocks.0.0.bn1")), "blocks.0.0")
    x = normalized(convolved(x, "blocks.0.0.conv_pw"), "blocks.0.0.bn2")
    x = silu(normalized(convolved(x, "blocks.1.0.conv_pw"), "blocks.1.0.bn1"))
    x = excited(silu(normalized(convolved(x, "blocks.1.0.conv_dw", 2), "blocks.1.0.bn2")), "blocks.1.0")
    return normalized(convolved(x, "blocks.1.0.conv_pwl"), "blocks.1.0.bn3")


def test_timm_s_weights_compute_in_the_first_blocks_what_they_do_in_numpy(tmp_path, monkeypatch):
    monkeypatch.setattr(efficientnet, "STAGES", STAGES[:2])
    rng, state = np.random.default_rng(0), {}
    convolutions = {
        **{"conv_stem": (32, 3, 3, 3), "blocks.0.0.conv_dw": (32, 1, 3, 3), "blocks.0.0.conv_pw": (16, 32, 1, 1)},
        **{"blocks.0.0.se.conv_reduce": (8, 32, 1, 1), "blocks.0.0.se.conv_expand": (32, 8, 1, 1)},
        **{"blocks.1.0.conv_pw": (96, 16, 1, 1), "blocks.1.0.conv_dw": (96, 1, 3, 3)},
        **{"blocks.1.0.se.conv_reduce": (4, 96, 1, 1), "blocks.1.0.se.conv_expand": (96, 4, 1, 1)},
        "blocks.1.0.conv_pwl": (24, 96, 1, 1),
    }
    norms = {"bn1": 32, "blocks.0.0.bn1": 32, "blocks.0.0.bn2": 16}
    norms |= {"blocks.1.0.bn1": 96, "blocks.1.0.bn2": 96, "blocks.1.0.bn3": 24}
    for name, shape in convolutions.items():
        state[f"{name}.weight"] = rng.normal(0, np.prod(shape[1:]) ** -0.5, shape)
        if ".se." in name:
            state[f"{name}.bias"] = rng.normal(size=shape[0])
    for name, channels in norms.items():
        for part in ("running_mean", "running_var", "weight", "bias"):
            state[f"{name}.{part}"] = rng.uniform(0.5, 1.5, channels)
    np.savez(tmp_path / "timm.npz", **{name: array.astype(np.float32) for name, array in state.items()})
    whole = EfficientNet("b0", (32, 32, 3))
    network = keras.Model(whole.input, whole.get_layer("block2a_project_bn").output, name=whole.name)
    report = load_torch(network, tmp_path / "timm.npz")
    assert len(report.matched) == len(state) == len(network.weights) and not report.unused
    x = rng.normal(size=(32, 32, 3))
    expected = by_numpy(state, x)
    assert expected.shape == (8, 8, 24)
    np.testing.assert_allclose(network(x[np.newaxis].astype(np.float32))[0], expected, rtol=1e-3, atol=1e-4)
