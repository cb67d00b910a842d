import keras
import narrow_encoder
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from planar3d.conversion.acs import ACSConv3D
from planar3d.errors import Planar3DError, RecipeError
from planar3d.networks.planar_resunet import PlanarResUNet, dilated_residual_level
from planar3d.recipes import PAPER
from planar3d.training.devices import choose_devices
from planar3d.training.gradient_check import GradientCheck, guard_gradients, guard_precision
from planar3d.training.precision import built_with, for_prediction, precision_of

WITHOUT_GPU = not tf.config.get_visible_devices("GPU")
on_cpu = pytest.mark.skipif(not WITHOUT_GPU, reason="what happens on a CPU")
on_gpu = pytest.mark.skipif(WITHOUT_GPU, reason="what happens on a GPU")


class FaultyConv3D(layers.Conv3D):
    """A convolution whose forward pass is right and whose bf16 gradient is not, as with oneDNN on AMX."""

    kernel_factor, input_factor = 1.15, 1.0

    def convolution_op(self, inputs, kernel):
        if inputs.dtype != tf.bfloat16:
            return super().convolution_op(inputs, kernel)

        @tf.custom_gradient
        def convolve(x, k):
            # By way of float32, so that on every CPU the factors are all that is wrong.
            x, k = tf.cast(x, "float32"), tf.cast(k, "float32")
            with tf.GradientTape() as tape:
                tape.watch([x, k])
                y = super(FaultyConv3D, self).convolution_op(x, k)

            def gradient(upstream):
                of_input, of_kernel = tape.gradient(y, [x, k], output_gradients=tf.cast(upstream, "float32"))
                factors = self.input_factor, self.kernel_factor
                return [tf.cast(g * f, "bfloat16") for g, f in zip((of_input, of_kernel), factors, strict=True)]

            return tf.cast(y, "bfloat16"), gradient

        return convolve(inputs, tf.convert_to_tensor(kernel.value))


class NanConv3D(FaultyConv3D):
    kernel_factor = float("nan")


class HardlyFaultyConv3D(FaultyConv3D):
    kernel_factor = 1.02  # the least fault of oneDNN


class SometimesFaultyConv3D(FaultyConv3D):
    runs = 0

    @property
    def kernel_factor(self):
        self.runs += 1
        return 1.0 if self.runs == 1 else 1.15


class StoppedConv3D(layers.Conv3D):
    """A convolution that gives its input no bf16 gradient."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(tf.stop_gradient(inputs) if inputs.dtype == tf.bfloat16 else inputs, kernel)


class FaultyTowardsInputConv3D(FaultyConv3D):
    input_factor = 0.8


def tiny(middle=layers.Conv3D, sizes=(4, 8, 8), size=(1, 3, 3)):
    """An encoder level, a layer of class `middle`, a decoder level, and the head that stays in float32."""
    inputs = keras.Input((*sizes, 3))
    skip = layers.Conv3D(4, (1, 3, 3), padding="same", activation="relu", name="encoder")(inputs)
    x = layers.MaxPooling3D(2, name="pool")(skip)
    x = middle(4, size, padding="same", activation="relu", name="middle")(x)
    x = dilated_residual_level(x, skip, 4, level=9, kernel=(3, 3, 3))
    return keras.Model(inputs, layers.Conv3D(1, 1, activation="sigmoid", dtype="float32", name="head")(x))


def dtypes_computed(network):
    """The dtype that every layer really puts out, when the network runs."""
    probe = keras.Model(network.input, [layer.output for layer in network.layers])
    outputs = probe(np.zeros((1, *network.input_shape[1:]), "float32"))
    return {layer.name: y.dtype.name for layer, y in zip(network.layers, outputs, strict=True)}


@pytest.mark.parametrize(("precision", "computed"), [("float32", "float32"), ("bf16", "bfloat16")])
def test_only_the_network_built_takes_the_policy(precision, computed):
    before = keras.config.dtype_policy()
    network = built_with(precision, tiny)
    assert keras.config.dtype_policy() == before
    assert dtypes_computed(network)["conv92"] == computed
    assert network(np.zeros((1, 4, 8, 8, 3))).dtype == tf.float32
    assert {weight.dtype for weight in network.weights} == {"float32"}


@on_cpu
def test_the_planar_resunet_puts_out_float32_before_and_after_the_check():
    few = {"encoder": narrow_encoder.NAME, "encoder_weights": None, "decoder_filters": (4, 4), "bridge_filters": 4}
    network = built_with("bf16", lambda: PlanarResUNet((16, 16, 16, 3), **few))
    for layer in network.layers:
        layer.trainable = not layer.name.startswith("block")
    x = np.ones((1, 16, 16, 16, 3), "float32")
    assert network(x).dtype == tf.float32
    check = guard_gradients(network, 1)
    levels = [(f"trans{n}", f"conv{n}1", f"conv{n}2") for n in (6, 7)]
    assert set(check.errors) == {"conv51", "conv52"}.union(*levels)
    y = network(x)
    assert y.dtype == tf.float32
    assert np.isfinite(y).all()


def test_a_failed_build_leaves_the_policy_as_it_was():
    before = keras.config.dtype_policy()

    def fails():
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        built_with("bf16", fails)
    assert keras.config.dtype_policy() == before


@pytest.fixture(params=["float16", "float64"])
def other_floatx(request):
    keras.config.set_floatx(request.param)
    yield request.param
    keras.config.set_floatx("float32")


def test_another_type_of_numbers_as_keras_setting_is_refused_with_a_sentence(other_floatx):
    sentence = rf"Keras is set to floatx='{other_floatx}'.* Call keras\.config\.set_floatx\('float32'\)"
    with pytest.raises(RecipeError, match=sentence):  # TensorFlow casts no input of a traced prediction
        built_with("float32", lambda: None)
    with pytest.raises(RecipeError, match=sentence):
        for_prediction(keras.Sequential([keras.Input((4,)), layers.Dense(1, dtype="float32")]), None)
    with pytest.raises(RecipeError, match=sentence):  # losses would be computed in it
        choose_devices(None, PAPER)


def test_an_unknown_precision_is_answered_with_the_choices():
    with pytest.raises(RecipeError, match="'float32', 'bf16', 'float16'"):
        built_with("fp8", tiny)


@on_cpu
def test_float16_is_refused_on_a_cpu():
    before = keras.config.dtype_policy()
    with pytest.raises(Planar3DError, match=r"needs a GPU.*bf16 or float32"):
        built_with("float16", tiny)
    assert keras.config.dtype_policy() == before


def test_16_bits_are_refused_where_keras_computes_them_wrongly(monkeypatch):
    network = tiny()
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    assert for_prediction(network, "float32")[0] is network
    with pytest.raises(RecipeError, match=r"'bf16' is wrong where Keras runs on numpy. Use float32"):
        for_prediction(network, "bf16")


def test_openvino_as_the_backend_of_keras_is_refused_since_it_computes_float32_in_bf16(monkeypatch):
    network = tiny()
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    for precision in ("bf16", "float32", None):
        with pytest.raises(RecipeError, match=r"float32 may be computed in bf16. Set KERAS_BACKEND=tensorflow"):
            for_prediction(network, precision)
    with pytest.raises(RecipeError, match="runs on openvino"):
        built_with("float32", tiny)


def test_a_float64_network_predicts_in_float32():
    volume = [keras.Input((4, 4, 4, 1), dtype="float64")]
    x = layers.MaxPooling3D(dtype="float64")(layers.Conv3D(2, 1, dtype="float64")(volume[0]))
    network = keras.Model(volume, layers.Conv3D(1, 1, dtype="float64")(x))
    made, how = for_prediction(network, None)
    assert {layer.compute_dtype for layer in made.layers[1:]} == {how} == {"float32"}
    for kept, weights in zip(made.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, weights.astype("float32"))
    assert made(np.zeros((1, 4, 4, 4, 1), "float32")).dtype == "float32"


def test_a_network_that_was_compiled_with_one_s_own_loss_is_predicted_in_another_precision():
    inner = keras.Sequential([keras.Input((4, 4, 4, 1)), layers.Conv3D(1, 1, dtype="mixed_bfloat16")])
    network = keras.Sequential([inner, layers.Conv3D(1, 1, dtype="mixed_bfloat16")])
    for trained in (inner, network):
        trained.compile("sgd", lambda true, predicted: tf.reduce_mean(tf.cast(true, predicted.dtype) - predicted))
    made = for_prediction(network, "float32")[0]
    assert precision_of(made) == "float32" and network.compiled and inner.compiled and not made.compiled
    for copied, weights in zip(made.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(copied, weights)


@on_cpu
def test_a_float16_network_predicts_on_a_cpu_in_another_precision_only():
    volume, channel = keras.Input((4, 8, 8, 1)), keras.layers.Conv3D(1, 1, dtype="float32")
    network = keras.Model(volume, channel(keras.layers.Conv3D(2, 3, padding="same", dtype="mixed_float16")(volume)))
    with pytest.raises(RecipeError, match=r"needs a GPU.*bf16 or float32"):
        for_prediction(network, None)
    assert precision_of(for_prediction(network, "float32")[0]) == "float32"


@on_cpu
@pytest.mark.parametrize(
    ("middle", "errors"),
    [
        (FaultyConv3D, (0.15, 0.0)),
        (HardlyFaultyConv3D, (0.02, 0.0)),
        (SometimesFaultyConv3D, (0.15, 0.0)),
        (NanConv3D, (np.nan, 0.0)),
        (StoppedConv3D, (0.0, np.inf)),
        (FaultyTowardsInputConv3D, (0.15, 0.2)),
    ],
)
def test_a_layer_with_a_wrong_gradient_computes_in_float32_and_no_other(middle, errors):
    network = built_with("bf16", lambda: tiny(middle))
    assert dtypes_computed(network)["middle"] == "bfloat16"
    check = guard_gradients(network, 2)
    assert "middle" in check.kept_float32
    np.testing.assert_allclose(check.errors["middle"], errors, atol=0.01)
    # Further layers may fail on a CPU that has the fault; what the check found is what the layers do.
    right = {name for name, pair in check.errors.items() if max(pair) <= 0.05}
    assert right | set(check.kept_float32) == {"encoder", "middle", "trans9", "conv91", "conv92"}
    computed = dtypes_computed(network)
    assert {name for name in check.errors if computed[name] == "float32"} == set(check.kept_float32)
    assert computed["up9"] == "bfloat16"
    assert computed["head"] == "float32"


@on_cpu
def test_a_guarded_network_trains_with_finite_gradients(untraced):
    network = built_with("bf16", lambda: tiny(NanConv3D))
    x = np.random.default_rng(0).normal(size=(2, 4, 8, 8, 3)).astype("float32")
    y = (x[..., :1] > 1).astype("float32")

    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.binary_crossentropy(y, network(x, training=True)))
        return tape.gradient(loss, [variable.value for variable in network.trainable_variables])

    assert not all(np.isfinite(g).all() for g in gradients())
    guard_gradients(network, 2)
    assert all(np.isfinite(g).all() for g in gradients())

    network.compile(keras.optimizers.Adam(1e-2), loss="binary_crossentropy", jit_compile=False)
    losses = [float(network.train_on_batch(x, y)) for _ in range(5)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert all(np.isfinite(w).all() for w in network.get_weights())


@on_cpu
def test_a_kernel_larger_than_its_image_is_computed_in_float32_where_onednn_reads_beyond_it(untraced):
    def build():
        x = inputs = keras.Input((4, 4, 4, 3))
        x = layers.Conv3D(128, (1, 3, 3), (1, 2, 2), padding="same", name="from-4-to-2")(x)
        x = layers.Conv3D(128, (1, 3, 3), (1, 2, 2), padding="same", name="from-2-to-1")(x)
        x = layers.Conv3D(128, (1, 5, 5), padding="same", name="on-1")(x)
        x = layers.Conv3D(256, (1, 3, 3), (1, 2, 2), padding="same", name="strided-on-1")(x)
        x = layers.Conv3DTranspose(128, (1, 4, 4), (1, 2, 2), padding="same", name="from-1-to-2")(x)
        x = layers.Conv3DTranspose(16, (1, 4, 4), (1, 2, 2), padding="same", name="from-2-to-4")(x)
        return keras.Model(inputs, layers.Conv3D(1, 1, activation="sigmoid", dtype="float32", name="head")(x))

    keras.utils.set_random_seed(0)
    network = built_with("bf16", build)
    computed = dtypes_computed(network)
    beyond = {"from-2-to-1", "on-1", "strided-on-1", "from-1-to-2"}
    assert {layer.name for layer in network.layers[1:-1] if computed[layer.name] == "float32"} == beyond
    check = guard_gradients(network, 2)
    assert (set(check.errors), check.kept_float32) == ({"from-4-to-2", "from-2-to-4"}, ())


@on_cpu
@pytest.mark.parametrize(
    ("shape", "layer", "beyond"),
    [
        ((2, 8, 8, 16), layers.Conv3D(32, 3, padding="same"), True),
        ((3, 8, 8, 16), layers.Conv3D(32, (5, 1, 1), padding="same"), True),
        ((3, 8, 8, 16), layers.Conv3D(32, 3, padding="same"), False),
        ((1, 8, 8, 16), layers.Conv3D(32, (5, 3, 3), padding="same"), False),
        ((2, 8, 8, 16), layers.Conv3DTranspose(32, 3, padding="same"), True),
        ((1, 8, 8, 4), layers.Conv3DTranspose(1, 3, padding="same"), True),
        ((2, 8, 8, 17), ACSConv3D(32, (3, 3), (1, 2, 2)), True),
        ((5, 1, 7, 17), ACSConv3D(32, (3, 3), (1, 2, 2)), True),
        ((5, 8, 8, 17), ACSConv3D(32, (3, 3), (1, 2, 2)), False),
        ((16, 1, 64), layers.Conv2D(256, 5, 3, padding="same"), True),
        ((16, 2, 64), layers.Conv2D(256, 3, padding="same"), False),
        ((16, 1, 64), layers.Conv2D(256, 3, padding="same"), False),
        ((4, 2, 128), layers.DepthwiseConv2D(4, 3, padding="same"), True),
        ((2, 16), layers.Conv1D(32, 7, 2, padding="same"), True),
    ],
)
def test_gradients_that_would_read_beyond_an_input_or_output_are_computed_in_float32(shape, layer, beyond):
    def build():
        inputs = keras.Input(shape)
        made = type(layer).from_config(layer.get_config() | {"dtype": "mixed_bfloat16", "name": "made"})
        return keras.Model(inputs, made(inputs))

    network = built_with("bf16", build)
    assert network.get_layer("made").compute_dtype == ("float32" if beyond else "bfloat16")
    assert guard_gradients(network, 2).kept_float32 == ()


@on_cpu
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_guarded_network_has_the_gradients_of_float32(batch_size):
    keras.utils.set_random_seed(0)
    # Three taps over the two slices below the pooling: oneDNN 3.7 gives noise or NaN in bf16 at a batch of 2 or more.
    guarded = built_with("bf16", lambda: tiny(size=3))
    guard_gradients(guarded, batch_size)
    exact = built_with("float32", lambda: tiny(size=3))
    exact.set_weights(guarded.get_weights())
    x = np.random.default_rng(0).normal(size=(batch_size, 4, 8, 8, 3)).astype("float32")

    def kernel_gradients(network):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(x, training=True))
        variables = [v for v in network.trainable_variables if v.name == "kernel"]
        return tape.gradient(loss, [v.value for v in variables])

    for g16, g32 in zip(kernel_gradients(guarded), kernel_gradients(exact), strict=True):
        # Beside rounding, some values near 0 change their sign, and ReLU passes their gradient or not.
        assert np.linalg.norm(g16 - g32) < 0.2 * np.linalg.norm(g32)


@on_cpu
def test_frozen_layers_are_checked_only_where_gradients_pass_them():
    network = built_with("bf16", tiny)
    for name in ("encoder", "conv92"):
        network.get_layer(name).trainable = False
    check = guard_gradients(network, 1)
    assert set(check.errors) == {"middle", "trans9", "conv91", "conv92"}


@on_cpu
def test_layers_of_a_network_within_a_network_are_checked():
    def build():
        inner = tiny()
        inputs = keras.Input(inner.input_shape[1:])
        return keras.Model(inputs, inner(inputs))

    network = built_with("bf16", build)
    assert set(guard_gradients(network, 1).errors) == {"encoder", "middle", "trans9", "conv91", "conv92"}


@on_cpu
def test_where_every_layer_is_wrong_the_whole_network_computes_in_float32(monkeypatch):
    monkeypatch.setattr("planar3d.training.gradient_check.TOLERANCE", 0.0)  # no rounded gradient is without error
    network = built_with("bf16", tiny)
    check = guard_gradients(network, 1)
    assert set(check.kept_float32) == set(check.errors)
    assert {dtypes_computed(network)[name] for name in check.errors} == {"float32"}
    assert str(check).startswith("bf16 gradients agree with float32 in 0 of 5 layers; kept in float32: encoder, middle")


@on_cpu
def test_the_check_changes_neither_weights_nor_random_numbers():
    network = built_with("bf16", tiny)
    weights = network.get_weights()
    keras.utils.set_random_seed(3)
    expected = keras.initializers.GlorotUniform()((4, 4)), keras.random.normal((4,))
    keras.utils.set_random_seed(3)
    guard_gradients(network, 1)
    found = keras.initializers.GlorotUniform()((4, 4)), keras.random.normal((4,))
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(weights, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@on_cpu
def test_a_float32_network_has_nothing_to_compare():
    said = []
    check = guard_gradients(built_with("float32", tiny), 2, notify=said.append)
    assert (check.errors, check.kept_float32, said) == ({}, (), [])
    assert "No bf16 gradients are compared" in str(check)


@on_cpu
@pytest.mark.parametrize(("windows", "sizes"), [(5, [2, 1]), (4, [2]), (1, [1])])
def test_only_bf16_is_checked_and_in_batches_of_each_size(windows, sizes, with_bf16):
    network, said = built_with("float32", tiny), []
    for precision in ("float32", "bf16"):
        guard_precision(network, PAPER.changed(precision=precision, batch_size=2), windows, said.append)
    assert [text.split(": No bf16 gradients are compared")[0] for text in said] == [f"batches of {n}" for n in sizes]


@on_cpu
def test_sizes_must_be_known():
    network = built_with("bf16", lambda: tiny(sizes=(4, None, None)))
    with pytest.raises(Planar3DError, match="all sizes except"):
        guard_gradients(network, 2)


@on_gpu
def test_on_a_gpu_nothing_is_compared():
    network = built_with("bf16", lambda: tiny(FaultyConv3D))
    check = guard_gradients(network, 2)
    assert (check.errors, check.kept_float32) == ({}, ())
    assert "only those of trained layers on a CPU" in str(check)


@pytest.mark.parametrize(
    ("kept", "sentence"),
    [
        ((), "bf16 gradients agree with float32 within 15.0 % in 3 of 3 layers."),
        (("conv62",), "bf16 gradients agree with float32 within 0.6 % in 2 of 3 layers; kept in float32: conv62."),
        (
            ("conv62", "trans7"),
            "bf16 gradients agree with float32 within 0.3 % in 1 of 3 layers; kept in float32: conv62, trans7.",
        ),
    ],
)
def test_the_sentence_for_the_log(kept, sentence):
    errors = {"conv61": (0.002, 0.003), "conv62": (0.15, 0.003), "trans7": (0.0061, 0.002)}
    assert str(GradientCheck(errors, kept)) == sentence
