"""The laws of conversion, over the applications of Keras with random weights.

All of them are tested where PLANAR3D_ALL_APPLICATIONS is set; else a few of different kinds, which repeat their blocks
less often than the published ones, or are narrower, and have layers of all the kinds that those have.
"""

import inspect
import os
from functools import cache, partial

import keras
import numpy as np
import pytest
from flat_networks import by_slice, run, volume
from keras.src.applications import densenet, efficientnet, mobilenet_v3, resnet
from valueless import valueless

from planar3d.conversion.choices import KernelMapping
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


@cache
def valueless_whole(name):
    """A whole application, without values."""
    with valueless():
        return built(getattr(keras.applications, name), name)


def short(name, *cuts):
    """An application without the layers between those of each pair, which repeat the ones before them."""

    def made(**arguments):
        whole = valueless_whole(name)
        x = whole.get_layer(cuts[0][0]).output
        for (_, first), last in zip(cuts, (*(last for last, _ in cuts[1:]), None), strict=True):
            end = whole.get_layer(last).output if last else whole.output
            x = keras.Model(whole.get_layer(first).output, end, name=f"behind_{first}")(x)
        return keras.models.clone_model(keras.Model(whole.input, x, name=whole.name))

    return made


def narrow_vgg16(classes, **arguments):
    """VGG16 with an eighth of its channels."""

    def narrowed(layer):
        config = layer.get_config()
        sizes = {size: max(classes, config[size] // 8) for size in {"filters", "units"} & config.keys()}
        return type(layer).from_config(config | sizes)

    return keras.models.clone_model(valueless_whole("VGG16"), clone_function=narrowed)


SHORT = {
    "MobileNetV2": short(
        "MobileNetV2",
        ("block_3_project_BN", "block_5_add"),
        ("block_6_project_BN", "block_9_add"),
        ("block_10_project_BN", "block_12_add"),
        ("block_13_project_BN", "block_15_add"),
    ),
    "MobileNetV3Small": partial(mobilenet_v3.MobileNetV3, short_v3_stack, 64),
    "DenseNet121": partial(densenet.DenseNet, [2, 2, 2, 2]),
    "EfficientNetB0": partial(efficientnet.EfficientNet, 1.0, 0.3, 224),
    "ResNet50V2": partial(resnet.ResNet, short_stacks, True, True),
    "InceptionV3": short("InceptionV3", ("mixed4", "mixed7"), ("mixed9", "mixed10")),
    "VGG16": narrow_vgg16,
}


def built(build, name):
    """An application with its top, up to the logits."""
    size = SIZES.get(name, 32)
    return build(weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None)


def kind(layer):
    """A layer's class and whatever of its settings is neither a name nor a number of channels."""
    known = ("kernel_size", "strides", "padding", "groups", "use_bias", "activation", "axis", "pool_size", "scale")
    config = layer.get_config()
    return (type(layer).__name__, *(str(config.get(setting)) for setting in known))


def fitted(name):
    """An application with random biases and scales, whose normalizations fit what flows through it.

    With scales of one, deep random networks let rounding grow until slices alone differ from the same in a batch; and
    those of ConvNeXt's blocks begin at 1e-6, which hides all that the blocks compute.
    """
    keras.utils.set_random_seed(0)
    rng, whole = np.random.default_rng(0), getattr(keras.applications, name)
    network = built(whole if NAMES is ALL else SHORT.get(name, whole), name)
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
def name(request):
    return request.param


@pytest.fixture(scope="module")
def flat(name):
    yield fitted(name)
    keras.backend.clear_session()


@pytest.fixture(scope="module")
def planar(flat):
    return convert(flat)


@pytest.fixture(scope="module")
def first_kernels(flat):
    """The names of the first two layers whose kernels get deep."""
    return [layer.name for layer in flat.layers if max(getattr(layer, "kernel_size", (1,))) > 1][:2]


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


@pytest.mark.skipif(NAMES is ALL, reason="none is short")
def test_short_applications_have_layers_of_all_kinds_of_the_whole_ones(name, flat):
    short, whole = ({kind(layer) for layer in leaves(each).values()} for each in (flat, valueless_whole(name)))
    assert not whole - short


def test_planar_equals_the_2d_network_slice_by_slice(flat, planar, voxels, expected, rounding):
    assert planar.transfer_report.share == 1 and planar.count_params() == flat.count_params()
    np.testing.assert_allclose(run(planar, voxels), expected, rtol=0, atol=rounding)


def test_one_channel_equals_three_on_grey_volumes(flat, voxels, first_kernels):
    """Up to the first kernel, behind which channels are no images."""
    beginning = keras.Model(flat.input, flat.get_layer(first_kernels[0]).output)
    grey = np.repeat(voxels[..., :1], 3, axis=-1)
    expected = by_slice(beginning, grey)
    found = run(convert(beginning, in_channels=1), grey[..., :1])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_zero_with_its_tap_at_the_centre_equals_planar(flat, voxels, expected, rounding):
    np.testing.assert_allclose(run(convert(flat, "zero", kernel_depth=3), voxels), expected, rtol=0, atol=rounding)


def test_average_and_scale_equal_the_network_where_slices_do_not_differ(flat, voxels, rounding, first_kernels):
    """With the first kernels deep: were all of them, the borders of a short volume would reach its middle slice."""
    mappings = dict(zip(first_kernels, ("average", KernelMapping("scale", 3, alpha=(0.125, 0.5, 0.375))), strict=True))
    constant = np.repeat(voxels[:, :1], 5, axis=1)
    found = run(convert(flat, mappings, kernel_depth=3), constant)
    np.testing.assert_allclose(found[:, 2], by_slice(flat, constant[:, :1])[:, 0], rtol=0, atol=2 * rounding)


def test_average_equals_the_network_far_from_the_borders(flat, voxels, rounding):
    """All kernels deep, in a volume so deep that no border reaches its middle slice."""
    volumes = convert(flat, "average", kernel_depth=3)
    reach = border_reach(volumes)
    if reach > 70:
        pytest.skip(f"borders reach {reach} slices far")
    constant = np.repeat(voxels[:, :1], 2 * reach + 1, axis=1)
    expected = by_slice(flat, voxels[:, :1])[:, 0]
    np.testing.assert_allclose(run(volumes, constant)[:, reach], expected, rtol=0, atol=rounding)


def test_acs_and_repeat_are_layer_by_layer_made_of_the_planar_ones(flat, planar):
    """The first third of an ACS layer's channels lies in the plane; repeated taps add equal slices up."""
    planes = leaves(planar)
    for mapping in ("acs", "repeat"):
        compared = set()
        for of, layer in leaves(convert(flat, mapping, kernel_depth=3 if mapping == "repeat" else None)).items():
            same = of in planes and type(layer) is type(planes[of])
            if of not in planes or (same and getattr(layer, "kernel_size", (1,))[0] == 1):
                continue
            channels = planes[of].output.shape[-1]
            if (kind(layer), channels % 3) in compared:
                continue
            compared.add((kind(layer), channels % 3))
            if getattr(layer, "use_bias", False):  # which is added once, not with each tap
                layer.bias.assign(0 * layer.bias)
                planes[of].bias.assign(layer.bias)
            voxels = volume(1, 3, 9, 9, planes[of].input.shape[-1], seed=3)
            if mapping == "repeat":
                voxels = np.repeat(voxels[:, :1], 3, axis=1)
            found, expected = run(layer, voxels), run(planes[of], voxels)
            if mapping == "repeat":
                found, expected = found[:, found.shape[1] // 2], 3 * expected[:, 1]
            third = -(-channels // 3) if mapping == "acs" else None
            np.testing.assert_allclose(found[..., :third], expected[..., :third], rtol=1e-3, atol=1e-4)
        assert compared


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
