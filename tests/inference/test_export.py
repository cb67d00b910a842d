"""What is exported computes what Keras computes, says what it is, and is kept only then."""

import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from planar3d import cli
from planar3d.errors import ConversionError, Planar3DError, RecipeError
from planar3d.graph.described import described
from planar3d.graph.keras_graph import CustomScaleLayer, LayerScale
from planar3d.graph.layers import KINDS, kind_of, shape_of
from planar3d.inference.export import export_network
from planar3d.inference.export_formats import FORMATS, Format
from planar3d.inference.prepared_scan import prepare
from planar3d.inference.slicewise import slicewise
from planar3d.networks.planar_resunet import PlanarResUNet
from planar3d.networks.weights_file import save_weights
from planar3d.recipes import MODERN, PAPER, RECIPES, RELEASED
from planar3d.scans.volume import read_scan
from planar3d.transfer.transplant import load_weights

TINY = PAPER.changed(size=32, decoder_filters=(4, 4, 4, 4), bridge_filters=4)
pytestmark = pytest.mark.usefixtures("module_narrow", "untraced")


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    network = PlanarResUNet((16, 32, 32, 3), encoder_weights=None, decoder_filters=(4,) * 4, bridge_filters=4)
    # Probabilities all over (0, 1), so that a wrong layer shows.
    network.get_layer("conv10").kernel.assign(20 * network.get_layer("conv10").kernel)
    return network


@pytest.fixture
def traced(untraced):
    """TensorFlow computes convolutions of volumes in groups in graphs only."""
    tf.config.run_functions_eagerly(False)


def _needs(name):
    for package in FORMATS[name].packages:
        pytest.importorskip(package)


def _window(network, batch=1):
    return np.random.default_rng(1).uniform(-1, 1, (batch, *network.input_shape[1:])).astype(np.float32)


@pytest.mark.parametrize("name", FORMATS)
def test_an_exported_network_computes_what_keras_does_and_says_what_it_is(network, tmp_path, name):
    _needs(name)
    (exported,) = export_network(network, tmp_path, [name], TINY)
    assert (exported.format, exported.folder) == (name, tmp_path / name) and exported.difference <= 1e-5
    window = _window(network)
    expected = network.predict_on_batch(window)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(FORMATS[name].run(exported.folder, network.name, window), expected, atol=1e-5)
    described = json.loads((exported.folder / "planar3d.json").read_text())
    assert described["recipe"] == TINY.to_json() and described["input"]["shape"] == [None, 16, 32, 32, 3]
    assert described["layers"] == [layer.name for layer in network.layers]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_exported_files_are_read_where_the_file_system_maps_none(network, tmp_path, monkeypatch):
    """As drivers of cloud storage; both libraries map a file that they are given by its path."""
    _needs("litert")
    _needs("openvino")
    import openvino
    from ai_edge_litert import interpreter

    class Interpreter(interpreter.Interpreter):
        def __init__(self, model_path=None, **how):
            assert model_path is None
            super().__init__(**how)

    class Core(openvino.Core):
        def compile_model(self, model, *how):
            assert not self.get_property("ENABLE_MMAP")
            return super().compile_model(model, *how)

    monkeypatch.setattr(interpreter, "Interpreter", Interpreter)
    monkeypatch.setattr(openvino, "Core", Core)
    assert len(export_network(network, tmp_path, ["litert", "openvino"], TINY)) == 2


def test_the_default_is_three_formats_on_tensorflow(network, tmp_path):
    _needs("onnx")
    _needs("openvino")
    assert [exported.format for exported in export_network(network, tmp_path)] == ["openvino", "onnx", "savedmodel"]


def test_onnx_and_openvino_files_carry_recipe_and_layers_themselves(network, tmp_path):
    _needs("onnx"), _needs("openvino")
    import onnx
    import openvino

    export_network(network, tmp_path, ["onnx", "openvino"], TINY)
    model = onnx.load(tmp_path / f"onnx/{network.name}.onnx")
    carried = {prop.key: json.loads(prop.value) for prop in model.metadata_props}
    assert carried["planar3d_recipe"] == TINY.to_json() and "conv92" in carried["planar3d_layers"]
    assert {"conv91", "trans9", "conc92"} <= {node.name for node in model.graph.node}
    model = openvino.Core().read_model(tmp_path / f"openvino/{network.name}.xml")
    assert json.loads(model.get_rt_info(["planar3d", "recipe"]).astype(str)) == TINY.to_json()


@pytest.mark.parametrize(
    ("recipe", "slices", "grid", "grey"),
    [
        (PAPER, "sagittal, from left to right; rows from superior to inferior; cols from anterior to posterior",
         "a sagittal cube of 32 voxels", "lowest and highest"),
        (RELEASED, "sagittal, from left to right; rows from superior to inferior; cols from anterior to posterior",
         "a sagittal cube of 32 voxels", "lowest and highest"),
        (MODERN, "axial, from inferior to superior; rows from anterior to posterior; cols from right to left",
         "axial slices resampled to 32 × 32 pixels of 0.9 mm", "median of the head"),
    ],
)  # fmt: skip
def test_an_export_says_what_the_preparation_gives_the_network(network, tmp_path, recipe, slices, grid, grey):
    _needs("onnx")  # the format that is written fastest; all get the same description
    export_network(network, tmp_path, ["onnx"], recipe.changed(size=32))
    described = json.loads((tmp_path / "onnx/planar3d.json").read_text())["input"]
    assert described["slices"] == slices and grid in described["grid"] and grey in described["grey_levels"]


def test_an_export_says_which_labels_each_channel_is_the_probability_of(tmp_path):
    _needs("onnx")
    inputs = keras.Input((24, 8, 8, 3))
    network = keras.Model(inputs, layers.Conv3D(4, 1, activation="softmax")(inputs))
    for recipe, labels in ((RECIPES["wacker2019-3d"], [[0], [1], [2], [4]]), (None, None)):
        export_network(network, tmp_path, ["onnx"], recipe)
        described = json.loads((tmp_path / "onnx/planar3d.json").read_text())["output"]
        assert described.get("labels") == labels and "lesion" not in described["values"]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_directions_are_those_in_which_a_prepared_scan_runs(recipe, write_nifti):
    # Voxels grow to the right, to the front and to the top, each by its own step.
    x, y, z = np.meshgrid(*(np.arange(32) for _ in range(3)), indexing="ij")
    scan = read_scan(write_nifti((x + 40 * y + 1600 * z + 1).astype(np.float32), affine=np.diag([2, 2, 2, 1])))
    sizes = {"size": 32, "pixel_mm": 2.0, "raw_values": "float32"}
    sizes = {name: value for name, value in sizes.items() if hasattr(recipe, name)}
    crops = recipe.preparation.name == "center-crop"
    recipe = recipe.changed(**sizes, **({"preparation.crop": (32, 32, 32)} if crops else {}))
    images = dict.fromkeys(recipe.preparation.images, scan)
    voxels = 255 * prepare(images, recipe).voxels[..., 0].astype(float)
    parts = recipe.preparation.describe()["slices"].replace("rows ", "").replace("cols ", "").split("; ")
    directions = [parts[0].partition(", ")[2], *parts[1:]]
    up = [f"from {word}" for word in ("inferior to superior", "posterior to anterior", "left to right")]
    down = [f"from {word}" for word in ("superior to inferior", "anterior to posterior", "right to left")]
    along = directions.index(up[0]) if up[0] in directions else directions.index(down[0])
    # The steepest axis of the scan is that from bottom to top.
    ends = np.take(voxels, [2, 29], axis=along).mean(axis=tuple({0, 1, 2} - {along}))
    assert (ends[1] > ends[0]) == (up[0] in directions) and abs(ends[1] - ends[0]) > 50
    assert len({words in directions for words in (*up, *down)}) == 2 and len(set(directions)) == 3


def test_an_exported_onnx_file_is_a_source_of_weights(network, tmp_path):
    _needs("onnx")
    export_network(network, tmp_path, ["onnx"])
    again = PlanarResUNet((16, 32, 32, 3), encoder_weights=None, decoder_filters=(4,) * 4, bridge_filters=4)
    load_weights(again, tmp_path / f"onnx/{network.name}.onnx")
    for name in ("block4_conv3", "conv91"):
        np.testing.assert_array_equal(again.get_layer(name).kernel, network.get_layer(name).kernel)


def test_outputs_that_are_no_probabilities_agree_in_relation_to_their_size(tmp_path):
    _needs("onnx")
    inputs = keras.Input((2, 8, 8, 3))
    x = layers.Conv3D(32, (1, 3, 3), kernel_initializer=keras.initializers.RandomNormal(0, 1e3, seed=0))(inputs)
    outputs = layers.Conv3D(4, (1, 3, 3), kernel_initializer=keras.initializers.RandomNormal(0, 1e3, seed=1))(x)
    (exported,) = export_network(keras.Model(inputs, outputs), tmp_path, ["onnx"])
    assert 1e-4 < exported.difference < 1e3


def test_onnx_takes_several_windows_at_once(network, tmp_path):
    _needs("onnx")
    export_network(network, tmp_path, ["onnx"])
    windows = _window(network, batch=3)
    found = FORMATS["onnx"].run(tmp_path / "onnx", network.name, windows)
    np.testing.assert_allclose(found, network.predict_on_batch(windows), atol=1e-5)


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_network_of_a_fixed_batch_is_exported_for_any(tmp_path, name):
    _needs(name)
    inputs = keras.Input((4, 8, 8, 1), batch_size=2)
    made = keras.Model(inputs, layers.GroupNormalization(1)(layers.Conv3D(2, 3)(inputs)))
    export_network(made, tmp_path, name)
    windows = _window(made, batch=3)
    expected = np.concatenate([made.predict_on_batch(window[np.newaxis]) for window in windows])
    np.testing.assert_allclose(FORMATS[name].run(tmp_path / name, made.name, windows), expected, atol=1e-5)


@pytest.mark.parametrize(("taken", "given"), [("uint8", "float32"), ("float16", "float32"), ("float32", "int32")])
def test_a_network_of_other_values_than_float32_is_refused(tmp_path, taken, given):
    inputs = keras.Input((2, 4, 4, 1), dtype=taken)
    made = keras.Model(inputs, keras.ops.cast(layers.Rescaling(0.5)(inputs), given), name="other")
    with pytest.raises(Planar3DError, match=f"^other takes {taken} and gives {given}, but exported files take"):
        export_network(made, tmp_path, "savedmodel")


def _odd(x):
    """Every layer that ONNX is written from, where possible with settings at which the frameworks could differ."""
    a = layers.Conv3D(4, (3, 2, 3), strides=2, padding="same", activation="silu")(x)
    b = layers.Conv3D(4, (2, 3, 3), strides=2, padding="same", activation="tanh", use_bias=False)(x)
    merges = [layers.Add(), layers.Multiply(), layers.Average(), layers.Subtract(), layers.Maximum(), layers.Minimum()]
    a, b = keras.ops.maximum(a + b, a - b), keras.ops.minimum(a * b, b)
    y = layers.Concatenate()([merge([a, b]) for merge in merges])
    y = layers.BatchNormalization(scale=False)(y)
    y = layers.Conv3DTranspose(4, 3, strides=2, padding="same", activation="elu")(y)
    y = layers.Conv3DTranspose(4, 2, strides=3, padding="valid", activation="leaky_relu")(y)
    y = layers.Conv3DTranspose(4, 1, strides=2, padding="same", activation="hard_sigmoid")(y)
    y = layers.MaxPooling3D(3, 2, padding="same")(y)
    y = layers.AveragePooling3D(3, 2, padding="same")(y)
    y = layers.ZeroPadding3D(((1, 2), (0, 1), (2, 0)))(layers.UpSampling3D((1, 2, 2))(y))
    y = layers.Conv3D(4, 3, dilation_rate=(1, 2, 2), padding="same", groups=2, activation="softplus")(y)
    y = layers.Conv3D(3, 3, activation="softmax")(layers.SpatialDropout3D(0.1)(layers.Dropout(0.1)(y)))
    y = layers.Rescaling([0.5, 2.0, 1.5], offset=[0.1, -0.2, 0.0])(y)
    y = layers.ELU(0.7)(layers.LeakyReLU()(layers.ReLU(0.5)(layers.Activation("selu")(y))))
    y = layers.Reshape((y.shape[1], -1, *y.shape[3:]))(layers.Concatenate(axis=2)([y, y]))
    return _sigmoid(y)


def _rearranged(x):
    """Layers that change axes, or make one value of many."""
    y = layers.Cropping3D(((0, 1), (1, 0), (0, 2)))(layers.Conv3D(4, 3, padding="same")(x))
    y = layers.Softmax(axis=2)(layers.GroupNormalization(-1, scale=False)(layers.Permute((2, 4, 1, 3))(y)))
    y = layers.GroupNormalization(2, center=False)(layers.Conv3D(4, 1)(y))
    shares = [
        layers.Reshape((1, 1, 1, -1))(layers.GlobalAveragePooling3D()(y)),
        layers.GlobalMaxPooling3D(keepdims=True)(y),
        layers.Reshape((-1, 1, 1, 4))(keras.ops.mean(y, axis=(2, 3))),
        layers.Reshape((*y.shape[1:4], 1))(keras.ops.mean(y, axis=-1)),
        layers.Reshape((1, 1, 1, 4))(layers.Rescaling([1.0, 2.0, 0.5, 3.0])(keras.ops.max(y, axis=(1, 2, 3)))),
        _shares_of_slices(y),
        keras.ops.max(y, axis=[1, -1], keepdims=True),
    ]
    for share in shares:
        y = layers.Add()([y, layers.Multiply()([y, share])])
    return _sigmoid(layers.GroupNormalization(1)(y))


def _along_channels(x):
    """Layers with one number per channel, and operations with a number."""
    y = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 1.0, 2.0])(x)
    y = layers.Normalization()(1.5 - 0.5 * layers.Normalization(mean=0.5, variance=2.0, invert=True)(y + 0.25))
    y = layers.Dense(6, activation="gelu")(layers.Dense(5, use_bias=False)(y - 0.125))
    y = layers.PReLU(shared_axes=[1, 2, 3])(layers.LayerNormalization(scale=False)(y))
    y = CustomScaleLayer(0.3)([y, LayerScale(0.5, 6)(layers.LayerNormalization(center=False)(y))])
    return _sigmoid(y)


def _shares_of_slices(y):
    """Layers along axes of what has four: (batch, rows, cols, channels)."""
    joined = layers.Concatenate(axis=3)([keras.ops.mean(y, axis=1), keras.ops.max(y, axis=1)])
    shares = layers.Softmax(axis=-2)(layers.BatchNormalization(axis=3)(joined))
    shares = layers.Permute((2, 1, 3))(layers.Permute((3, 1, 2))(layers.Rescaling(2.0)(shares)))
    return layers.Conv3D(4, 1)(layers.Reshape((1, *y.shape[2:4], -1))(shares))


def _sigmoid(y):
    return keras.Sequential([keras.Input(y.shape[1:]), layers.Conv3D(2, 1), layers.Activation("sigmoid")])(y)


def _network(layers_of, rows=9):
    inputs = keras.Input((7, rows, 8, 3))
    return keras.Model(inputs, layers_of(inputs))


BUILDS = (_odd, _rearranged, _along_channels)


def test_these_are_all_layers_that_onnx_is_written_from():
    used = {layer.kind for build in BUILDS for layer in described(_network(build)).layers}
    in_training_alone = {
        "ActivityRegularization",
        "AlphaDropout",
        "GaussianDropout",
        "GaussianNoise",
        "Identity",
        "StochasticDepth",
    }
    assert {kind for kind, known in KINDS.items() if known.write} - used == in_training_alone


@pytest.mark.parametrize(("build", "rows"), [(_odd, 9), (_odd, None), (_rearranged, 9), (_along_channels, 9)])
def test_a_described_layer_has_the_shapes_of_outputs_and_arrays_that_keras_gives_it(build, rows):
    network = described(_network(build, rows))
    shapes = [*network.inputs, *(layer.shape for layer in network.layers)]
    for layer in network.layers:
        taken = [shapes[number] for number in layer.inputs]
        assert shape_of(layer, *taken) == layer.shape, layer.name
        arrays = {name: tuple(array.shape) for name, array in layer.arrays.items()}
        assert kind_of(layer).arrays(layer, *taken) == arrays, layer.name


@pytest.mark.parametrize("build", BUILDS)
def test_onnx_agrees_with_keras_in_every_layer_it_knows(build, traced):
    _needs("onnx")
    import onnxruntime

    from planar3d.inference.onnx_graph import onnx_model

    keras.utils.set_random_seed(1)
    network = _network(build)
    rng = np.random.default_rng(0)
    network.set_weights(
        [rng.uniform(0.1, 1, w.shape) * rng.choice([-1, 1]) ** (w.ndim > 1) for w in network.get_weights()]
    )
    for layer in network.layers:
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()
    window = _window(network, batch=2)
    expected = network.predict_on_batch(window)
    session = onnxruntime.InferenceSession(onnx_model(described(network), {}).SerializeToString())
    assert expected.std() > 0.01
    np.testing.assert_allclose(session.run(None, {"input": window})[0], expected, atol=5e-5)


@pytest.mark.parametrize(
    ("layer", "setting"),
    [
        (layers.BatchNormalization(axis=1), "axis=1"),
        (layers.Conv3DTranspose(1, 2, strides=2, output_padding=1), r"output_padding=\(1, 1, 1\)"),
        (layers.GroupNormalization(1, axis=1), "axis=1"),
        (layers.LayerNormalization([2, 3]), r"axis or rms_scaling=\(\(2, 3"),
        (layers.Normalization(axis=1, mean=0.5, variance=1.0), r"axis=\(1,"),
        (layers.PReLU(shared_axes=[1]), r"shared_axes=\(1,"),
        (layers.ReLU(threshold=0.5), r"threshold or negative_slope=\(0\.5, 0"),
        (layers.ReLU(negative_slope=0.5), r"threshold or negative_slope=\(0\.?0?, 0\.5"),
        (layers.Rescaling(1.0, offset=[[[[0.0]]], [[[1.0]]]]), r"offset\.shape=\(2, 1, 1, 1\)"),
        (layers.Softmax(axis=(1, -1)), r"axis=[\[(]1, -1"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_setting_that_onnx_has_not_is_refused(layer, setting):
    from planar3d.inference.onnx_graph import onnx_model

    network = keras.Sequential([keras.Input((2, 4, 4, 2)), layer])
    with pytest.raises(Planar3DError, match=f"^Layer {layer.name} has {setting}.*, which cannot be written as ONNX"):
        onnx_model(described(network), {})


@pytest.mark.parametrize(
    "build",
    [
        lambda x, mean: layers.Multiply(name="odd")([x, mean]),
        lambda x, mean: layers.Add(name="odd")([mean, x]),
        lambda x, mean: layers.Add()([x, layers.Reshape((1, 1, 1, 4))(layers.GroupNormalization(2, name="odd")(mean))]),
    ],
)
def test_a_mean_without_the_axes_of_volumes_is_refused_where_onnx_would_take_its_channels_for_columns(build):
    from planar3d.inference.onnx_graph import onnx_model

    x = keras.Input((2, 4, 4, 4))
    network = keras.Model(x, build(x, layers.GlobalAveragePooling3D()(x)))
    with pytest.raises(Planar3DError, match=r"^Layer odd has inputs=\[.*\(None, 4\).*\], which cannot be written"):
        onnx_model(described(network), {})


EVERY_FUNCTION = {name for name in dir(keras.activations) if not name.startswith("_")} - {
    "deserialize",
    "get",
    "serialize",
    "threshold",  # has arguments
}
NOT_WRITTEN = {"glu", "log_sigmoid", "sparse_plus", "sparsemax", "squareplus"}


@pytest.mark.parametrize("name", sorted(EVERY_FUNCTION))
def test_a_function_of_keras_is_the_same_on_onnx_up_to_the_largest_values_or_is_refused(name):
    _needs("onnx")
    import onnxruntime

    from planar3d.inference.onnx_graph import onnx_model

    network = keras.Sequential([keras.Input((1, 4, 10, 2)), layers.Activation(name, name="odd")])
    if name in NOT_WRITTEN:
        with pytest.raises(Planar3DError, match=f"^Layer odd has activation='{name}', which cannot be written"):
            onnx_model(described(network), {})
        return
    sizes = [0, 1e-6, 0.3, 0.5, 1, 2.5, 3, 4, 6, 6.5, 10, 20, 50, 87, 88, 89, 104, 1e3, 1e10, 1e30]
    values = np.array([*sizes, *np.negative(sizes), *np.random.default_rng(0).normal(0, 3, 40)], np.float32)
    window = values.reshape(1, 1, 4, 10, 2)
    session = onnxruntime.InferenceSession(onnx_model(described(network), {}).SerializeToString())
    (found,) = session.run(None, {"input": window})
    np.testing.assert_allclose(found, network.predict_on_batch(window), rtol=1e-5, atol=1e-6)


def test_layers_may_be_called_as_the_file_s_input_and_output():
    _needs("onnx")
    from planar3d.inference.onnx_graph import onnx_model

    image = keras.Input((2, 4, 4, 1), name="image")
    network = keras.Model(image, layers.Conv3D(1, 1, name="output")(layers.Conv3D(1, 1, name="input")(image)))
    (end,) = onnx_model(described(network), {}).graph.output  # which onnx has checked
    assert end.name == "output"


def test_ends_in_lists_and_dictionaries_are_exported_as_tensors(tmp_path):
    _needs("savedmodel")
    image = keras.Input((2, 4, 4, 1), name="image")
    lesion = layers.Conv3D(1, 1)(image)
    for number, ends in enumerate((([image], [lesion]), ({"image": image}, {"lesion": lesion}))):
        export_network(keras.Model(*ends), tmp_path / str(number), ["savedmodel"])


def test_slice_by_slice_a_network_has_the_same_values_and_weights(traced):
    inputs = keras.Input((6, 12, 12, 2))
    y = layers.Conv3D(4, (2, 3, 3), dilation_rate=(2, 2, 1), padding="same", activation="relu")(inputs)
    y = layers.ActivityRegularization(0.1)(layers.Conv3D(4, (3, 2, 1))(y))
    y = layers.Conv3D(4, 3, strides=2, padding="same")(layers.Conv3D(4, 3, groups=2, padding="same")(y))
    y = layers.Conv3DTranspose(3, (2, 3, 3), strides=(2, 3, 2), padding="same", activation="tanh")(y)
    y = layers.MaxPooling3D((2, 3, 2))(layers.Conv3DTranspose(3, 3, strides=2, padding="same")(y))
    network = keras.Model(inputs, y)
    rewritten = slicewise(network)
    changed = [type(layer).__name__ for layer in rewritten.layers if type(layer).__name__.startswith("Slicewise")]
    assert changed == ["SlicewiseConv3D", "SlicewiseConv3D", "SlicewiseConv3DTranspose", "SlicewiseMaxPooling3D"]
    window = _window(network, batch=2)
    np.testing.assert_allclose(rewritten.predict_on_batch(window), network.predict_on_batch(window), atol=1e-6)
    assert [layer.name for layer in rewritten.layers[1:]] == [layer.name for layer in network.layers[1:]]


def relu6(x):
    """Of one's own, with the name of one of Keras' functions."""
    return keras.ops.maximum(x, -0.5)


def test_slice_by_slice_a_function_of_ones_own_is_not_taken_for_keras_s_of_that_name():
    inputs = keras.Input((4, 8, 8, 1))
    network = keras.Model(inputs, layers.Conv3D(3, 3, padding="same", activation=relu6)(inputs))
    window = 4 * _window(network)
    expected = network.predict_on_batch(window)
    assert expected.min() < 0
    np.testing.assert_allclose(slicewise(network).predict_on_batch(window), expected, atol=1e-5)


def test_what_differs_from_keras_is_not_kept(network, tmp_path, monkeypatch):
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong/planar3d.json").write_text("kept")

    def write(network, folder, metadata):
        (folder / "model").write_text("x")

    wrong = Format(write, lambda folder, name, window: window[..., :1] * 0)
    monkeypatch.setitem(FORMATS, "wrong", wrong)
    with pytest.raises(Planar3DError, match=r"differs from Keras by up to .* deleted"):
        export_network(network, tmp_path, ["wrong"])
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["wrong", "wrong/planar3d.json"]


def test_a_file_without_its_last_layer_s_kernel_is_not_kept_where_all_probabilities_are_tiny(tmp_path, monkeypatch):
    """A model of lesions gives less than 0.001 for noise."""
    _needs("onnx")
    made = keras.Sequential([keras.Input((4, 8, 8, 3)), layers.Conv3D(1, 3, activation="sigmoid", name="head")])
    made.layers[-1].bias.assign([-10.0])
    export_network(made, tmp_path, "onnx")
    without = keras.models.clone_model(made)
    without.layers[-1].bias.assign([-10.0])
    without.layers[-1].kernel.assign(0 * made.layers[-1].kernel)
    monkeypatch.setitem(
        FORMATS, "wrong", Format(lambda *given: None, lambda *given: without.predict_on_batch(given[2]))
    )
    with pytest.raises(Planar3DError, match="differs from Keras by up to"):
        export_network(made, tmp_path, "wrong")


def test_a_file_whose_channels_are_exchanged_is_not_kept(tmp_path, monkeypatch):
    made = keras.Sequential([keras.Input((4, 8, 8, 3)), layers.Conv3D(2, 3)], name="three")

    def run(folder, name, window):
        return made.predict_on_batch(window[..., ::-1])

    monkeypatch.setitem(FORMATS, "wrong", Format(lambda network, folder, metadata: None, run))
    with pytest.raises(Planar3DError, match="differs from Keras by up to"):
        export_network(made, tmp_path, "wrong")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", FORMATS)
def test_a_network_whose_values_are_not_finite_is_refused(tmp_path, name, value):
    _needs(name)
    bias = keras.initializers.Constant(value)
    made = keras.Sequential([keras.Input((2, 4, 4, 1)), layers.Conv3D(1, 1, bias_initializer=bias)], name="broken")
    with pytest.raises(Planar3DError, match=r"^broken gives values that are not finite .* Check its weights\.$"):
        export_network(made, tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_a_layer_without_a_counterpart_is_named(tmp_path):
    _needs("onnx")
    inputs = keras.Input((16, 16, 16, 3))
    network = keras.Model(inputs, layers.UnitNormalization(name="norm")(inputs))
    with pytest.raises(Planar3DError, match="Layer norm is of type UnitNormalization"):
        export_network(network, tmp_path, ["onnx"])
    network = keras.Model(inputs, layers.Conv3D(1, 1, activation="sparsemax", name="odd")(inputs))
    with pytest.raises(Planar3DError, match="Layer odd has activation='sparsemax'"):
        export_network(network, tmp_path, ["onnx"])
    network = keras.Model(inputs, layers.Rescaling(np.ones((16, 16, 1)), name="shading")(inputs))
    with pytest.raises(Planar3DError, match=r"Layer shading has scale\.shape=\(16, 16, 1\)"):
        export_network(network, tmp_path, ["onnx"])
    for made in (layers.Softmax()(inputs, mask=np.array([True])), keras.ops.max(inputs, -1, True, initial=0.5)):
        with pytest.raises(Planar3DError, match=r"is of type (Softmax|ops\.Max) with arguments, which cannot"):
            export_network(keras.Model(inputs, made), tmp_path, ["onnx"])
    assert not list(tmp_path.iterdir())


def test_a_layer_that_a_runtime_cannot_compute_is_refused_in_a_sentence(tmp_path):
    pytest.importorskip("ai_edge_litert")
    made = keras.Sequential([keras.Input((2, 4, 4, 1)), keras.layers.AveragePooling3D(2)], name="averaged")
    with pytest.raises(Planar3DError, match=r"^litert: averaged has a layer .*; no file was kept"):
        export_network(made, tmp_path, "litert")
    assert not (tmp_path / "litert").exists()


def test_a_folder_whose_name_tensorflow_takes_for_a_pattern_is_refused(network, tmp_path):
    with pytest.raises(Planar3DError, match=r"\[1\]: TensorFlow takes \[ for a pattern.*; name another"):
        export_network(network, tmp_path / "out [1]", "savedmodel")
    assert not list(tmp_path.iterdir())


def test_what_is_no_export_is_not_replaced(network, tmp_path):
    _needs("onnx")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/notes.txt").write_text("mine")
    with pytest.raises(Planar3DError, match=r"onnx exists, but is not an export of planar3d\. Name another"):
        export_network(network, tmp_path, ["onnx"])
    assert (tmp_path / "onnx/notes.txt").read_text() == "mine"
    with pytest.raises(Planar3DError, match=r"udcff is not text in utf-8, .* so a runtime cannot open it\. Rename"):
        export_network(network, tmp_path / "\udcff", ["onnx"])
    assert os.listdir(tmp_path) == ["onnx"]


def test_an_export_to_which_files_were_added_is_not_replaced(network, tmp_path):
    _needs("onnx")
    other = keras.Model(network.inputs, network.outputs, name="other")
    for replaced in (other, network, network):
        export_network(replaced, tmp_path, "onnx")
    mine, made = tmp_path / "onnx/int8/model.onnx", tmp_path / f"onnx/{network.name}.onnx"
    mine.parent.mkdir()
    mine.write_text("mine")
    for replacing in (network, other):
        with pytest.raises(Planar3DError, match=r"onnx also has int8.model\.onnx, which the export would remove"):
            export_network(replacing, tmp_path, "onnx")
    assert mine.read_text() == "mine" and made.is_file()


@pytest.mark.parametrize("names", [("functional", "model"), ("planar3d", "e"), ("e", "saved_model")])
def test_an_export_replaces_that_of_another_network_whatever_their_names(tmp_path, names):
    _needs("onnx")
    for name in names:
        made = keras.Sequential([keras.Input((2, 4, 4, 1)), layers.Conv3D(1, 1)], name=name)
        export_network(made, tmp_path, ["onnx", "savedmodel"])
        assert {path.name for path in (tmp_path / "onnx").iterdir()} == {f"{name}.onnx", "planar3d.json"}
    assert json.loads((tmp_path / "savedmodel/planar3d.json").read_text())["network"] == names[-1]


def test_wrong_formats_and_networks_are_refused_before_anything_is_written(network, tmp_path, monkeypatch):
    with pytest.raises(Planar3DError, match="choose one of: 'openvino', 'onnx'"):
        export_network(network, tmp_path, ["savedmodel", "onxx"])
    with pytest.raises(Planar3DError, match="format='onxx' is unknown"):
        export_network(network, tmp_path, "onxx")
    with pytest.raises(Planar3DError, match="recipe='paper': a Recipe is needed"):
        export_network(network, tmp_path, ["savedmodel"], "paper")
    for other in (TINY.changed(channels=1), TINY.changed(depth=32), RECIPES["wacker2019-3d"]):
        with pytest.raises(RecipeError, match=rf"the recipe {other.name} needs a network from"):
            export_network(network, tmp_path, ["savedmodel"], other)
    monkeypatch.setitem(FORMATS, "onnx", Format(print, print, ("absent_runtime",)))
    with pytest.raises(Planar3DError, match=r"needs absent_runtime.*pip install 'planar3d\[onnx\]'"):
        export_network(network, tmp_path, ["savedmodel", "onnx"])
    inputs = keras.Input((16, 16, None, 3))
    with pytest.raises(Planar3DError, match="all sizes"):
        export_network(keras.Model(inputs, layers.Conv3D(1, 1)(inputs)), tmp_path, ["savedmodel"])
    inputs = keras.Input((16, 16, 16, 3))
    half = keras.Model(inputs, layers.Conv3D(1, 1, dtype="mixed_bfloat16", name="half")(inputs))
    with pytest.raises(Planar3DError, match="Layer half computes in bfloat16"):
        export_network(half, tmp_path, ["savedmodel"])

    class Doubled(type(network)):
        def call(self, inputs):
            return 2 * super().call(inputs)

    with pytest.raises(ConversionError, match="its call is Python code without a graph"):
        export_network(Doubled(network.inputs, network.outputs), tmp_path, ["savedmodel"])
    assert not list(tmp_path.iterdir())


def test_the_command_line_exports_a_weights_file_in_another_size(network, tmp_path, monkeypatch, capsys):
    _needs("onnx")
    save_weights(network, tmp_path / "tiny.weights.h5", TINY)
    words = ["export", "--model", str(tmp_path / "tiny.weights.h5"), "--out", str(tmp_path), "--size", "16"]
    monkeypatch.setattr("sys.argv", ["planar3d", *words, "--format", "onnx"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code and "largest difference from Keras" in capsys.readouterr().out
    assert json.loads((tmp_path / "onnx/planar3d.json").read_text())["input"]["shape"] == [None, 16, 16, 16, 3]
    monkeypatch.setattr("sys.argv", ["planar3d", *words, "--format", "onxx"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and "'onxx' is unknown" in capsys.readouterr().err
