"""Method, engine and precision are chosen by name, and `auto` says what it chose."""

import re

import keras
import narrow_encoder
import numpy as np
import pytest
from inference_networks import narrow_resunet, new_narrow_resunet, planar_resunet, small_unet, voxels, with_biases
from keras import layers

from planar3d import extras
from planar3d.errors import Planar3DError, RecipeError, WeightsError
from planar3d.inference import agreement, predictor as module
from planar3d.inference.predictor import predict_volume, predictor
from planar3d.networks.registry import recipe_network
from planar3d.networks.weights_file import Model, save_weights
from planar3d.recipes import PAPER
from planar3d.scans.targets import threshold
from planar3d.training.precision import built_with, in_precision, precision_of

PRECISIONS = ("float32", "bf16")
RECIPE = PAPER.changed(size=32)


def depth_blur() -> keras.Model:
    x = keras.Input((16, 32, 32, 3))
    blurred = keras.layers.Conv3D(4, (5, 1, 1), padding="same")(x)
    return keras.Model(x, keras.layers.Conv3D(1, 1, activation="sigmoid")(blurred))


@pytest.mark.parametrize(
    "choice, sentence",
    [
        ({"method": "clever"}, "method='clever' is unknown; choose one of: 'auto', 'shared', 'windowed'"),
        ({"engine": "tpu"}, "engine='tpu' is unknown; choose one of: 'auto', 'keras', 'openvino'"),
        ({"precision": "fp16"}, "precision='fp16' is unknown; choose one of: 'float32', 'bf16', 'int8'"),
        ({"method": "windowed", "engine": "openvino"}, "the reference"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(choice, sentence) -> None:
    with pytest.raises(RecipeError, match=sentence):
        predictor(narrow_resunet(), RECIPE, **choice)


def test_a_weights_file_is_used_with_its_recipe_or_the_given_one_or_refused(tmp_path) -> None:
    own = RECIPE.changed(depth=8, stride=4, encoder=narrow_encoder.NAME, decoder_filters=(4, 4), bridge_filters=4)
    model = Model.open(save_weights(recipe_network(own), tmp_path / "own.weights.h5", own))
    assert predictor(model, method="shared", engine="keras").plan.depth == 8
    assert predictor(model, own.changed(depth=16, stride=8), "shared", "keras").plan.depth == 16
    with pytest.raises(WeightsError, match=r"block1_conv1/kernel has the shape .* but planar_resunet needs"):
        predictor(model, own.changed(channels=1))


@pytest.mark.parametrize("method", ["shared", "windowed"])
def test_voxels_without_an_axis_of_images_are_refused_with_their_own_shape(method: str) -> None:
    scan = voxels(40, 32)[..., 0]
    with pytest.raises(ValueError, match=r"the shape \(40, 32, 32\), but \(slices, rows, cols, images\)"):
        predict_volume(narrow_resunet(), scan, RECIPE, method)


def test_shared_is_refused_where_nothing_is_shared_and_auto_falls_back_to_windows() -> None:
    network, scan = depth_blur(), voxels(32, 32)
    with pytest.raises(Planar3DError, match="share nothing"):
        predictor(network, RECIPE, "shared")
    predict = predictor(network, RECIPE)
    assert predict.description.startswith("windowed") and "share nothing" in predict.description
    np.testing.assert_allclose(predict(scan), predict_volume(network, scan, RECIPE, "windowed"), atol=1e-5)


def test_without_openvino_auto_is_keras(monkeypatch) -> None:
    for place in (extras, module):
        monkeypatch.setattr(place, "is_installed", lambda *packages: False)
    assert predictor(narrow_resunet(), RECIPE).description == "shared on Keras, float32"
    with pytest.raises(Planar3DError, match=r"pip install 'planar3d\[openvino\]'"):
        predictor(narrow_resunet(), RECIPE, engine="openvino")


def test_with_an_outdated_openvino_auto_is_keras_and_says_why(tmp_path, monkeypatch) -> None:
    """It refused, where without OpenVINO it works."""
    about = tmp_path / "openvino-2023.3.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: openvino\nVersion: 2023.3.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "may_have_gpu", lambda: False)
    found = predictor(narrow_resunet(), RECIPE).description
    assert re.match(r"shared on Keras, float32 \(Computing .* needs openvino>=[\d.]+, but version 2023\.3\.0 is", found)
    with pytest.raises(Planar3DError, match=r"but version 2023\.3\.0 is installed"):
        predictor(narrow_resunet(), RECIPE, engine="openvino")


@pytest.mark.parametrize("method", ["shared", "windowed"])
def test_without_bf16_instructions_keras_computes_in_float32_and_says_why(method: str, without_bf16) -> None:
    network, scan = narrow_resunet(), voxels(32, 32)
    predict = predictor(network, RECIPE, method, "keras", "bf16")
    assert predict.description.endswith(" on Keras, float32: no bf16 instructions were found on this processor")
    np.testing.assert_array_equal(predict(scan), predict_volume(network, scan, RECIPE, method))
    assert predictor(network, RECIPE, method, "keras").description.endswith(" on Keras, float32")


def test_a_bf16_network_predicts_in_bf16_on_keras(with_bf16) -> None:
    network, scan = built_with("bf16", new_narrow_resunet), voxels(32, 32)
    predict = predictor(network, RECIPE, engine="keras")
    assert predict.description == "shared on Keras, bf16"
    np.testing.assert_allclose(predict(scan), predict_volume(network, scan, RECIPE, "windowed"), atol=0.01)


def sharp_sigmoid(x):
    return keras.ops.sigmoid(4 * x)


@pytest.mark.parametrize("method", ["shared", "windowed"])
def test_a_network_predicts_on_keras_in_the_precision_that_is_asked_for(method: str, with_bf16) -> None:
    network, scan = new_narrow_resunet(), voxels(32, 32)
    network.layers[-1].activation = sharp_sigmoid  # of one's own, which a copy by configuration would lose
    before = network.get_weights()
    wide = predict_volume(network, scan, RECIPE, "windowed")
    narrow = predictor(network, RECIPE, method, "keras", "bf16")(scan)
    assert narrow.dtype == np.float32 and 0 < np.abs(narrow - wide).max() < 0.05
    # … and back: what was built in bf16 is float32 where that is asked for.
    in_bf16 = in_precision(network, "bf16")
    assert precision_of(in_bf16) == "bf16" and precision_of(network) == "float32"
    np.testing.assert_allclose(predictor(in_bf16, RECIPE, method, "keras", "float32")(scan), wide, atol=1e-6)
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("function", [sharp_sigmoid, lambda x, by=1: x * by], ids=["named", "unnamed"])
def test_a_layer_of_one_s_own_function_is_in_another_precision_too(function) -> None:
    x = keras.Input((4, 8, 8, 1))
    y = keras.layers.Lambda(function, arguments={} if function is sharp_sigmoid else {"by": 3}, name="own")(x)
    network = keras.Model(x, keras.layers.Conv3D(1, 1, activation="sigmoid")(y))
    window = np.random.default_rng(0).normal(size=(1, 4, 8, 8, 1)).astype(np.float32)
    narrow = in_precision(network, "bf16")
    assert narrow.get_layer("own").compute_dtype == "bfloat16"
    np.testing.assert_allclose(narrow(window), network(window), atol=0.01)


def test_a_precision_is_given_where_windows_share_nothing_too(with_bf16) -> None:
    network, scan = depth_blur(), voxels(32, 32)
    predict = predictor(network, RECIPE, engine="keras", precision="bf16")
    assert predict.description.startswith("windowed")
    difference = np.abs(predict(scan) - predict_volume(network, scan, RECIPE, "windowed")).max()
    assert 0 < difference < 0.02


class TestOpenVINO:
    """Equal to Keras within rounding, on any of the networks."""

    @pytest.fixture(autouse=True)
    def _needs_openvino(self) -> None:
        pytest.importorskip("openvino")

    @pytest.mark.parametrize("slices, stride", [(19, 8), (32, 4), (32, 16)])
    def test_the_planar_resunet_in_float32(self, slices: int, stride: int) -> None:
        network, scan, recipe = planar_resunet(), voxels(slices, 32), RECIPE.changed(stride=stride)
        found = predict_volume(network, scan, recipe, engine="openvino")
        np.testing.assert_allclose(found, predict_volume(network, scan, recipe, "windowed"), atol=1e-6)

    def test_in_bf16_it_differs_by_rounding_of_bf16(self) -> None:
        network, scan = planar_resunet(), voxels(19, 32)
        found = predict_volume(network, scan, RECIPE, engine="openvino", precision="bf16")
        difference = np.abs(found - predict_volume(network, scan, RECIPE, "windowed")).max()
        assert 0 < difference < 0.01

    @pytest.mark.parametrize("levels, repeat, size", [(1, False, 16), (2, True, 16), (3, False, None)])
    def test_networks_of_other_levels_names_and_layers(self, levels: int, repeat: bool, size: int | None) -> None:
        network, scan = small_unet(16, levels, repeat, size), voxels(35, 16)
        recipe = PAPER.changed(size=16, channels=1)
        found = predict_volume(network, scan, recipe, engine="openvino")
        np.testing.assert_allclose(found, predict_volume(network, scan, recipe, "windowed"), atol=1e-5)

    @pytest.mark.parametrize("depth", [1, 3], ids=["shared", "nothing to share"])
    def test_a_layer_it_does_not_know_is_named_and_auto_takes_keras(self, depth: int) -> None:
        inputs = keras.Input((16, 32, 32, 3))
        x = keras.layers.Conv3D(4, (depth, 3, 3), padding="same", name="first")(inputs)
        x = keras.layers.UnitNormalization()(x)
        x = keras.layers.Conv3D(1, 3, padding="same", activation="sigmoid")(x)
        network, scan = keras.Model(inputs, x), voxels(32, 32)
        with pytest.raises(Planar3DError, match=r"unit_normalization.* is of type UnitNormalization.*engine='keras'"):
            predict_volume(network, scan, RECIPE, "auto", "openvino")
        predict = predictor(network, RECIPE)
        assert "Keras" in predict.description
        np.testing.assert_array_equal(predict(scan), predict_volume(network, scan, RECIPE, "windowed"))

    @pytest.mark.parametrize("joined", ["softmax", "log_softmax", "gelu"])
    def test_layers_that_see_whole_windows_have_the_padding_and_the_axes_that_keras_gives_them(self, joined) -> None:
        inputs = keras.Input((16, 16, 16, 1))
        x = layers.Conv3D(4, (1, 3, 3), padding="same", activation="elu")(inputs)
        y = layers.Conv3D(4, 3, strides=2, padding="same", activation="silu")(x)
        y = layers.MaxPooling3D(3, strides=1, padding="same")(layers.AveragePooling3D(3, strides=1, padding="same")(y))
        y = layers.Conv3DTranspose(4, 3, strides=2, padding="same", activation="leaky_relu")(y)
        y = layers.Multiply()([layers.Average()([y, x]), layers.AveragePooling3D((16, 1, 1))(y)])
        y = layers.Concatenate(axis=2)([layers.MaxPooling3D((1, 2, 1))(each) for each in (y, x)])
        y = layers.Conv3D(3, 1, activation=joined)(layers.Concatenate()([y, x]))
        network = with_biases(keras.Model(inputs, layers.Conv3D(1, 3, padding="same", activation="sigmoid")(y)))
        scan, recipe = voxels(40, 16), PAPER.changed(size=16, channels=1)
        expected = predict_volume(network, scan, recipe, "windowed")
        assert np.std(expected) > 0.001
        np.testing.assert_allclose(predict_volume(network, scan, recipe, engine="openvino"), expected, atol=1e-5)

    @pytest.mark.parametrize("wanted, chosen", [(0.0, "bf16; bf16 agrees"), (1.1, "float32; bf16 does not agree")])
    def test_auto_takes_bf16_where_the_masks_agree(self, monkeypatch, wanted: float, chosen: str) -> None:
        engine = pytest.importorskip("planar3d.inference.openvino_engine")
        monkeypatch.setattr(engine, "multiplies_bf16", lambda: True)
        monkeypatch.setattr(agreement, "AGREEMENT", wanted)
        network, scan = narrow_resunet(), voxels(40, 32)
        volumes = {p: predict_volume(network, scan, RECIPE, engine="openvino", precision=p) for p in PRECISIONS}
        of_256 = float(np.quantile(volumes["float32"], 0.9)) * 256
        predict = predictor(network, RECIPE.changed(threshold=of_256))
        found = predict(scan)
        assert predict.description.startswith(f"shared on OpenVINO, {chosen} with float32 (Dice of the masks ")
        precision = chosen.split(";")[0]
        np.testing.assert_array_equal(found, volumes[precision])
        # Of the windows' middles, slices 4-11, 12-19, …, the one that bf16 marks most of.
        wide, narrow = (threshold(volumes[p], of_256)[4:36].reshape(4, -1) for p in PRECISIONS)
        most = int(narrow.sum(axis=1).argmax())
        dice = 2 * (wide & narrow)[most].sum() / (wide[most].sum() + narrow[most].sum())
        assert 0 < dice < 1
        assert predict.description.endswith(f" {dice:.4f})")

    def test_bf16_is_compared_on_the_rule_that_the_recipe_has(self, monkeypatch) -> None:
        engine = pytest.importorskip("planar3d.inference.openvino_engine")
        monkeypatch.setattr(engine, "multiplies_bf16", lambda: True)
        monkeypatch.setattr("planar3d.inference.agreement._ENOUGH", 1)  # a small scan's mask is to decide
        network, scan = new_narrow_resunet(), voxels(40, 32)
        # By the absolute rule all is lesion in both, and the masks agree whatever bf16 does.
        network.get_layer("conv10").bias.assign([-2.0])
        recipe = RECIPE.changed(threshold=240.0, threshold_rule="released")
        volumes = {p: predict_volume(network, scan, recipe, engine="openvino", precision=p) for p in PRECISIONS}
        masks = {p: threshold(volumes[p], 240.0, "released", float(volumes["bf16"].max())) for p in PRECISIONS}
        middles = {p: mask[4:36].reshape(4, -1) for p, mask in masks.items()}
        most = int(middles["bf16"].sum(axis=1).argmax())
        wide, narrow = middles["float32"][most], middles["bf16"][most]
        assert threshold(volumes["float32"], 240.0).sum() == 0 < narrow.sum() < narrow.size
        predict = predictor(network, recipe)
        predict(scan)
        dice = 2 * (wide & narrow).sum() / (wide.sum() + narrow.sum())
        assert predict.description.endswith(f" {dice:.4f})")

    def test_processors_without_bf16_stay_in_float32(self, monkeypatch) -> None:
        engine = pytest.importorskip("planar3d.inference.openvino_engine")
        monkeypatch.setattr(engine, "multiplies_bf16", lambda: False)
        assert predictor(narrow_resunet(), RECIPE).description == "shared on OpenVINO, float32"

    def test_bf16_is_chosen_only_if_onednn_may_use_its_instructions(self, monkeypatch) -> None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
        assert predictor(narrow_resunet(), RECIPE).description == "shared on OpenVINO, float32"

    @pytest.mark.parametrize(
        ("said", "sentence"),
        [
            (
                "no primitive. Run it with ONEDNN_VERBOSE.",
                r": no primitive\. Use another precision, or engine='keras'\.",
            ),
            ("std::bad_alloc", r": out of memory \(std::bad_alloc\)\. Use a computer with more memory"),
            (
                "Failed to allocate 9 bytes of memory",
                r": out of memory \(Failed to .*\)\. Use a computer with more memory",
            ),
        ],
    )
    def test_what_openvino_cannot_compile_is_said_in_a_sentence(self, said: str, sentence: str) -> None:
        engine = pytest.importorskip("planar3d.inference.openvino_engine")
        with pytest.raises(Planar3DError, match=f"OpenVINO cannot compile the network{sentence}"):
            engine.compile_on_cpu(_Refusing(said), None, bf16=True)


class _Refusing:
    """An OpenVINO core without the primitives or the memory that a network needs."""

    def __init__(self, said: str) -> None:
        self._said = said

    def compile_model(self, *_: object) -> None:
        raise RuntimeError(f"Exception from core.cpp:117:\n{self._said}\n\n")
