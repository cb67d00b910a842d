"""Tiled inference is the network on every tile, composed; by windows along depth and equation 1 it is the paper's."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from inference_networks import small_unet

from planar3d.errors import Planar3DError, RecipeError
from planar3d.graph.described import described
from planar3d.inference.onnx_graph import network_graph
from planar3d.inference.predictor import predict_volume, predictor
from planar3d.inference.tiled import TiledInference, on_openvino
from planar3d.recipes import PAPER, RECIPES
from planar3d.scans.tiles import DepthWindows, Patches
from planar3d.scans.windows import compose, cut_windows, network_input
from planar3d.training.precision import in_precision

RECIPE = PAPER.changed(size=16, channels=1)
TILE = (6, 8, 8)
AVERAGED = Patches(TILE, (3, 4, 4), "average")


def _depth_blur():
    """A network whose output at a slice depends on its window, so that composition shows."""
    x = keras.Input((16, 4, 4, 1))
    y = keras.layers.Conv3D(1, (5, 1, 1), padding="same", activation="sigmoid")(x)
    return keras.Model(x, y)


@pytest.mark.parametrize("batch_size", [1, 2, np.int64(5)])
@pytest.mark.parametrize("slices", [16, 64, 69])
def test_a_volume_equals_its_windows_composed(batch_size, slices):
    voxels = np.random.default_rng(0).integers(0, 255, (slices, 4, 4, 1), np.uint8)
    network = _depth_blur()
    windows = cut_windows(voxels)
    predicted = [network.predict_on_batch(network_input(window[None], 1))[0, ..., 0] for window in windows]
    found = predict_volume(network, voxels, RECIPE, "windowed", batch_size=batch_size)
    assert found.shape == voxels.shape[:3] and found.dtype == np.float32
    expected = compose(np.stack(predicted), 8, slices)
    np.testing.assert_allclose(found, expected, rtol=1e-5 if batch_size > 1 else 0)


def test_a_list_is_a_volume_too():
    voxels = np.random.default_rng(0).integers(0, 255, (16, 4, 4, 1), np.uint8)
    predict = predictor(_depth_blur(), RECIPE, "windowed")
    np.testing.assert_array_equal(predict(voxels.tolist()), predict(voxels))


def test_the_output_of_a_network_may_be_in_a_dictionary():
    network, voxels = _depth_blur(), np.random.default_rng(0).integers(0, 255, (16, 4, 4, 1), np.uint8)
    named = keras.Model(network.input, {"lesion": network.output})
    found, expected = (predict_volume(made, voxels, RECIPE, "windowed") for made in (named, network))
    np.testing.assert_array_equal(found, expected)


def test_progress_reaches_the_last_window():
    seen = []
    voxels = np.zeros((64, 4, 4, 1), np.uint8)
    predict_volume(
        _depth_blur(), voxels, RECIPE, "windowed", batch_size=2, progress=lambda done, of: seen.append((done, of))
    )
    assert seen == [(2, 7), (4, 7), (6, 7), (7, 7)]


def _local(outputs=3, channels=2, shape=TILE):
    """What a voxel gives is of that voxel alone, so that no tiling shows."""
    keras.utils.set_random_seed(0)
    x = keras.Input((*shape, channels))
    y = keras.layers.Conv3D(5, 1, activation="tanh")(x)
    return keras.Model(x, keras.layers.Conv3D(outputs, 1, activation="softmax")(y))


def _tiled(network, tiles, as_input=np.float32, air=0.0, **how):
    """Of a recipe only the tiles matter here, and what they read from a volume."""
    outputs = network.output_shape[-1]
    targets = SimpleNamespace(activation="softmax", background=0, outputs=outputs)
    preparation = SimpleNamespace(as_input=as_input, air=air, brightest=0.0)
    return TiledInference(network, SimpleNamespace(tiles=tiles, preparation=preparation, targets=targets), **how)


def _volume(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("overlap", ["crop", "average", "gaussian"])
@pytest.mark.parametrize("size", [(6, 8, 8), (7, 17, 13), (3, 21, 9), (4, 5, 11), (2, 3, 1)])
def test_a_network_of_single_voxels_gives_the_same_whatever_the_tiles(overlap, size):
    volume = _volume(*size, 2)
    network = _local()
    whole = network.layers[2](network.layers[1](volume[None]))[0]
    found = _tiled(network, Patches(TILE, (4, 4, 6), overlap), batch_size=4)(volume)
    assert found.shape == (*size, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, whole, atol=2e-6)


def test_inside_of_the_borders_that_it_sees_a_convolution_cropped_is_that_of_the_whole_volume():
    keras.utils.set_random_seed(0)
    convolution = keras.layers.Conv3D(4, 3, padding="same")
    x = keras.Input((6, 8, 8, 1))
    network = keras.Model(x, convolution(x))
    volume = _volume(15, 21, 18, 1)
    # A tile's outermost voxels see zeros beyond it; with steps of 2 less than a tile they are cut off.
    found = _tiled(network, Patches(TILE, (4, 6, 6), "crop"))(volume)
    np.testing.assert_allclose(found, convolution(volume[None])[0], atol=1e-5)


@pytest.mark.parametrize("overlap", ["average", "gaussian"])
def test_a_constant_network_gives_its_constant_everywhere_to_the_last_bit(overlap):
    x = keras.Input((*TILE, 1))
    bias = keras.initializers.Constant([0.1, 1 / 3, 1e-20])
    network = keras.Model(x, keras.layers.Conv3D(3, 1, kernel_initializer="zeros", bias_initializer=bias)(x))
    found = _tiled(network, Patches(TILE, (2, 1, 3), overlap), batch_size=7)(_volume(13, 11, 17, 1))
    np.testing.assert_array_equal(found, np.broadcast_to(np.float32([0.1, 1 / 3, 1e-20]), found.shape))


def test_outside_of_the_volume_patches_are_of_its_air():
    x = keras.Input((*TILE, 1))
    box = keras.layers.Conv3D(1, 3, padding="same", use_bias=False, kernel_initializer="ones")
    network = keras.Model(x, box(x))
    found = _tiled(network, AVERAGED, air=-2.0)(np.ones((1, 1, 1, 1), np.float32))
    assert found.item() == 1 - 26 * 2


def test_whole_planes_are_tiles_of_any_size_and_8_bit_volumes_have_an_input_of_their_own():
    network = _local(channels=3, shape=(None, None, None))
    volume = np.random.default_rng(0).integers(0, 255, (5, 9, 7, 1), np.uint8)
    found = _tiled(network, Patches((2, 0, 0), (1, 0, 0)), network_input)(volume)
    np.testing.assert_allclose(found, network(network_input(volume)[None])[0], atol=1e-6)
    half = _tiled(_local(), AVERAGED)(_volume(7, 9, 9, 2).astype(np.float16))
    assert half.dtype == np.float32


def test_tiles_that_the_network_does_not_take_are_refused_before_anything_is_computed():
    with pytest.raises(RecipeError, match=r"takes \(6, 8, 8\) voxels.* have \(4, 8, 8\)"):
        _tiled(_local(), Patches((4, 8, 8), (2, 4, 4)))(_volume(9, 9, 9, 2))
    with pytest.raises(RecipeError, match=r"takes \(6, 8, 8\) voxels.* have \(6, 9, 9\)"):
        _tiled(_local(), DepthWindows(6, 2))(_volume(9, 9, 9, 2))


def test_progress_counts_tiles_and_an_interruption_leaves_no_thread_behind():
    class Interruption(BaseException):
        pass

    seen = []

    def progress(done, of):
        seen.append((done, of))
        if done == 8:
            raise Interruption

    predict = _tiled(_local(), AVERAGED, batch_size=4)
    volume = _volume(9, 12, 12, 2)
    before = threading.active_count()
    with pytest.raises(Interruption):
        predict(volume, progress)
    assert seen == [(4, 8), (8, 8)] and threading.active_count() == before
    np.testing.assert_array_equal(predict(volume), _tiled(_local(), AVERAGED, batch_size=4)(volume))


def test_every_batch_has_one_shape_and_reads_from_a_mapped_file(tmp_path):
    volume = _volume(9, 12, 16, 2)
    np.save(tmp_path / "volume.npy", volume)
    shapes = set()

    def as_input(tiles):
        shapes.add(tiles.shape)
        return tiles

    found = _tiled(_local(), AVERAGED, as_input, batch_size=5)(np.load(tmp_path / "volume.npy", mmap_mode="r"))
    assert shapes == {(5, *TILE, 2)}
    np.testing.assert_allclose(found, _tiled(_local(), AVERAGED)(volume), atol=1e-6)


class TestOpenVINO:
    """Equal to Keras within rounding."""

    @pytest.fixture(autouse=True)
    def _needs_openvino(self):
        pytest.importorskip("openvino")
        pytest.importorskip("onnx")

    @pytest.mark.parametrize("batch_size", [1, 3])
    def test_volumes_of_any_size_equal_those_of_keras(self, batch_size):
        network = small_unet(8, 2, False, 16)
        tiles = Patches((8, 16, 16), (4, 8, 8), "gaussian")
        on_openvino = _tiled(network, tiles, batch_size=batch_size, engine="openvino")
        assert on_openvino.description == "tiled on OpenVINO, float32"
        for size in ((11, 20, 17), (5, 30, 16)):
            volume = _volume(*size, 1)
            np.testing.assert_allclose(on_openvino(volume), _tiled(network, tiles)(volume), atol=1e-5)

    def test_batches_of_several_threads_are_computed_one_at_a_time(self):
        predict = _tiled(small_unet(8, 2, False, 16), Patches((8, 16, 16), (4, 8, 8)), engine="openvino")
        volumes = [_volume(11, 20, 17, 1) * number for number in range(1, 5)]
        expected = [predict(volume) for volume in volumes]
        with ThreadPoolExecutor(4) as threads:
            np.testing.assert_array_equal(list(threads.map(predict, volumes)), expected)

    def test_in_bf16_a_network_differs_by_its_rounding(self):
        network, volume = small_unet(8, 2, False, 16), _volume(12, 16, 20, 1)
        tiles = Patches((8, 16, 16), (4, 8, 8))
        exact = _tiled(network, tiles)(volume)
        for engine in ("keras", "openvino"):
            predict = _tiled(network, tiles, engine=engine, precision="bf16")
            narrow = predict(volume)
            assert predict.description.endswith("bf16") == (np.abs(narrow - exact).max() > 1e-5)
            assert narrow.dtype == np.float32 and np.abs(narrow - exact).max() < 0.02

    @pytest.mark.parametrize("multiplies", [True, False])
    def test_bf16_is_computed_only_where_the_processor_multiplies_it(self, multiplies, monkeypatch):
        monkeypatch.setattr("planar3d.inference.openvino_engine.multiplies_bf16", lambda: multiplies)
        network = small_unet(8, 2, False, 16)
        assert on_openvino(network, "bf16")[1] == ("bf16" if multiplies else "float32")
        assert on_openvino(network, "float32")[1] == "float32"

    def test_in_bf16_a_kernel_deeper_than_a_single_slice_of_few_channels_reads_nothing_beyond_it(self):
        keras.utils.set_random_seed(0)
        x = keras.Input((4, 12, 12, 8))
        both = keras.layers.Conv3D(8, (3, 5, 5), padding="same", name="both")
        thin = keras.layers.MaxPooling3D((4, 1, 1))(x)
        y = keras.layers.Add()([both(x), keras.layers.UpSampling3D((4, 1, 1))(both(thin))])
        network = keras.Model(x, keras.layers.Conv3D(1, 1, activation="sigmoid")(y))
        tiles = np.random.default_rng(0).normal(size=(2, 4, 12, 12, 8)).astype(np.float32)
        expected = network.predict_on_batch(tiles)
        for precision, within in (("float32", 1e-5), ("bf16", 0.02)):
            np.testing.assert_allclose(on_openvino(network, precision)[0](tiles), expected, atol=within)
            np.testing.assert_allclose(in_precision(network, precision)(tiles), expected, atol=within)
        kernels = {name: array.shape for name, array in network_graph(described(network))[0].initializers.items()}
        assert kernels["both/kernel"] == (8, 8, 3, 5, 5) and kernels["both/slice/kernel"] == (8, 8, 1, 5, 5)
        assert in_precision(network, "bf16").get_layer("both").compute_dtype == "float32"

    def test_a_layer_it_does_not_know_is_named(self):
        x = keras.Input((*TILE, 1))
        network = keras.Model(x, keras.layers.UnitNormalization(name="strange")(x))
        said = "strange is of type UnitNormalization, .*supported are: (?!.*(UnitNormalization|Conv2D)).*Conv3D"
        with pytest.raises(Planar3DError, match=said):
            _tiled(network, AVERAGED, engine="openvino")


def test_logits_are_averaged_as_the_release_does_and_what_no_patch_sees_is_background():
    """The release adds up what the network gives before its softmax, and takes the largest sum."""
    recipe = RECIPES["wacker2019-3d-released"].changed(
        shape=TILE, step=(4, 4, 6), smallest=(0, 0, 0), images=("t2", "flair")
    )
    keras.utils.set_random_seed(0)
    x = keras.Input((*TILE, 2))
    raw = keras.layers.Conv3D(recipe.targets.outputs, 3, padding="same", kernel_initializer="random_normal")(x)
    raw = keras.layers.Rescaling(60.0)(raw)  # sure of itself, as trained networks are
    network = keras.Model(x, keras.layers.Activation(recipe.targets.activation)(raw))
    before = keras.Model(x, raw)
    volume = _volume(9, 10, 15, 2)
    sums, counts = np.zeros((9, 10, 15, recipe.targets.outputs)), np.zeros((9, 10, 15, 1))
    for z, y, x in ((0, 0, x) for x in (0, 6)):
        place = (slice(z, z + 6), slice(y, y + 8), slice(x, x + 8))
        sums[place] += before.predict_on_batch(volume[place][None])[0]
        counts[place] += 1
    seen = counts[..., 0] > 0
    assert not seen[6:].any() and not seen[:, 8:].any() and not seen[..., 14:].any()
    mean = sums / np.maximum(counts, 1)
    expected = np.exp(mean - mean.max(-1, keepdims=True))
    expected /= expected.sum(-1, keepdims=True)
    found = TiledInference(network, recipe)(volume)
    np.testing.assert_allclose(found[seen], expected[seen], atol=1e-5)
    np.testing.assert_array_equal(found[~seen], np.broadcast_to(recipe.targets.encode(0), found[~seen].shape))
    largest = np.array([0, 1, 2, 4])[np.argmax(sums, axis=-1)]
    np.testing.assert_array_equal(recipe.targets.assign(found), largest)
    averaged = TiledInference(network, recipe.changed(averaged="probabilities"))(volume)
    assert (recipe.targets.assign(averaged) != largest).any()
