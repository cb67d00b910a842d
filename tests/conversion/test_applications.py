"""The laws of conversion, over the applications of Keras with random weights.

All of them are tested where PLANAR3D_ALL_APPLICATIONS is set; else a few of different kinds, which repeat their blocks
less often than the published ones, or are narrower, and have layers of all the kinds that those have.
"""

import inspect
import os
from functools import partial

import keras
import numpy as np
import pytest
from flat_networks import by_slice, run, volume
from keras.src.applications import densenet, efficientnet, mobilenet_v3, resnet
from valueless import valueless

from planar3d.conversion.convert import convert
from planar3d.graph.keras_graph import as_graph, layers_within, nodes_of

FEW = ("MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "DenseNet121", "ResNet50V2", "InceptionV3", "VGG16")
ALL = tuple(name for name, made in inspect.getmembers(keras.applications, inspect.isfunction))
# The smallest images that they take, or that leave slices told apart; the others take 32 pixels.
SIZES = {"MobileNet": 96, "VGG16": 64, "VGG19": 64, "InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
NAMES = ALL if os.environ.get("PLANAR3D_ALL_APPLICATIONS") else FEW


def short_stacks(x):
    for number, stride in enumerate((2, 2, 1), start=2):
        x = resnet.stack_residual_blocks_v2(x, 32 * number, 2, stride, name=f"conv{number}")
    return x


def short_v3_stack(x, kernel, activation, se_ratio):
    for number, (filters, size, stride, ratio, active) in enumerate(
        (
            (16, 3, 2, se_ratio, mobilenet_v3.relu),
            (24, 3, 2, None, mobilenet_v3.relu),
            (24, 3, 1, None, mobilenet_v3.relu),
            (40, kernel, 2, se_ratio, activation),
            (40, kernel, 1, se_ratio, activation),
        )
    ):
        expansion = 4 if number else 1
        x = mobilenet_v3._inverted_res_block(x, expansion, filters, size, stride, ratio, active, number)
    return x


def short(build, *cuts):
    """An application without the layers between those of each pair, which repeat the ones before them."""

    def made(**arguments):
        with valueless():
            whole = build(**arguments)
        x = whole.get_layer(cuts[0][0]).output
        for (_, first), last in zip(cuts, (*(last for last, _ in cuts[1:]), None), strict=True):
            end = whole.get_layer(last).output if last else whole.output
            x = keras.Model(whole.get_layer(first).output, end, name=f"behind_{first}")(x)
        return keras.models.clone_model(keras.Model(whole.input, x, name=whole.name))

    return made


def narrow_vgg16(**arguments):
    """VGG16 with an eighth of its channels."""
    with valueless():
        whole = keras.applications.VGG16(**arguments)

    def narrowed(layer):
        config = layer.get_config()
        sizes = {size: max(arguments["classes"], config[size] // 8) for size in {"filters", "units"} & config.keys()}
        return type(layer).from_config(config | sizes)

    return keras.models.clone_model(whole, clone_function=narrowed)


SHORT = {
    "MobileNetV2": short(
        keras.applications.MobileNetV2,
        ("block_3_project_BN", "block_5_add"),
        ("block_6_project_BN", "block_9_add"),
        ("block_10_project_BN", "block_12_add"),
        ("block_13_project_BN", "block_15_add"),
    ),
    "MobileNetV3Small": partial(mobilenet_v3.MobileNetV3, short_v3_stack, 64),
    "DenseNet121": partial(densenet.DenseNet, [2, 2, 2, 2]),
    "EfficientNetB0": partial(efficientnet.EfficientNet, 1.0, 0.3, 224),
    "ResNet50V2": partial(resnet.ResNet, short_stacks, True, True),
    "InceptionV3": short(keras.applications.InceptionV3, ("mixed4", "mixed7"), ("mixed9", "mixed10")),
    "VGG16": narrow_vgg16,
}


def application(name, whole=NAMES is ALL):
    """An application with its top, up to the logits, with random weights."""
    keras.utils.set_random_seed(0)
    size = SIZES.get(name, 32)
    build = getattr(keras.applications, name) if whole else SHORT.get(name, getattr(keras.applications, name))
    return build(weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None)


def kinds(network):
    """The layers' classes and whatever of their settings is neither a name nor a number of channels."""
    known = ("kernel_size", "strides", "padding", "groups", "use_bias", "activation", "axis", "pool_size", "scale")
    return {
        (type(layer).__name__, *(str(layer.get_config().get(setting)) for setting in known))
        for layer in leaves(network).values()
    }


@pytest.mark.parametrize("name", SHORT)
def test_short_applications_have_layers_of_all_kinds_of_the_whole_ones(name):
    with valueless():
        missing = kinds(application(name, whole=True)) - kinds(application(name, whole=False))
    assert not missing


def fitted(name):
    """An application with random biases and scales, whose normalizations fit what flows through it.

    With scales of one, deep random networks let rounding grow until slices alone differ from the same in a batch; and
    those of ConvNeXt's blocks begin at 1e-6, which hides all that the blocks compute.
    """
    network, rng = application(name), np.random.default_rng(0)
    normalizations = []
    for layer in layers_within(network):
        if isinstance(layer, keras.layers.BatchNormalization):
            normalizations.append((layer, layer.momentum))
            layer.momentum = 0.0
        for part in ("gamma", "beta", "bias"):
            weight = getattr(layer, part, None)
            if weight is not None:
                shape = weight.shape
                weight.assign(rng.uniform(0.15, 0.3, shape) if part == "gamma" else rng.normal(0, 0.1, shape))
    network(127 + 60 * volume(8, *network.input_shape[1:]), training=True)
    for layer, momentum in normalizations:
        layer.momentum = momentum
        layer.moving_variance.assign(layer.moving_variance * rng.uniform(0.7, 1.4, layer.moving_variance.shape) + 1e-3)
    return network


@pytest.fixture(scope="module", params=NAMES)
def flat(request):
    yield fitted(request.param)
    keras.backend.clear_session()


@pytest.fixture(scope="module")
def voxels(flat):
    return 127 + 60 * volume(1, 2, *flat.input_shape[1:], seed=2)


@pytest.fixture(scope="module")
def expected(flat, voxels):
    return by_slice(flat, voxels)


@pytest.fixture(scope="module")
def rounding(flat, voxels, expected):
    """The largest difference that counts as none: what slices alone differ by from the same in a batch, and 1e-5."""
    alone = np.concatenate([run(flat, each[np.newaxis]) for each in voxels[0]])
    largest = 1e-5 * np.abs(expected).max() + 30 * np.abs(alone - expected[0]).max()
    assert np.ptp(expected, axis=1).max() > 30 * largest, f"rounding grows so much in {flat.name} that nothing is told"
    return largest


def test_planar_equals_the_2d_network_slice_by_slice(flat, voxels, expected, rounding):
    volumes = convert(flat)
    assert volumes.transfer_report.share == 1 and volumes.count_params() == flat.count_params()
    np.testing.assert_allclose(run(volumes, voxels), expected, rtol=0, atol=rounding)


def test_one_channel_equals_three_on_grey_volumes(flat, voxels, rounding):
    grey = np.repeat(voxels[..., :1], 3, axis=-1)
    found = run(convert(flat, in_channels=1), grey[..., :1])
    np.testing.assert_allclose(found, by_slice(flat, grey), rtol=0, atol=rounding)


def test_zero_with_its_tap_at_the_centre_equals_planar(flat, voxels, expected, rounding):
    np.testing.assert_allclose(run(convert(flat, "zero", kernel_depth=3), voxels), expected, rtol=0, atol=rounding)


@pytest.mark.parametrize(("mapping", "alpha"), [("average", None), ("scale", (0.2, 0.5, 0.3))])
def test_average_and_scale_equal_the_network_where_slices_do_not_differ(flat, voxels, rounding, mapping, alpha):
    """With the first kernel deep: were all of them, the borders of a short volume would reach its middle slice."""
    first = next(layer.name for layer in flat.layers if hasattr(layer, "kernel_size"))
    constant = np.repeat(voxels[:, :1], 3, axis=1)
    found = run(convert(flat, {first: mapping}, kernel_depth=3, alpha=alpha), constant)
    np.testing.assert_allclose(found[:, 1], by_slice(flat, constant)[:, 1], rtol=0, atol=rounding)


def test_average_equals_the_network_far_from_the_borders(flat, voxels, rounding):
    """All kernels deep, in a volume so deep that no border reaches its middle slice."""
    volumes = convert(flat, "average", kernel_depth=3)
    reach = border_reach(volumes)
    if reach > 70:
        pytest.skip(f"borders reach {reach} slices far")
    constant = np.repeat(voxels[:, :1], 2 * reach + 1, axis=1)
    expected = by_slice(flat, voxels[:, :1])[:, 0]
    np.testing.assert_allclose(run(volumes, constant)[:, reach], expected, rtol=0, atol=rounding)


@pytest.mark.parametrize("name", NAMES)
def test_acs_and_repeat_are_layer_by_layer_made_of_the_planar_ones(name):
    """The first third of an ACS layer's channels lies in the plane; repeated taps add equal slices up."""
    flat = application(name)
    planar = leaves(convert(flat))
    compared = 0
    for mapping in ("acs", "repeat"):
        for of, layer in leaves(convert(flat, mapping, kernel_depth=3 if mapping == "repeat" else None)).items():
            same = of in planar and type(layer) is type(planar[of])
            if of not in planar or (same and getattr(layer, "kernel_size", (1,))[0] == 1):
                continue
            voxels = volume(1, 3, 9, 9, planar[of].input.shape[-1], seed=3)
            if mapping == "repeat":
                assert not getattr(layer, "use_bias", False) or not np.any(layer.bias)
                voxels = np.repeat(voxels[:, :1], 3, axis=1)
            found, expected = run(layer, voxels), run(planar[of], voxels)
            if mapping == "repeat":
                found, expected = found[:, found.shape[1] // 2], 3 * expected[:, 1]
            third = -(-found.shape[-1] // 3) if mapping == "acs" else None
            np.testing.assert_allclose(found[..., :third], expected[..., :third], rtol=1e-3, atol=1e-4)
            compared += 1
    assert compared
    keras.backend.clear_session()


def leaves(network):
    """All layers by name, those of nested networks too."""
    return {layer.name: layer for layer in layers_within(network) if not isinstance(layer, keras.Model)}


def border_reach(network):
    """Slices from a border that depend on what lies beyond it: one for each deep kernel on the longest way."""
    reach = {id(tensor): 0 for tensor in network.inputs}
    for node in nodes_of(network):
        size = getattr(node.operation, "kernel_size", (1,))
        inner = border_reach(as_graph(node.operation)) if isinstance(node.operation, keras.Model) else size[0] // 2
        known = max(reach[id(tensor)] for tensor in node.input_tensors) + inner
        reach.update((id(tensor), known) for tensor in node.outputs)
    return max(reach[id(tensor)] for tensor in network.outputs)
