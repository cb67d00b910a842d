"""Weights loaded into a converted network are those of the network converted with the weights."""

import functools

import keras
import numpy as np
import pytest
from flat_networks import assert_same, by_slice, network_of, randomized, run, unchanged, volume
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

from planar3d.conversion.choices import KernelMapping
from planar3d.conversion.convert import convert
from planar3d.conversion.skip_levels import features
from planar3d.errors import WeightsError
from planar3d.transfer.keras2_layout import write_legacy_h5
from planar3d.transfer.rehearsal import trust
from planar3d.transfer.torch_weights import IMAGENET_MEAN, IMAGENET_STD, load_torch
from planar3d.transfer.transplant import load_weights, transplant

LAYERS = {
    "Conv2D": lambda: layers.Conv2D(4, 3, name="a"),
    "Conv2D, 1×1": lambda: layers.Conv2D(4, 1, name="a"),
    "Conv2D, groups": lambda: layers.Conv2D(6, 3, groups=3, name="a"),
    "DepthwiseConv2D": lambda: layers.DepthwiseConv2D(3, name="a"),
    "DepthwiseConv2D, multiplier": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="a"),
    "SeparableConv2D": lambda: layers.SeparableConv2D(5, 3, depth_multiplier=2, name="a"),
    "SeparableConv2D, no bias": lambda: layers.SeparableConv2D(5, 3, use_bias=False, name="a"),
    "Conv2DTranspose": lambda: layers.Conv2DTranspose(4, 3, strides=2, name="a"),
    "Dense": lambda: layers.Dense(4, name="a"),
    "BatchNormalization": lambda: layers.BatchNormalization(name="a"),
    "BatchNormalization, no scale": lambda: layers.BatchNormalization(scale=False, name="a"),
    "GroupNormalization": lambda: layers.GroupNormalization(3, name="a"),
    "LayerNormalization": lambda: layers.LayerNormalization(axis=[1, 2, 3], name="a"),
    "PReLU": lambda: layers.PReLU(name="a"),
    "Normalization": lambda: layers.Normalization(name="a"),
}


@functools.cache
def network(made, seed=0):
    """A network of a layer and another one; no test changes it."""
    flat = network_of(made(), layers.Conv2D(4, 3, padding="same", name="last"), shape=(8, 10, 3))
    return randomized(flat, seed)


def saved(flat, path):
    """The 2D network's weights in a file, in the layout that its name asks for."""
    if path.suffix == ".npz":
        names = {f"{layer.name}/{w.name}": np.asarray(w) for layer in flat.layers for w in layer.weights}
        np.savez(path, **names)
    elif path.name == "a.h5":
        write_legacy_h5(path, flat)
    else:
        (flat.save_weights if path.name.endswith(".weights.h5") else flat.save)(path)
    trust(path, path)
    return path


CHOICES = {
    "planar": {},
    "columns": {"axis": 1},
    "after columns": {"axis": 2, "mapping": "average"},
    "zero": {"mapping": "zero", "kernel_depth": 5, "tap": 1},
    "scale": {"mapping": "scale", "alpha": (0.2, 0.5, 0.3), "axis": 1},
    "by layer": {"mapping": {"last": "repeat", "*": KernelMapping("average", depth=2)}},
    "one channel": {"in_channels": 1},
    "five channels, deep": {"in_channels": 5, "mapping": "average", "axis": 1},
    "divided": {"depth_pooling": "match", "mapping": "average"},
}


@pytest.mark.parametrize("made", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_2d_weights_become_what_conversion_makes_of_them(made, choice, tmp_path):
    trained, found = network(made, 1), convert(network(made), **choice)
    report = load_weights(found, saved(trained, tmp_path / "a.npz"), strict=True)
    assert not report.unused and not report.missing
    assert_same(found, convert(trained, **choice))


@pytest.mark.parametrize("given", [keras.Variable, keras.ops.convert_to_tensor, np.ndarray.tolist])
def test_variables_tensors_and_lists_are_arrays(given):
    trained, found = network(LAYERS["Conv2D"], 1), convert(network(LAYERS["Conv2D"]))
    transplant(found, {weight.path: given(np.array(weight)) for weight in trained.weights}, strict=True)
    assert_same(found, convert(trained))


@pytest.mark.parametrize("name", ["a.weights.h5", "a.h5", "a.keras"])
@pytest.mark.parametrize(
    "made", [made for name, made in LAYERS.items() if name != "PReLU"]
)  # .h5 calls slopes a kernel
def test_files_that_number_the_weights_too(made, name, tmp_path):
    trained, found = network(made, 1), convert(network(made), axis=1)
    report = load_weights(found, saved(trained, tmp_path / name), strict=True)
    assert not report.unused and not report.missing
    assert_same(found, convert(trained, axis=1))


def test_a_normalization_computes_with_what_was_loaded_even_if_the_network_was_traced_before(tmp_path):
    trained, voxels = network(LAYERS["Normalization"], 1), volume(1, 4, 8, 10, 3)
    found, expected = convert(network(LAYERS["Normalization"])), convert(trained)
    found.predict(voxels, verbose=0)
    load_weights(found, saved(trained, tmp_path / "a.keras"), strict=True)
    assert_array_equal(run(found, voxels), run(expected, voxels))
    assert_array_equal(found.predict(voxels, verbose=0), expected.predict(voxels, verbose=0))


@pytest.mark.parametrize("mapping", ["acs", "acs_mean", "acs_soft"])
@pytest.mark.parametrize("channels", [None, 1])
def test_acs_networks_too(mapping, channels, tmp_path):
    for made in (LAYERS["Conv2D"], LAYERS["DepthwiseConv2D, multiplier"], LAYERS["SeparableConv2D"]):
        trained, found = network(made, 1), convert(network(made), mapping, in_channels=channels)
        load_weights(found, saved(trained, tmp_path / "a.keras"), strict=True)
        assert_same(found, convert(trained, mapping, in_channels=channels))


@pytest.mark.parametrize("name", ["a.weights.h5", "a.keras", "a.npz"])
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_3d_weights_of_the_network_s_own_are_loaded_as_they_are(choice, name, tmp_path):
    for made in (LAYERS["SeparableConv2D"], LAYERS["DepthwiseConv2D"], LAYERS["PReLU"]):
        trained = convert(network(made, 1), **choice)
        found = convert(network(made), **choice)
        load_weights(found, saved(trained, tmp_path / name), strict=True)
        assert_same(found, trained)


def nested(seed):
    """Two nested networks whose layers have the same names, one of them used twice, and a layer that is shared."""

    def inner(name):
        image = keras.Input((8, 8, 3))
        x = layers.SeparableConv2D(3, 3, padding="same", name="same_name")(image)
        return keras.Model(image, layers.BatchNormalization(name="norm")(x), name=name)

    image = keras.Input((8, 8, 3), name="image")
    one, other, shared = inner("one"), inner("other"), layers.Conv2D(3, 3, padding="same", name="shared")
    x = layers.Add()([one(shared(image)), other(one(image))])
    return randomized(keras.Model(image, shared(x), name="whole"), seed)


@pytest.mark.parametrize("choice", [{}, {"mapping": "average", "axis": 2}, {"in_channels": 1}])
@pytest.mark.parametrize("name", ["a.weights.h5", "a.keras"])
def test_nested_and_shared_networks_too(choice, name, tmp_path):
    trained, found = nested(1), convert(nested(0), **choice)
    file = saved(trained, tmp_path / name)
    load_weights(found, file, strict=True)
    assert_same(found, convert(trained, **choice))
    flat = nested(0)
    load_weights(flat, file, strict=True)
    assert_same(flat, trained)


def test_a_layer_made_by_the_conversion_does_not_hide_the_one_that_keras_2_named_after_its_network(tmp_path):
    def flat(seed):
        image = keras.Input((8, 8, 4))
        inner = network_of(layers.DepthwiseConv2D(3, name="conv"), shape=(8, 8, 4))
        inner.name = "inner"
        return randomized(keras.Model(image, inner(image), name="whole"), seed)

    trained, found = flat(1), convert(flat(0), in_channels=2)
    assert len(found.weights) == 3  # with a convolution to four channels
    trained.save(tmp_path / "whole.h5")
    load_weights(found, tmp_path / "whole.h5", strict=True)
    assert_same(found, convert(trained, in_channels=2))


def test_parts_of_a_converted_network_know_where_their_weights_come_from(tmp_path):
    def flat(seed):
        made = [layers.SeparableConv2D(5, 3, name="a"), layers.MaxPooling2D(), layers.Conv2D(4, 3, name="b")]
        return randomized(network_of(*made, shape=(8, 10, 3)), seed)

    found = convert(flat(0), axis=1)
    load_weights(features(found), saved(flat(1), tmp_path / "a.keras"), strict=True)
    assert_same(found, convert(flat(1), axis=1))


def test_another_mapping_than_the_network_was_converted_with_is_refused(tmp_path):
    file = saved(network(LAYERS["Conv2D"], 1), tmp_path / "a.npz")
    volumes = convert(network(LAYERS["Conv2D"]), "average")
    load_weights(volumes, file, mapping="average")
    with pytest.raises(WeightsError, match=r"a/kernel: flat_3d was converted with the mapping 'average', not 'zero'"):
        load_weights(volumes, file, mapping="zero")


def test_weights_of_another_network_are_refused_and_nothing_is_loaded():
    volumes = convert(network(LAYERS["DepthwiseConv2D"]), axis=1)
    says = r"a/kernel has the shape \(3, 3, 4, 1\).*or the 2D kernel \(3, 3, 3, 1\)"
    with unchanged(volumes), pytest.raises(WeightsError, match=says):
        transplant(volumes, {"last/bias": np.ones(4), "a/kernel": np.ones((3, 3, 4, 1), "float32")})


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("read_again", ["read", "cloned"])
def test_a_network_that_lost_its_origin_takes_planar_kernels_or_says_what_to_do(axis, read_again, tmp_path):
    def again(volumes):
        if read_again == "cloned":
            return keras.models.clone_model(volumes)
        volumes.save(tmp_path / "volumes.keras")
        return keras.saving.load_model(tmp_path / "volumes.keras", safe_mode=True)

    trained = network(LAYERS["Conv2D"], 1)
    found = again(convert(network(LAYERS["Conv2D"]), axis=axis))
    load_weights(found, saved(trained, tmp_path / "a.npz"), strict=True)
    assert_same(found, convert(trained, axis=axis))
    for made, choice in (
        ("DepthwiseConv2D", {}),
        ("SeparableConv2D", {}),
        ("Conv2D", {"in_channels": 1}),
    ):
        found = again(convert(network(LAYERS[made]), axis=axis, **choice))
        says = "no longer knows how its weights derive from 2D weights; load them into the 2D"
        for name in ("a.npz", "a.weights.h5"):
            with unchanged(found), pytest.raises(WeightsError, match=says):
                load_weights(found, saved(network(LAYERS[made], 1), tmp_path / name))


def efficientnet(seed):
    """Layers of an EfficientNet, named as they are."""
    made = [
        layers.Rescaling(1 / 255),
        layers.Normalization(name="normalization"),
        layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem_conv"),
        layers.BatchNormalization(name="stem_bn"),
        layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="block1a_dwconv"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(5, name="predictions"),
    ]
    flat = network_of(*made, shape=(8, 10, 3))
    return randomized(keras.Model(flat.input, flat.output, name="efficientnetb0"), seed)


@pytest.fixture
def torch_file(tmp_path):
    rng = np.random.default_rng(7)
    shapes = {
        "conv_stem.weight": (4, 3, 3, 3),
        **{f"bn1.{part}": (4,) for part in ("weight", "bias", "running_mean", "running_var")},
        "blocks.0.0.conv_dw.weight": (4, 1, 3, 3),
        "classifier.weight": (5, 4),
        "classifier.bias": (5,),
    }
    np.savez(tmp_path / "torch.npz", **{name: rng.uniform(0.5, 1.5, shape) for name, shape in shapes.items()})
    return tmp_path / "torch.npz"


@pytest.mark.parametrize("choice", [*CHOICES.values(), {"name": "mine"}, {"mapping": "acs_soft"}])
def test_torch_s_weights_are_the_same_before_conversion_and_after_it(choice, torch_file):
    if isinstance(choice.get("mapping"), dict):
        choice = {"mapping": {"stem_conv": "repeat", "*": "average"}}
    trained = efficientnet(0)
    load_torch(trained, torch_file)
    found = convert(efficientnet(1), **choice)
    report = load_torch(found, torch_file)
    assert not report.missing and not report.unused
    assert_same(found, convert(trained, **choice))


def test_a_converted_network_that_was_read_from_a_file_finds_its_table_of_torch_s_names(torch_file, tmp_path):
    volumes = convert(efficientnet(1))
    volumes.save(tmp_path / "volumes.keras")
    read = keras.saving.load_model(tmp_path / "volumes.keras", safe_mode=True)
    with pytest.raises(WeightsError, match=r"block1a_dwconv/kernel.*no longer knows how its weights"):
        load_torch(read, torch_file)


def test_a_nested_network_s_normalization_takes_torch_s_mean(torch_file):
    image = keras.Input((8, 10, 3))
    inner = efficientnet(0)
    whole = keras.Model(image, inner(image), name="efficientnetb0")
    grey = 100 + 50 * volume(1, 3, 8, 10, 3)
    volumes = convert(whole)
    for network in (whole, volumes):
        load_torch(network, torch_file)
    alone = efficientnet(1)
    load_torch(alone, torch_file)
    assert_allclose(np.ravel(inner.get_layer("normalization").mean), IMAGENET_MEAN, rtol=1e-6)
    assert_allclose(np.ravel(inner.get_layer("normalization").variance), np.square(IMAGENET_STD), rtol=1e-6)
    assert_allclose(run(volumes, grey), by_slice(alone, grey), rtol=1e-4, atol=1e-4)
    assert_allclose(run(volumes, grey), by_slice(whole, grey), rtol=1e-4, atol=1e-4)
