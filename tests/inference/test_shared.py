"""What windows share is computed once: the composed volume is that of the windowed method, bit for bit in float32."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import keras
import numpy as np
import pytest
import tensorflow as tf
from inference_networks import narrow_resunet, new_narrow_resunet, planar_resunet, small_unet, voxels
from keras import layers
from tensorflow.python.eager.context import context

from planar3d.errors import Planar3DError
from planar3d.graph.described import described
from planar3d.inference.keras_engine import KerasEngine, _dilates_exactly, _in_place
from planar3d.inference.plan import Piece, StretchShape, make_plan
from planar3d.inference.predictor import predict_volume
from planar3d.inference.shared import SharedInference, _aligned
from planar3d.recipes import PAPER
from planar3d.scans.preparation import CenterCrop
from planar3d.training.backends import as_written


class Scaled(layers.Layer):
    def call(self, x, factor=1.0):
        return x * factor


class Tripled(layers.ReLU):
    def __call__(self, *args, **kwargs):
        return 3 * super().__call__(*args, **kwargs)


def twice(x):
    scaled = Scaled()
    return keras.ops.concatenate([scaled(x, factor=3.0), scaled(layers.ReLU()(x), factor=-2.0)])


USES = {
    "an operation of two tensors": lambda x: x + keras.ops.max(x, axis=1, keepdims=True),
    "an operation of a number": lambda x: 2 - x,
    "part of an axis": lambda x: x[..., ::2],
    "a layer with an argument": lambda x: Scaled()(x, factor=3.0),
    "a layer with other arguments elsewhere": twice,
    "a map of slices": lambda x: layers.Rescaling(np.linspace(1, 2, 16).reshape(16, 1, 1, 1))(x),
    "a layer that is called in its own way": Tripled(),
    "always in training": lambda x: layers.Dropout(0.5)(x, training=True),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_layers_are_used_with_the_arguments_that_the_network_gives_them(use) -> None:
    window = keras.Input((16, 4, 4, 1))
    x = use(layers.Conv3D(3, (1, 3, 3), padding="same")(window))
    network = keras.Model(window, layers.Conv3D(1, (3, 1, 1), padding="same", activation="sigmoid")(x))
    recipe, scan = PAPER.changed(size=16, channels=1), voxels(24, 4)
    windowed = predict_volume(network, scan, recipe, "windowed")
    np.testing.assert_allclose(predict_volume(network, scan, recipe, "shared"), windowed, atol=1e-6)


@pytest.mark.parametrize(
    "last",
    [
        *("a sum of three", "a dilated ELU", "an ELU after a dilated convolution", "an ELU after a convolution"),
        "an ELU after dropout",
    ],
)
def test_tensorflow_rewrites_no_arithmetic_that_rounds_otherwise_in_parts_of_a_network(last: str) -> None:
    keras.utils.set_random_seed(0)
    window = keras.Input((8, 32, 32, 1))
    x = layers.Conv3D(3, (1, 3, 3), padding="same")(window)

    def convolved(kernel: Sequence[int], **settings) -> keras.KerasTensor:
        return layers.Conv3D(4, kernel, padding="same", bias_initializer="random_normal", **settings)(x)

    if last == "a sum of three":
        x = layers.Add()([convolved((2, 3, 3)), convolved((1, 1, 1)), convolved((3, 1, 1), activation="relu")])
    elif last == "a dilated ELU":
        x = convolved((2, 3, 3), dilation_rate=(1, 2, 2), activation="elu")
    elif last == "an ELU after a dilated convolution":
        x = layers.ELU()(convolved((2, 3, 3), dilation_rate=(1, 2, 2)))
    elif last == "an ELU after a convolution":
        x = layers.Activation("elu")(convolved((2, 3, 3)))
    else:
        x = layers.ELU()(layers.Dropout(0.5)(convolved((2, 3, 3))))
    network = keras.Model(window, layers.Conv3D(1, (2, 1, 1), padding="same", activation="sigmoid")(x))
    recipe, scan = PAPER.changed(size=32, depth=8, stride=4, channels=1), voxels(19, 32)
    windowed = predict_volume(network, scan, recipe, "windowed")
    np.testing.assert_array_equal(predict_volume(network, scan, recipe, "shared"), windowed)


def test_options_of_tensorflow_are_the_users_after_and_in_predictions_of_several_threads() -> None:
    set_to, together = tf.config.optimizer.get_experimental_options, Barrier(2, timeout=60)
    before, seen = set_to(), []

    def compute(leaves_first: bool) -> None:
        together.wait()  # both are computing
        if not leaves_first:
            together.wait()  # the other one is done
            seen.append(context().function_call_options.config_proto_serialized)
            raise KeyError

    with ThreadPoolExecutor() as threads:
        first, second = (threads.submit(as_written(compute), leaves_first) for leaves_first in (True, False))
        first.result()
        together.wait()
        assert isinstance(second.exception(), KeyError)
    rewriting = tf.compat.v1.ConfigProto.FromString(seen[0]).graph_options.rewrite_options
    assert rewriting.arithmetic_optimization == rewriting.constant_folding == rewriting.OFF
    assert set_to() == before


@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_sums_and_products_written_as_operators_are_shared(engine: str) -> None:
    window = keras.Input((16, 16, 16, 1))
    x = layers.Conv3D(3, (1, 3, 3), padding="same")(window)
    x = x + layers.Conv3D(3, 3, padding="same")(x) * x
    network = keras.Model(window, layers.Conv3D(1, (2, 1, 1), padding="same", activation="sigmoid")(x))
    recipe, scan = PAPER.changed(size=16, channels=1), voxels(27, 16)
    windowed = predict_volume(network, scan, recipe, "windowed")
    np.testing.assert_allclose(predict_volume(network, scan, recipe, "shared", engine), windowed, atol=1e-6)


@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_a_network_that_combines_no_slices_is_shared_whole(engine: str) -> None:
    window = keras.Input((16, 4, 4, 1))
    network = keras.Model(window, layers.Conv3D(1, (1, 3, 3), padding="same", activation="sigmoid")(window))
    recipe, scan = PAPER.changed(size=16, channels=1), voxels(27, 4)
    found, windowed = (predict_volume(network, scan, recipe, *how) for how in (("shared", engine), ("windowed",)))
    np.testing.assert_allclose(found, windowed, atol=1e-6)


def test_a_layer_of_several_outputs_is_left_to_windows() -> None:
    window = keras.Input((16, 4, 4, 2))
    first, second = keras.ops.split(layers.Conv3D(2, 1)(window), 2, axis=-1)
    network = keras.Model(window, first * second)
    with pytest.raises(Planar3DError, match=r"Layer split.* gives 2 outputs; use method='windowed'"):
        predict_volume(network, voxels(16, 4), PAPER.changed(channels=2))


def test_a_layer_that_is_used_twice_on_one_input_is_left_to_windows() -> None:
    window, scaled = keras.Input((16, 4, 4, 2)), Scaled(name="scaled")
    x = layers.Conv3D(1, 1)(window)
    network = keras.Model(window, scaled(x, factor=3.0) - scaled(x))
    with pytest.raises(Planar3DError, match=r"Layer scaled is used twice on the same input; use method='windowed'"):
        predict_volume(network, voxels(16, 4), PAPER.changed(channels=2))


@pytest.mark.parametrize(
    "slices, depth, stride",
    [(46, 16, 8), (9, 16, 8), (16, 16, 8), (24, 16, 8), (32, 16, 4), (48, 16, 16), (24, 16, 2)],
)
def test_the_planar_resunet_shared_equals_windowed_bit_for_bit(slices: int, depth: int, stride: int) -> None:
    network, scan = planar_resunet(depth), voxels(slices, 32)
    recipe = PAPER.changed(size=32, depth=depth, stride=stride)
    windowed = predict_volume(network, scan, recipe, "windowed")
    assert np.std(windowed) > 0.01
    np.testing.assert_array_equal(predict_volume(network, scan, recipe, "shared"), windowed)


@pytest.mark.parametrize(
    "levels, repeat, size, depth, stride",
    [
        (1, False, 16, 16, 8),
        (2, False, 16, 16, 8),
        (2, False, 16, 16, 4),
        (2, True, 16, 32, 16),
        (3, False, None, 16, 8),
        (3, False, None, 16, 4),
    ],
)
def test_networks_of_other_levels_names_and_layers_too(
    levels: int, repeat: bool, size: int | None, depth: int, stride: int
) -> None:
    network, scan = small_unet(depth, levels, repeat, size), voxels(depth * 2 + 3, 16)
    recipe = PAPER.changed(size=16, depth=depth, stride=stride, channels=1)
    windowed = predict_volume(network, scan, recipe, "windowed")
    assert np.std(windowed) > 0.001
    np.testing.assert_array_equal(predict_volume(network, scan, recipe, "shared"), windowed)


@pytest.mark.parametrize("images", [("flair",), ("flair", "t1")])
def test_standardized_images_one_or_several_too(images: tuple[str, ...]) -> None:
    preparation = CenterCrop(images=images, crop=(24, 32, 32))
    recipe = PAPER.changed(preparation=preparation, encoder_weights="none")
    network = planar_resunet(channels=len(images))
    scan = np.random.default_rng(0).normal(size=(24, 32, 32, len(images))).astype(np.float32)
    windowed = predict_volume(network, scan, recipe, "windowed")
    assert np.std(windowed) > 0.001
    np.testing.assert_array_equal(predict_volume(network, scan, recipe, "shared"), windowed)


@pytest.mark.parametrize("stride", [2, 4, 8, 16])
def test_splitting_convolutions_changes_no_more_than_rounding(stride: int) -> None:
    network, scan = narrow_resunet(), voxels(32, 32)
    recipe = PAPER.changed(size=32, stride=stride)
    split = SharedInference(make_plan(described(network), stride, exact=False), KerasEngine(network), PAPER.preparation)
    np.testing.assert_allclose(split(scan), predict_volume(network, scan, recipe, "windowed"), atol=1e-6)


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_the_middle_of_one_window_is_what_the_composition_keeps_of_it(stride: int) -> None:
    network, scan, margin = planar_resunet(), voxels(48, 32), (16 - stride) // 2
    predict = SharedInference(make_plan(described(network), stride), KerasEngine(network), PAPER.preparation)
    np.testing.assert_array_equal(predict.middle(scan[16:32]), predict(scan)[16 + margin : 32 - margin])


def test_one_predictor_serves_scans_of_other_sizes_in_the_memory_of_the_largest() -> None:
    network, taken = narrow_resunet(), []
    again, other = (
        SharedInference(make_plan(described(network), 8), KerasEngine(network), PAPER.preparation) for _ in range(2)
    )
    for slices, size in ((50, 32), (32, 48), (16, 32)):
        scan = voxels(slices, size, seed=slices)
        found = again(scan)
        if size == 32:
            np.testing.assert_array_equal(found, predict_volume(network, scan, PAPER.changed(size=32), "windowed"))
        other.release()
        np.testing.assert_array_equal(found, other(scan))
        taken.append([array.ctypes.data for array in again._memory.values()])
    assert taken[0] != taken[1] == taken[2]


def test_programs_free_intermediate_results_before_another_is_built_and_compute_the_same_after() -> None:
    openvino = pytest.importorskip("planar3d.inference.openvino_engine")
    network, scan, events = narrow_resunet(), voxels(32, 32), []

    class Program(openvino.OpenVINOProgram):
        def free(self) -> None:
            super().free()
            events.append("freed")

    class Engine(openvino.OpenVINOEngine):
        def program(self, piece: Piece, shapes: Sequence[StretchShape]) -> Program:
            events.append("built")
            return Program(self, piece, shapes)

    predict = SharedInference(make_plan(described(network), 8, exact=False), Engine(), PAPER.preparation)
    first = predict(scan)
    # The shared part, and the first, a middle and the last window.
    assert events == ["built", "freed", "built", "freed", "freed", "built", *["freed"] * 3, "built"]
    np.testing.assert_array_equal(predict(scan), first)
    assert len(events) == 10
    # A scan of other planes frees those of the first one.
    predict(voxels(32, 48))
    assert events[10:14] == ["freed"] * 4 and events[14:].count("built") == 4
    predict(scan)
    assert events[-4:] == ["freed"] * 4


def test_a_network_keeps_nothing_of_the_programs_that_it_computes() -> None:
    network = narrow_resunet()
    predict = SharedInference(make_plan(described(network), 8), KerasEngine(network), PAPER.preparation)
    uses = [len(uses) for layer in network.layers for uses in (layer._inbound_nodes, layer._outbound_nodes)]
    for cols in (32, 48, 64):
        predict(voxels(32, cols))
    assert uses == [len(uses) for layer in network.layers for uses in (layer._inbound_nodes, layer._outbound_nodes)]


def test_programs_of_all_sizes_share_their_kernels() -> None:
    openvino = pytest.importorskip("planar3d.inference.openvino_engine")
    plan, engine = make_plan(described(narrow_resunet()), 8, exact=False), openvino.OpenVINOEngine()
    nodes = [node for piece in (plan.shared, plan.windows["middle"]) for node in piece.nodes]
    kernels = [engine.layer_of(node).kernel for node in nodes if node.kind == "Conv3D"]
    assert {node.role for node in nodes} > {"layer", "part"}
    predict = SharedInference(plan, engine, PAPER.preparation)
    predict(voxels(32, 32))
    predict(voxels(32, 48))
    again = [engine.layer_of(node).kernel for node in nodes if node.kind == "Conv3D"]
    assert all(one is other for one, other in zip(kernels, again, strict=True))


def test_scans_of_several_threads_are_predicted_one_at_a_time() -> None:
    openvino = pytest.importorskip("planar3d.inference.openvino_engine")
    plan = make_plan(described(narrow_resunet()), 8, exact=False)
    predict = SharedInference(plan, openvino.OpenVINOEngine(), PAPER.preparation)
    scans = [voxels(32, 32, seed=seed) for seed in range(4)]
    expected = [predict(scan) for scan in scans]
    with ThreadPoolExecutor(4) as threads:
        np.testing.assert_array_equal(list(threads.map(predict, scans)), expected)


def test_progress_counts_windows() -> None:
    seen: list[tuple[int, int]] = []
    network = narrow_resunet()
    predict = SharedInference(make_plan(described(network), 8), KerasEngine(network), PAPER.preparation)
    predict(voxels(32, 32), lambda *done: seen.append(done))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_weights_that_change_later_count() -> None:
    network, scan = new_narrow_resunet(), voxels(32, 32)
    predict = SharedInference(make_plan(described(network), 8), KerasEngine(network), PAPER.preparation)
    before = predict(scan)
    layer = network.get_layer("conv71")
    layer.kernel.assign(layer.kernel * 2)
    after = predict(scan)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, predict_volume(network, scan, PAPER.changed(size=32), "windowed"))


def test_a_network_that_shares_nothing_is_refused() -> None:
    inputs = keras.Input((16, 16, 16, 3))
    x = layers.Conv3D(4, 3, padding="same")(inputs)
    network = keras.Model(inputs, layers.Conv3D(1, 1, activation="sigmoid")(x), name="all_3d")
    with pytest.raises(Planar3DError, match=r"all_3d at stride 8 share nothing: .*Conv3D.*windowed"):
        make_plan(described(network), 8)


@pytest.mark.parametrize("repeated", [True, False])
@pytest.mark.parametrize("stride", [8, 16])
def test_a_layer_that_sees_whole_windows_stays_exact(repeated: bool, stride: int) -> None:
    inputs = keras.Input((16, 16, 16, 1))
    x = skip = layers.Conv3D(4, (1, 3, 3), padding="same", activation="relu")(inputs)
    mean = layers.GlobalAveragePooling3D(keepdims=True)(x)
    x = layers.Multiply()([x, layers.UpSampling3D((16, 1, 1))(mean)] if repeated else [mean, x])
    x = layers.Concatenate()([x, skip])
    network = with_output(inputs, x)
    scan = voxels(40, 16)
    recipe = PAPER.changed(size=16, channels=1, stride=stride)
    windowed = predict_volume(network, scan, recipe, "windowed")
    np.testing.assert_array_equal(predict_volume(network, scan, recipe, "shared"), windowed)


def test_a_convolution_of_features_beside_each_other_in_a_plane_is_not_split() -> None:
    inputs = keras.Input((16, 4, 4, 1))
    first = layers.Conv3D(3, (1, 3, 3), padding="same")(inputs)
    second = layers.Conv3D(3, 3, padding="same")(first)
    x = layers.Conv3D(3, 1)(layers.Concatenate(axis=2)([first, second]))
    network = with_output(inputs, layers.MaxPooling3D((1, 2, 1))(x))
    scan, recipe = voxels(27, 4), PAPER.changed(size=16, channels=1)
    windowed = predict_volume(network, scan, recipe, "windowed")
    split = SharedInference(make_plan(described(network), 8, exact=False), KerasEngine(network), recipe.preparation)
    np.testing.assert_allclose(split(scan), windowed, atol=1e-6)


@pytest.mark.parametrize("depth, pool, stride", [(8, 3, 4), (20, 9, 10)])
def test_a_pooling_that_leaves_slices_over_stays_exact(depth: int, pool: int, stride: int) -> None:
    inputs = keras.Input((depth, 4, 4, 1))
    x = layers.Conv3D(3, (1, 3, 3), padding="same")(inputs)
    pooled = layers.MaxPooling3D((pool, 1, 1))(x)
    network = with_output(inputs, layers.Concatenate()([layers.UpSampling3D((depth // 2, 1, 1))(pooled), x]))
    scan, recipe = voxels(3 * depth, 4), PAPER.changed(size=16, channels=1, depth=depth, stride=stride)
    windowed = predict_volume(network, scan, recipe, "windowed")
    np.testing.assert_array_equal(predict_volume(network, scan, recipe, "shared"), windowed)


def with_output(inputs: keras.KerasTensor, x: keras.KerasTensor) -> keras.Model:
    return keras.Model(inputs, layers.Conv3D(1, 1, activation="sigmoid")(x))


def test_stretches_are_read_where_they_are_and_copied_where_tensorflow_cannot() -> None:
    memory = _aligned(64 * 16 * 4).view(np.float32).reshape(64, 16)
    memory[:] = np.arange(memory.size).reshape(memory.shape)
    fixed = memory.view()
    fixed.flags.writeable = False
    stretches = {"in place": memory[8:], "misaligned": memory.ravel()[3:], "strided": memory[:, ::2], "fixed": fixed}
    tensors = {name: _in_place(stretch) for name, stretch in stretches.items()}
    for name, stretch in stretches.items():
        np.testing.assert_array_equal(tensors[name], stretch)
    memory += 1
    assert {name for name, stretch in stretches.items() if np.array_equal(tensors[name], stretch)} == {"in place"}


def test_tensorflow_takes_the_programs_of_several_scans_for_no_program_traced_again_and_again(caplog) -> None:
    """It warns where five of the last sixteen calls of a function were traced."""
    import tensorflow as tf

    _dilates_exactly.cache_clear()
    tf.get_logger().addHandler(caplog.handler)
    try:
        for size in (16, 32, 48):
            recipe = PAPER.changed(size=size, depth=8, stride=4, channels=1)
            predict_volume(small_unet(size=None), voxels(16, size), recipe, "shared")
    finally:
        tf.get_logger().removeHandler(caplog.handler)
    assert not caplog.messages
