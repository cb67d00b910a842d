"""What has no counterpart in 3D is refused with a sentence that names the layer and its type."""

import keras
import numpy as np
import pytest
from flat_networks import by_slice, network_of, run, volume
from keras import layers, ops
from numpy.testing import assert_allclose

from planar3d.conversion.convert import convert
from planar3d.errors import ConversionError
from planar3d.graph.keras_graph import as_graph, operation_of
from planar3d.networks.planar_resunet import PlanarResUNet


class Doubled(layers.Layer):
    def call(self, x):
        return 2 * x


class Tilted(layers.Conv2D):
    def call(self, x):
        return super().call(ops.transpose(x, (0, 2, 1, 3)))


def masked_tokens(x):
    return layers.Embedding(9, 4, mask_zero=True)(ops.cast(ops.clip(layers.Flatten()(x), 0, 8), "int32"))


LAYERS = {
    "Lambda": (lambda: layers.Lambda(lambda x: 2 * x, name="odd"), r"odd \(Lambda\) .*is code .* or keras\.ops"),
    "a layer of one's own": (lambda: Doubled(name="odd"), r"odd \(Doubled\) .*no rule is known.*counterparts="),
    "a layer that is another's subclass": (lambda: Tilted(4, 3, name="odd"), r"odd \(Tilted\) .*no rule is known"),
    "an activation of one's own": (lambda: layers.Activation(lambda x: x[:, ::-1], name="odd"), r"odd \(Activation\)"),
    "attention": (
        lambda: lambda x: layers.Attention(name="odd")([x, x]),
        r"odd \(Attention\) .*several inputs.*MultiHead",
    ),
    "a mask of attention": (
        lambda: lambda x: layers.MultiHeadAttention(2, 3, name="odd")(x, x, use_causal_mask=True),
        r"odd \(MultiHeadAttention\) .*mask",
    ),
    "a mask of tokens before attention": (
        lambda: lambda x: layers.MultiHeadAttention(2, 3, name="odd")(*[masked_tokens(x)] * 2),
        r"odd \(MultiHeadAttention\) .*mask .*Embedding",
    ),
    "attention to rows": (
        lambda: lambda x: layers.MultiHeadAttention(2, 3, attention_axes=1, name="odd")(x, x),
        r"odd \(MultiHeadAttention\) .*more axes than TensorFlow's softmax takes",
    ),
    "a batch reshaped": (
        lambda: lambda x: ops.reshape(x, (-1, 40)),
        r"\(Reshape\) .*joins the samples of a batch.*counterparts",
    ),
    "rows as channels": (lambda: layers.BatchNormalization(axis=1, name="odd"), r"odd .*the last axis"),
    "a batch joined": (lambda: lambda x: x - ops.mean(x, axis=0), r"mean.* \(Mean\).*samples of a batch"),
    "a batch as columns": (
        lambda: lambda x: x + ops.mean(x, axis=(1, 2)),
        r"\(Add\) .*joins the samples of a batch",
    ),
    "resizing": (lambda: lambda x: ops.image.resize(x, (9, 9)), r"\(Resize\) .*no rule is known.*UpSampling2D resize"),
    "an operation": (
        lambda: lambda x: ops.median(x, axis=1),
        r"median.* \(Median\) .*no rule .*layer of your own, which",
    ),
}


def test_a_network_quantized_in_float8_is_told_to_be_converted_first():
    network = network_of(layers.Dense(4, name="dense"))
    network.get_layer("dense").quantize("float8")
    with pytest.raises(ConversionError, match=r"dense \(Dense\) .*convert the network first.*quantize\('float8'\)\.$"):
        convert(network)


@pytest.mark.parametrize(("made", "says"), LAYERS.values(), ids=LAYERS)
def test_layers_without_a_counterpart_are_refused_by_name(made, says):
    with pytest.raises(ConversionError, match=says):
        convert(network_of(made()))


def test_tokens_of_images_of_any_size_and_of_whole_volumes_are_refused():
    says = r"odd \(Reshape\) .* turns .* of a slice into .*known size .*global_pooling='slice', pool first"
    for shape, pooled in (((None, 10, 4), "slice"), ((8, 10, 4), "volume")):
        with pytest.raises(ConversionError, match=says):
            convert(network_of(layers.Reshape((-1, 4), name="odd"), shape=shape), global_pooling=pooled)


class Squared(layers.Layer):
    def __init__(self, power=3, **options):
        super().__init__(**options)
        self.power = power

    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:])

    def call(self, x):
        return self.scale * ops.mean(x, axis=(1, 2)) ** self.power

    def compute_output_shape(self, shape):
        return shape[0], shape[-1]


ADVISED = {
    "a random layer": layers.RandomFlip(),
    "random crops": layers.RandomCrop(4, 5),
    "a Lambda": layers.Lambda(lambda x: 2 * x),
    "a layer of one's own": Squared(2),
    "a layer of Keras": layers.AdaptiveAveragePooling2D(2),
    "rows in order": layers.ConvLSTM1D(3, 3),
    "tokens in order": keras.Sequential([layers.Reshape((10, 32)), layers.GRU(3)]),
    "a wrapper": layers.TimeDistributed(layers.Dense(3)),
    "a normalized kernel": layers.SpectralNormalization(layers.Conv2D(3, 3)),
}


@pytest.mark.parametrize("layer", ADVISED.values(), ids=ADVISED)
def test_the_advice_of_a_refusal_converts_the_network(layer):
    flat = network_of(layer)
    with pytest.raises(ConversionError) as refused:
        convert(flat)
    said = str(refused.value)
    if "clone_model" in said:
        code = "dict(model2d=" + said[said.index("keras.models.clone_model(") : -1].replace("network", "flat") + ")"
    else:
        code = f"dict({said[said.index('counterparts=') : said.index('name=layer.name)}') + len('name=layer.name)}')]})"
    options = eval(code, {"keras": keras, "flat": flat, "Squared": Squared})
    voxels = volume(2, 3, 8, 10, 4)
    assert_allclose(run(convert(**{"model2d": flat, **options}), voxels), by_slice(flat, voxels), rtol=1e-4, atol=1e-5)


def test_a_nested_layer_is_named_with_the_models_around_it():
    image = keras.Input((8, 10, 4))
    inner = keras.Model(image, layers.Lambda(lambda x: x, name="odd")(image), name="inner")
    with pytest.raises(ConversionError, match=r"inner/odd \(Lambda\)"):
        convert(network_of(inner))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(4, 3, data_format="channels_first", name="odd"),
        layers.MaxPooling2D(data_format="channels_first", name="odd"),
    ],
)
def test_channels_first_is_refused(layer):
    with pytest.raises(ConversionError, match=r"odd .*'channels_first'; build the network with channels last"):
        convert(network_of(layer))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.convolution = layers.Conv2D(3, 3)

    def call(self, x):
        return self.convolution(x)


class Overridden(keras.Model):
    """It has a graph, and does something else."""

    def call(self, x, training=None):
        return -super().call(x)


def functional(kind):
    image = keras.Input((8, 8, 3))
    return kind(image, layers.Conv2D(3, 3)(image))


@pytest.mark.parametrize("network", [Subclassed(), functional(Overridden)], ids=["subclassed", "overridden"])
def test_models_whose_call_is_code_are_refused(network):
    with pytest.raises(ConversionError, match=r"is not a functional model.*keras\.Input"):
        convert(network)


def test_a_functional_model_of_a_class_of_its_own_is_a_graph():
    network = functional(type("Named", (keras.Model,), {}))
    assert as_graph(network) is network


def test_other_things_than_models_of_images_are_refused():
    for other, kind in (
        (layers.Conv2D(3, 3), "Conv2D"),
        ("mine.keras", r"str\. keras\.saving\.load_model opens a \.keras"),
    ):
        with pytest.raises(ConversionError, match=rf"A keras\.Model is needed; got {kind}"):
            convert(other)
    with pytest.raises(ConversionError, match="without a known input"):
        convert(keras.Sequential([layers.Conv2D(3, 3)]))
    with pytest.raises(ConversionError, match=r"\(None, 5\).*an image \(batch, rows, cols, channels\) is needed"):
        convert(network_of(layers.Dense(3), shape=(5,)))


@pytest.mark.parametrize("what", ["depth", "in_channels", "kernel_depth"])
@pytest.mark.parametrize("number", [0, -1, 2.5, "16", True])
def test_other_numbers_than_whole_ones_from_one_are_refused(what, number):
    with pytest.raises(ConversionError, match=f"^{what}={number!r}: a whole number of at least 1 is needed"):
        convert(network_of(layers.Conv2D(4, 3)), "zero", **{what: number})


VOLUMES = keras.Input((4, 8, 10, 4))


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"axis": 1.0}, r"^axis=1\.0: depth is 0 .*1 .*2"),
        ({"global_pooling": "all"}, "^global_pooling='all' .*'slice', 'volume'"),
        ({"name": "a/b"}, r"^name='a/b': a string without / is needed"),
        ({"depth_pooling": 2}, r"^depth_pooling=2: 'keep', 'match' or a list of factors"),
        ({"depth_pooling": [None]}, "^factor in depth_pooling=None: a whole number"),
        ({"depth_pooling": [2, 0]}, "^factor in depth_pooling=0: a whole number"),
        ({"depth_pooling": [2.0]}, r"^factor in depth_pooling=2\.0: a whole number"),
        ({"counterparts": [layers.Conv2D]}, r"^counterparts=.*a dictionary of functions"),
        ({"counterparts": {layers.Conv2D: 3}}, r"^counterparts=.*a dictionary of functions"),
        ({"input_tensor": np.zeros((1, 4, 8, 10, 4))}, r"^input_tensor=.*\(batch, depth, rows, cols, channels\)"),
        ({"input_tensor": keras.Input((8, 10, 4))}, r"^input_tensor=.*\(batch, depth, rows, cols, channels\)"),
        (
            {"input_tensor": keras.Input((4, 16, 10, 4))},
            r"^input_tensor has the shape \(None, 4, 16, 10, 4\), but .* \(None, 8, 10, 4\)",
        ),
        ({"input_tensor": VOLUMES, "depth": 4}, "omit depth and in_channels"),
        ({"input_tensor": VOLUMES, "in_channels": 4}, "omit depth and in_channels"),
    ],
)
def test_other_arguments_are_checked_before_a_layer_is_converted(choice, says):
    with pytest.raises(ConversionError, match=says):
        convert(network_of(layers.MaxPooling2D(), layers.Conv2D(4, 3)), **choice)


def test_slices_and_the_whole_volume_are_not_joined_by_chance():
    image, age = keras.Input((8, 8, 3)), keras.Input((3,))
    pooled = layers.GlobalAveragePooling2D()(image)
    for joined in (layers.Concatenate(name="join")([pooled, age]), ops.add(pooled, age)):
        with pytest.raises(
            ConversionError, match=r"each slice with values of the whole volume.*global_pooling='volume'"
        ):
            convert(keras.Model([image, age], joined))


def test_a_layer_of_one_s_own_is_converted_with_a_counterpart_given():
    class Scaled(layers.Layer):
        def build(self, shape):
            self.factors = self.add_weight(shape=(shape[-1],), name="factors")

        def call(self, x):
            return x * self.factors

    flat, voxels = network_of(Scaled(name="scaled")), volume(1, 3, 8, 10, 4)
    volumes = convert(flat, counterparts={Scaled: lambda layer: Scaled(name=layer.name)})
    assert_allclose(run(volumes, voxels), by_slice(flat, voxels), rtol=1e-6)


def test_a_counterpart_may_be_a_layer_that_takes_no_mask():
    flat, voxels = network_of(layers.Lambda(lambda x: 2 * x - 1)), volume(1, 3, 8, 10, 4)
    volumes = convert(flat, counterparts={layers.Lambda: lambda layer: layers.Rescaling(2, -1)})
    assert_allclose(run(volumes, voxels), by_slice(flat, voxels), rtol=1e-6)


def test_depths_that_do_not_fit_together_are_named():
    image = keras.Input((8, 8, 3))
    joined = layers.Add(name="join")([image, layers.UpSampling2D()(layers.MaxPooling2D()(image))])
    flat = keras.Model(image, joined)
    with pytest.raises(ConversionError, match=r"join \(Add\).*joins 7 and 8 slices; choose a depth"):
        convert(flat, depth=7, depth_pooling="match")
    assert convert(flat, depth=8, depth_pooling="match").output_shape[1] == 8


def test_a_python_function_is_converted_with_a_counterpart_given():
    def doubled(layer=None):
        return layers.Lambda(lambda x: 2 * x, name="odd")

    flat, voxels = network_of(doubled()), volume(1, 3, 8, 10, 4)
    assert_allclose(run(convert(flat, counterparts={layers.Lambda: doubled}), voxels), 2 * voxels)


def test_an_operation_is_converted_with_a_counterpart_given():
    image = keras.Input((8, 10, 3))
    doubled = ops.image.resize(image, (16, 20), interpolation="nearest")
    flat, voxels = keras.Model(image, doubled), volume(1, 3, 8, 10, 3)
    volumes = convert(flat, counterparts={type(operation_of(doubled)): lambda _: layers.UpSampling3D((1, 2, 2))})
    assert_allclose(run(volumes, voxels), by_slice(flat, voxels), rtol=1e-6)


def test_counterparts_whose_weights_do_not_fit_are_refused():
    flat = network_of(Doubled(name="odd"), layers.Conv2D(3, 3, name="conv"))
    with pytest.raises(ConversionError, match=r"odd \(Doubled\).*do not fit the weights of norm"):
        convert(flat, counterparts={Doubled: lambda layer: layers.BatchNormalization(name="norm")})
    with pytest.raises(ConversionError, match=r"odd \(Doubled\).*counterparts returns NoneType, not a layer"):
        convert(flat, counterparts={Doubled: lambda layer: None})
    with pytest.raises(ConversionError, match=r"odd \(Doubled\).*where .* is expected"):
        convert(flat, counterparts={Doubled: lambda layer: layers.Cropping3D(1)})


def test_channels_first_as_keras_setting_is_refused_before_the_layers(channels_first):
    flat = network_of(layers.Conv2D(4, 3, data_format="channels_last"))
    with pytest.raises(ConversionError, match=r"image_data_format='channels_first'.* channels last"):
        convert(flat)


def test_an_encoder_of_one_s_own_is_refused_with_channels_first_as_well(request):
    image = keras.Input((2, 8, 8, 3))
    encoder = keras.Model(image, layers.MaxPooling3D(2)(layers.Conv3D(4, (1, 3, 3), padding="same")(image)))
    request.getfixturevalue("channels_first")
    with pytest.raises(ConversionError, match="'channels_first'"):
        PlanarResUNet(encoder=encoder)


@pytest.mark.parametrize(("size", "choice"), [(8, {"global_pooling": "volume"}), (None, {})])
def test_a_slice_is_flattened_by_itself_and_if_its_size_is_known(size, choice):
    image = keras.Input((size, size, 3))
    flat = keras.Model(image, layers.Flatten(name="flatten")(image))
    with pytest.raises(ConversionError, match=r"flatten \(Flatten\).* turns (8×8|\?×\?)×3 .*include_top=False"):
        convert(flat, **choice)
