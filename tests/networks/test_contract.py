"""What every network of the table must do: the same tests for each of them."""

import json
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
from narrow_networks import narrow_networks
from valueless import valueless

from planar3d.errors import ConversionError, RecipeError, WeightsError
from planar3d.graph.described import described
from planar3d.graph.keras_graph import name_of
from planar3d.inference.export import export_network
from planar3d.inference.predictor import predict_volume, predictor
from planar3d.networks.architecture import layers_with_weights, weight_shapes
from planar3d.networks.descriptions import from_json
from planar3d.networks.efficientnet import EfficientNet, EfficientNetLite0
from planar3d.networks.encoders import ENCODERS
from planar3d.networks.registry import (
    build_network,
    describe_network,
    find_architecture,
    list_networks,
    recipe_network,
    weight_source,
)
from planar3d.networks.resnet import ResNet18
from planar3d.networks.weights_file import load_network, read_recipe, save_weights
from planar3d.recipes import PAPER, Recipe
from planar3d.training.checkpoint import TrainingProgress, restore, save
from planar3d.training.fit import compiled
from planar3d.training.initialization import initial_network
from planar3d.training.trainer import trainer_of
from planar3d.transfer.metadata import read_description
from planar3d.transfer.rehearsal import read_arrays

TINY = PAPER.changed(
    size=32,
    encoder_weights="none",
    decoder_filters=(4, 4, 4, 4),
    bridge_filters=4,
    learning_rate=1e-3,
    batch_size=2,
    epochs=2,
    cached_features="none",
)
FIVE_LEVELS = {"decoder_filters": (4, 4, 4, 4, 4)}
CASES = {
    "planar-resunet": TINY,
    "planar-resunet over efficientnet-lite0": TINY.changed(
        encoder="efficientnet-lite0", encoder_range="imagenet", **FIVE_LEVELS
    ),
    "albunet": TINY.changed(network="albunet", depth=4, stride=4),
    "efficient-embedding": TINY.changed(network="efficient-embedding", factors=(2,), depth=6, stride=4),
    "ds-net": TINY.changed(
        network="ds-net", factors=(2,), filters=(4,), up_kernels=(3,), up_strides=(2,), depth=5, stride=3
    ),
    "omnia-net": TINY.changed(network="omnia-net", encoder="b0", depth=2, stride=2),
    "dx-net": TINY.changed(network="dx-net", depth=32, stride=32),
}
# Networks that squeeze depth to three slices have one depth, or a range of them, by their factors.
SQUEEZING = ("efficient-embedding", "ds-net")


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def recipe(request, monkeypatch) -> Recipe:
    """A recipe of the table, whose network is narrow while a test lasts."""
    narrow_networks(monkeypatch)
    return request.param


def _window(recipe: Recipe, batch: int = 1) -> np.ndarray:
    shape = (batch, recipe.depth, recipe.size, recipe.size, recipe.channels)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


@cache
def _filled(recipe: Recipe) -> keras.Model:
    """The recipe's network with statistics and an output unlike those of the beginning; no test leaves it changed."""
    keras.utils.set_random_seed(0)
    network = recipe_network(recipe)
    rng = np.random.default_rng(2)
    for variable in network.non_trainable_variables:
        if "moving_variance" in variable.path:
            variable.assign(rng.uniform(0.2, 0.6, variable.shape))
        elif "moving_mean" in variable.path:
            variable.assign(rng.normal(0, 0.01, variable.shape))
    head = network.get_layer(find_architecture(recipe.network.name).head)
    head.kernel.assign(10 * head.kernel)
    return network


@cache
def _larger(recipe: Recipe, depth: int) -> keras.Model:
    """The recipe's network in another size, without values."""
    arguments = describe_network(recipe)["arguments"]
    with valueless():
        return build_network(recipe.network.name, (depth, 64, 32, 3), encoder_weights=None, **arguments)


@pytest.fixture(scope="module")
def file_of(tmp_path_factory):
    """A recipe's weights file, written once."""

    @cache
    def written(recipe: Recipe) -> Path:
        return save_weights(_filled(recipe), tmp_path_factory.mktemp("network") / "network.weights.h5", recipe)

    return written


def test_every_network_of_the_table_is_tried_here():
    assert {recipe.network.name for recipe in CASES.values()} == set(list_networks())


def test_it_is_built_in_other_sizes_with_the_same_weights(recipe):
    described = describe_network(recipe)
    assert json.loads(json.dumps(described)) == described
    depth = recipe.depth if recipe.network.name in SQUEEZING else 2 * recipe.depth
    first, second = _filled(recipe), _larger(recipe, depth)
    assert weight_shapes(first) == weight_shapes(second)
    assert first.output_shape == (None, recipe.depth, 32, 32, 1) and second.output_shape == (None, depth, 64, 32, 1)


def test_its_groups_hold_every_layer_once(recipe):
    network = _filled(recipe)
    architecture = find_architecture(recipe.network.name)
    grouped = [name for names in architecture.groups(network).values() for name in names]
    assert sorted(grouped) == sorted(layers_with_weights(network))
    assert name_of(network.outputs[0]) == architecture.head


def _assert_same_weights(found: keras.Model, expected: keras.Model) -> None:
    assert [w.path for w in found.weights] == [w.path for w in expected.weights]
    for a, b in zip(found.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)


def test_it_is_saved_and_loaded_in_every_form(recipe, file_of, tmp_path):
    network, path = _filled(recipe), file_of(recipe)
    loaded, found = load_network(path)
    assert found == recipe == read_recipe(path)
    _assert_same_weights(loaded, network)
    network.save(tmp_path / "network.keras")
    whole = keras.saving.load_model(tmp_path / "network.keras", safe_mode=True)
    _assert_same_weights(whole, network)
    assert whole.to_json() == network.to_json()


def test_its_weights_file_is_not_taken_for_another_network(recipe, file_of):
    recipes = list(CASES.values())
    other = recipes[recipes.index(recipe) - 1]
    with pytest.raises(WeightsError, match=r"was trained with (network|encoder)=.*Use the recipe in the file"):
        load_network(file_of(recipe), other)


def test_the_softmax_of_its_one_output_is_refused(recipe):
    arguments = describe_network(recipe)["arguments"] | {"activation": "softmax"}
    with valueless(), pytest.raises(RecipeError, match="softmax of one output is 1 everywhere"):
        build_network(recipe.network.name, recipe.window, encoder_weights=None, **arguments)


def test_a_step_of_training_in_bf16_gives_finite_weights_and_moves_what_is_not_frozen(recipe, untraced, with_bf16):
    recipe = recipe.changed(precision="bf16", frozen=("encoder",))
    network = initial_network(recipe)
    before = {v.path: np.array(v) for v in network.weights}
    targets = np.ones((2, recipe.depth, 32, 32, 1), np.uint8)
    assert np.isfinite(compiled(trainer_of(network), recipe).train_on_batch(_window(recipe, 2), targets)).all()
    encoder = set(find_architecture(recipe.network.name).groups(network)["encoder"])
    moved = {v.path for v in network.weights if not np.array_equal(before[v.path], np.array(v))}
    assert all(np.isfinite(np.array(v)).all() for v in network.weights)
    assert moved and not any(path.split("/")[-2] in encoder for path in moved)


def test_training_goes_on_from_a_checkpoint_exactly_as_it_would_have(recipe, tmp_path, untraced, request):
    window, targets = _window(recipe), np.ones((1, recipe.depth, 32, 32, 1), np.uint8)
    targets[:, :, :16] = 0
    network = _filled(recipe)
    request.addfinalizer(partial(network.set_weights, network.get_weights()))
    twin = trainer_of(network)
    trainer = compiled(twin, recipe)
    rng = np.random.default_rng(3)
    for variable in trainer.optimizer.variables:  # momenta as after some steps
        new = rng.uniform(1e-3, 2e-3, variable.shape) if "float" in variable.dtype else 3
        variable.assign(np.broadcast_to(new, variable.shape))
    save(tmp_path, network, trainer.optimizer, TrainingProgress(epoch=1))
    trainer.train_on_batch(window, targets)
    expected = {variable.path: np.array(variable) for variable in network.variables}
    assert all(np.isfinite(array).all() for array in expected.values())
    # As another process begins: nothing is what it was, and the optimizer is new.
    for variable in network.variables:
        variable.assign(keras.ops.full_like(variable, 7))
    again = compiled(twin, recipe)
    assert restore(tmp_path, network, again.optimizer).epoch == 1
    again.train_on_batch(window, targets)
    for variable in network.variables:
        np.testing.assert_array_equal(variable, expected[variable.path], err_msg=variable.path)


def test_its_file_describes_it_as_its_graph_does_in_every_size(recipe, file_of):
    network, path = _filled(recipe), file_of(recipe)
    content, arrays = read_description(path), read_arrays(path)
    for given in (network, _larger(recipe, recipe.depth)):
        expected = described(given)
        found = from_json(content, arrays, given.input_shape[1:])
        assert (found.name, found.inputs, found.outputs) == (expected.name, expected.inputs, expected.outputs)
        for mine, keras_s in zip(found.layers, expected.layers, strict=True):
            for field in ("kind", "name", "inputs", "shape", "settings"):
                assert getattr(mine, field) == getattr(keras_s, field), mine.name
            assert mine.arrays.keys() == keras_s.arrays.keys()
            for name, array in mine.arrays.items() if given is network else ():
                np.testing.assert_array_equal(array, keras_s.arrays[name], err_msg=f"{mine.name}/{name}")


def test_it_predicts_scans_by_the_common_road(recipe, untraced):
    slices = min(32, recipe.depth + recipe.stride)
    network, voxels = _filled(recipe), np.random.default_rng(1).integers(0, 256, (slices, 32, 32, 1), np.uint8)
    expected = predict_volume(network, voxels, recipe, "windowed")
    predict = predictor(network, recipe, precision="float32")
    found = predict(voxels)
    assert "OpenVINO" in predict.description or find_spec("openvino") is None
    assert found.shape == voxels.shape[:3] and np.ptp(expected) > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_it_is_exported_and_agrees_with_keras(recipe, tmp_path, untraced):
    pytest.importorskip("onnxruntime")
    (exported,) = export_network(_filled(recipe), tmp_path, ["onnx"], recipe)
    assert exported.difference < 1e-4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"network": "unet"}, "network='unet' is unknown; choose one of: 'planar-resunet', 'albunet'"),
        ({"encoder": "resnet99"}, "encoder='resnet99' is unknown; choose one of: 'vgg16', 'resnet18'"),
        ({"encoder": "resnet18"}, "resnet18 has 5 levels above its coarsest"),
        (
            {"encoder": "resnet18", **FIVE_LEVELS, "size": 48},
            "would see 16×48×48 voxels, but planar-resunet needs a multiple of 32 along rows",
        ),
    ],
)
def test_networks_that_cannot_be_are_refused_with_a_sentence(changes, sentence):
    with pytest.raises(RecipeError, match=sentence):
        recipe_network(TINY.changed(**changes))


@pytest.mark.parametrize("name", list_networks())
def test_channels_first_as_keras_setting_is_refused_with_a_sentence(name, channels_first):
    with pytest.raises(ConversionError, match=r"'channels_first'.* channels last\. Call keras\.config\.set_image"):
        build_network(name, encoder_weights=None)


@pytest.mark.parametrize("build", [ResNet18, EfficientNet, EfficientNetLite0])
def test_a_2d_encoder_with_channels_first_is_too(build, channels_first):
    with pytest.raises(ConversionError, match="'channels_first'"):
        build(input_shape=(32, 32, 3))


def test_arguments_that_a_network_does_not_know_are_named():
    with pytest.raises(RecipeError, match="Network albunet has no argument 'filters'; it has: input_shape, classes"):
        build_network("albunet", (16, 32, 32, 3), encoder_weights=None, filters=3)


def test_an_encoder_of_the_table_takes_torch_s_weights_and_keeps_them_in_a_file(real_data, tmp_path):
    file = real_data / "weights/efficientnet_lite0_imagenet_keras_layout.npz"
    recipe = CASES["planar-resunet over efficientnet-lite0"].changed(encoder_weights=str(file))
    network = initial_network(recipe)
    with np.load(file) as arrays:
        stem = next(array for name, array in arrays.items() if "stem" in name and array.ndim == 4)
    np.testing.assert_array_equal(network.get_layer("stem_conv").kernel[0], stem)
    path = save_weights(network, tmp_path / "lite.weights.h5", recipe)
    np.testing.assert_array_equal(read_arrays(path)["stem_conv/kernel"][0], stem)
    assert "efficientnet_lite0" in weight_source(recipe).origin(str(file))
    assert ENCODERS[recipe.encoder].count == 5
