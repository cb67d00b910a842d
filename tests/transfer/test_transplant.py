"""A transplantation fills by name, maps 2D kernels, reports every weight, and is done whole or not at all."""

import keras
import numpy as np
import pytest
from flat_networks import unchanged
from numpy.testing import assert_array_equal

from planar3d.errors import WeightsError
from planar3d.transfer.keras2_layout import write_legacy_h5
from planar3d.transfer.mappings import map_kernel
from planar3d.transfer.rehearsal import read_arrays
from planar3d.transfer.transplant import Weight, load_weights, transplant
from planar3d.transfer.weight_places import short_names


@pytest.fixture
def deep_network():
    """A planar convolution and one three slices deep."""
    inputs = keras.Input((4, 8, 8, 3))
    x = keras.layers.Conv3D(4, (1, 3, 3), padding="same", name="block1_conv1")(inputs)
    return keras.Model(inputs, keras.layers.Conv3D(5, 3, padding="same", name="block1_conv2")(x), name="deep")


def test_names_are_shortened_where_they_stay_distinct():
    paths = ["vgg16/block1_conv1/kernel", "conv10/bias", "a/b/c/kernel", "d/b/c/kernel", "kernel"]
    assert short_names(paths) == ["block1_conv1/kernel", *paths[1:]]


def test_a_planar_network_filled_with_2d_kernels_equals_the_2d_network_on_each_slice(
    flat_network, planar_network, values
):
    planar_network.set_weights([0 * w for w in planar_network.get_weights()])
    transplant(planar_network, values)
    stack = np.random.default_rng(2).normal(size=(1, 2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(planar_network(stack)[0], flat_network(stack[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["int64", "bool", "bfloat16"])
def test_2d_kernels_of_other_types_of_numbers_are_mapped_as_float32(deep_network, dtype):
    kernel, deeper = (np.indices(shape)[-1].astype(dtype) for shape in ((3, 3, 3, 4), (3, 3, 4, 5)))
    transplant(deep_network, {"block1_conv1/kernel": kernel, "block1_conv2/kernel": deeper}, mapping="average")
    first, second = (layer.kernel for layer in deep_network.layers[1:])
    assert_array_equal(first, kernel[None].astype(np.float32))
    assert_array_equal(second, map_kernel(deeper.astype(np.float32), "average", 3))


@pytest.mark.parametrize("shape", [(3, 3, 3, 4), (1, 3, 3, 3, 4)])
def test_raw_bytes_are_refused(deep_network, shape):
    with unchanged(deep_network), pytest.raises(WeightsError, match=r"kernel has .*V2 values, .* real numbers"):
        transplant(deep_network, {"block1_conv1/kernel": np.zeros(shape, "V2")})


def test_planar_kernels_are_loaded_as_they_are(planar_network):
    arrays = {w.path: np.array(w) + 1 for w in planar_network.weights}
    transplant(planar_network, arrays)
    for weight in planar_network.weights:
        assert_array_equal(weight, arrays[weight.path])


def test_the_report_accounts_for_every_weight_with_its_shape(planar_network, values):
    del values["block1_conv2/kernel"]
    report = transplant(planar_network, {**values, "fc1/kernel": np.ones((2, 7))})
    assert report.matched == (
        Weight("block1_conv1/kernel", (1, 3, 3, 3, 4)),
        Weight("block1_conv1/bias", (4,)),
        Weight("block1_conv2/bias", (5,)),
    )
    assert report.missing == (Weight("block1_conv2/kernel", (1, 3, 3, 4, 5)),)
    assert report.unused == (Weight("fc1/kernel", (2, 7)),)
    assert report.identity == "the user's own"
    for part in ("3 weights matched", "1 missing", "block1_conv2/kernel", "1 unused", "fc1/kernel (2, 7)"):
        assert part in str(report)


def test_deeper_kernels_are_filled_by_the_mapping_asked_for(deep_network, values):
    for options in (
        {"mapping": "zero", "tap": 2},
        {"mapping": "scale", "alpha": (0.2, 0.5, 0.3)},
        {"mapping": "average"},
    ):
        transplant(deep_network, values, **options)
        assert_array_equal(deep_network.get_layer("block1_conv1").kernel, values["block1_conv1/kernel"][np.newaxis])
        expected = map_kernel(values["block1_conv2/kernel"], depth=3, **options)
        assert_array_equal(deep_network.get_layer("block1_conv2").kernel, expected)


def test_a_deep_kernel_without_a_mapping_for_it_is_an_error_and_nothing_is_loaded(deep_network, values):
    with (
        unchanged(deep_network),
        pytest.raises(WeightsError, match=r"block1_conv2/kernel.*\(3, 3, 3, 4, 5\) of deep.*'average'"),
    ):
        transplant(deep_network, values)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("block1_conv2/kernel", (3, 3, 4, 6)),
        ("block1_conv2/kernel", (3, 3, 3, 4, 5)),
        ("block1_conv2/kernel", (4, 5)),
        ("block1_conv2/bias", (4,)),
    ],
)
def test_a_shape_that_does_not_fit_is_an_error_and_nothing_is_loaded(planar_network, values, name, shape):
    with unchanged(planar_network), pytest.raises(WeightsError) as error:
        transplant(planar_network, {**values, name: np.ones(shape, np.float32)})
    expected = {"block1_conv2/kernel": "(1, 3, 3, 4, 5)", "block1_conv2/bias": "(5,)"}[name]
    assert name in str(error.value) and str(shape) in str(error.value) and expected in str(error.value)


def test_nothing_matched_is_an_error_that_shows_both_sides(planar_network):
    with pytest.raises(WeightsError, match=r"the weights of tiny are block1_conv1/kernel.*conv51/kernel"):
        transplant(planar_network, {"conv51/kernel": np.ones((1, 3, 3, 3, 4))})
    with pytest.raises(WeightsError, match="Nothing matched"):
        transplant(planar_network, {})
    with pytest.raises(WeightsError, match="weights of bare are none"):
        transplant(keras.Sequential([keras.Input((3,)), keras.layers.ReLU()], name="bare"), {"a/kernel": np.ones(3)})


def test_strict_makes_a_missing_weight_an_error(planar_network, values):
    del values["block1_conv1/bias"]
    with unchanged(planar_network), pytest.raises(WeightsError, match=r"tiny lacks 1 weight: block1_conv1/bias \(4,\)"):
        transplant(planar_network, values, strict=True)
    renamed = {name.replace("block1_conv1", "first"): array for name, array in values.items()}
    with pytest.raises(WeightsError, match=r"lacks .* of its weights and, under other names, first/kernel"):
        transplant(planar_network, renamed, strict=True)


def test_numbered_weights_fill_a_layer_in_its_own_order():
    network = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(scale=False, name="bn")])
    transplant(network, {f"bn/{i}": np.full(4, i + 1.0) for i in range(3)}, strict=True)
    assert [float(np.mean(w)) for w in network.get_layer("bn").weights] == [1, 2, 3]


def test_any_precision_is_loaded_into_the_network_s_own(planar_network, values):
    transplant(planar_network, {name: array.astype(np.float64) for name, array in values.items()})
    assert_array_equal(planar_network.get_layer("block1_conv1").kernel[0], values["block1_conv1/kernel"])


@pytest.mark.parametrize(("policy", "number"), [("float16", 1e6), ("float32", 1e300), ("float32", np.nan)])
def test_values_that_the_precision_does_not_hold_are_refused(policy, number):
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head", dtype=policy)])
    with unchanged(network), pytest.raises(WeightsError, match=f"head/bias has values that are not finite in {policy}"):
        transplant(network, {"head/kernel": np.ones((4, 3)), "head/bias": np.full(3, number)})


def test_quantized_weights_and_those_of_floats_are_not_taken_for_each_other(tmp_path):
    def network():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")], name="classes")

    floats, quantized = network(), network()
    quantized.quantize("int8")
    for network, others in ((floats, quantized), (quantized, floats)):
        others.save(tmp_path / "others.keras")
        with (
            unchanged(network),
            pytest.raises(WeightsError, match=r"head/kernel has \w+ values, but classes needs .*quantize afterwards"),
        ):
            load_weights(network, tmp_path / "others.keras")


@pytest.mark.parametrize("root", ["", "model_weights"], ids=["weights only", "whole model"])
@pytest.mark.parametrize("variable", ["{layer}/{weight}:0", "{layer}_1/{weight}:0", "{layer}_{letter}_1:0"])
def test_a_file_of_the_original_release_loads_by_name_and_reports(
    planar_network, released_file, values, root, variable
):
    path = released_file(variable, root)
    report = load_weights(planar_network, path, strict=True)
    assert len(report.matched) == 4 and not report.missing and not report.unused
    assert report.file == str(path) and str(path) in str(report)
    assert_array_equal(planar_network.get_layer("block1_conv2").kernel[0], values["block1_conv2/kernel"])


def test_layers_of_the_network_that_the_file_lacks_stay_and_are_reported(flat_network, tmp_path):
    write_legacy_h5(tmp_path / "encoder.h5", flat_network)
    x = keras.layers.Conv2D(1, 1, name="conv10")(flat_network.output)
    network = keras.models.clone_model(keras.Model(flat_network.input, x))
    before = np.array(network.get_layer("conv10").kernel)
    report = load_weights(network, tmp_path / "encoder.h5")
    assert [weight.name for weight in report.missing] == ["conv10/kernel", "conv10/bias"]
    assert_array_equal(network.get_layer("conv10").kernel, before)
    assert_array_equal(network.get_layer("block1_conv1").kernel, flat_network.get_layer("block1_conv1").kernel)


def test_errors_while_loading_name_the_file(planar_network, tmp_path, values):
    np.savez(tmp_path / "wrong.npz", **{**values, "block1_conv1/bias": np.ones(3)})
    with pytest.raises(WeightsError, match=r"wrong\.npz: block1_conv1/bias has the shape \(3,\)"):
        load_weights(planar_network, tmp_path / "wrong.npz")


@pytest.mark.real
def test_real_weights_fill_planar_layers_and_are_identified_after_a_round_trip(real_data, tmp_path):
    with np.load(real_data / "weights/vgg16_imagenet_conv.npz") as arrays:
        np.savez(file := tmp_path / "some.npz", **{name: arrays[name] for name in list(arrays)[:8]})
    inputs = keras.Input((2, 8, 8, 3))
    x = keras.layers.Conv3D(64, (1, 3, 3), name="block1_conv1")(inputs)
    network = keras.Model(inputs, keras.layers.Conv3D(64, (1, 3, 3), name="block1_conv2")(x))
    report = load_weights(network, file, strict=True)
    assert report.identity == "ImageNet VGG-16" and len(report.matched) == 4 and len(report.unused) == 4
    network.save_weights(tmp_path / "planar.weights.h5")
    write_legacy_h5(tmp_path / "planar.h5", network)
    for name in ("planar.weights.h5", "planar.h5"):
        assert load_weights(network, tmp_path / name).identity == "ImageNet VGG-16"
        assert_array_equal(
            read_arrays(tmp_path / name)["block1_conv2/kernel"][0], read_arrays(file)["block1_conv2/kernel"]
        )


@pytest.mark.parametrize(("shape", "channels"), [((1, 3, 3, 1, 4), "1 input channel "), ((3, 3, 3, 8), "8 output ch")])
def test_kernels_with_other_channels_are_refused_with_their_number(deep_network, shape, channels):
    with pytest.raises(WeightsError, match=rf"or build it with {channels}"):
        transplant(deep_network, {"block1_conv1/kernel": np.ones(shape)})


@pytest.mark.parametrize("before", [0, 1, 2])
def test_layers_that_keras_numbered_otherwise_are_not_taken_for_one_another(tmp_path, before):
    """Here `conv3d_1` is the first layer, and in the file the second."""

    def made():
        return keras.Sequential([keras.Input((4, 8, 8, 2)), keras.layers.Conv3D(2, 1), keras.layers.Conv3D(2, 1)])

    keras.utils.clear_session()
    made().save_weights(tmp_path / "a.weights.h5")
    keras.utils.clear_session()
    for _ in range(before):
        keras.layers.Conv3D(2, 1)
    network = made()
    if before:
        says = rf"has conv3d_{max(before, 2)}/kernel, the file conv3d/kernel.*name the layers"
        with unchanged(network), pytest.raises(WeightsError, match=says):
            load_weights(network, tmp_path / "a.weights.h5")
        network.load_weights(tmp_path / "a.weights.h5")
    else:
        assert not load_weights(network, tmp_path / "a.weights.h5").missing
