"""What the table says of a kind of layer is so: of a stretch of slices it gives what it gives of the whole."""

import copy
import pickle

import keras
import numpy as np
import pytest
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

from planar3d.errors import Planar3DError
from planar3d.graph.described import layer_of
from planar3d.graph.description import Layer
from planar3d.graph.keras_graph import CustomScaleLayer, LayerScale, StochasticDepth, layer_type
from planar3d.graph.layers import KINDS, kind_of, reach_of as reach_of_described, shape_of
from planar3d.graph.reach import Reach, along_axes, within_slices

LENGTH = 8
# Arguments of the layers that cannot be made without.
ARGUMENTS = {
    layers.Activation: {"activation": "tanh"},
    layers.AlphaDropout: {"rate": 0.5},
    layers.Dense: {"units": 3},
    layers.Dropout: {"rate": 0.5},
    layers.GaussianDropout: {"rate": 0.5},
    layers.GaussianNoise: {"stddev": 0.5},
    layers.Normalization: {"mean": 0.5, "variance": 2.0},
    layers.Rescaling: {"scale": 0.5, "offset": 0.1},
    layers.SpatialDropout3D: {"rate": 0.5},
    CustomScaleLayer: {"scale": 0.5},
    LayerScale: {"init_values": 0.5, "projection_dim": 4},
    StochasticDepth: {"drop_path_rate": 0.5},
}
MERGES = (layers.Concatenate, CustomScaleLayer, *layers.Add.__mro__[1].__subclasses__())
SLIDING = [
    layers.AveragePooling3D(2),
    layers.MaxPooling3D((3, 2, 2), strides=(1, 2, 2)),
    layers.Conv3D(3, (3, 1, 1)),
    layers.Conv3D(3, (2, 3, 3), strides=(2, 1, 1)),
    layers.Conv3D(3, 2, dilation_rate=(2, 1, 1)),
    layers.Conv3DTranspose(3, 2, strides=2),
    layers.UpSampling3D((3, 1, 1)),
]
ALIKE = [layer_type(kind) for kind, known in KINDS.items() if known.reach in (within_slices, along_axes)]
IN_SLICES = [kind for kind in ALIKE if kind]  # not operations


def reach_of(layer, length):
    return reach_of_described(layer_of(layer), length)


def _volume(seed=0):
    return np.random.default_rng(seed).normal(size=(1, LENGTH, 6, 6, 4)).astype(np.float32)


def _of_a_stretch_and_of_the_whole(layer, volumes):
    """Slices 2 to 5 of what a layer gives: of the slices that they need, and of all."""
    given = volumes if isinstance(layer, MERGES) else volumes[0]
    whole = np.asarray(layer(given))
    first, end = reach_of(layer, LENGTH).needs(2, min(5, whole.shape[1]), LENGTH)
    stretch = [volume[:, first:end] for volume in volumes]
    found = np.asarray(layer(stretch if isinstance(layer, MERGES) else stretch[0]))
    before = first * reach_of(layer, LENGTH).up
    start = 2 - before if reach_of(layer, LENGTH).up > 1 else 0
    return found[:, start : start + min(5, whole.shape[1]) - 2], whole[:, 2:5]


@pytest.mark.parametrize("kind", IN_SLICES, ids=lambda kind: kind.__name__)
def test_a_layer_within_slices_gives_of_some_slices_what_it_gives_of_them_among_others(kind):
    layer = kind(**ARGUMENTS.get(kind, {}))
    assert not reach_of(layer, LENGTH).whole
    # TensorFlow's inverse square roots are rounded otherwise at the end of an array.
    tolerance = 1e-6 if kind is layers.LayerNormalization else 0
    assert_allclose(*_of_a_stretch_and_of_the_whole(layer, [_volume(), _volume(1)]), rtol=0, atol=tolerance)


@pytest.mark.parametrize("layer", SLIDING, ids=lambda layer: layer.name)
def test_a_layer_that_slides_along_depth_needs_the_slices_that_its_reach_says(layer):
    assert not reach_of(layer, LENGTH).whole and reach_of(layer, LENGTH).needs(2, 4, LENGTH) != (0, LENGTH)
    assert_array_equal(*_of_a_stretch_and_of_the_whole(layer, [_volume()]))


def test_slopes_shared_by_all_slices_are_those_of_a_slice():
    for shared in ([1], [1, 2, 3]):
        layer = layers.PReLU(alpha_initializer="random_normal", shared_axes=shared)
        layer.build((None, LENGTH, 6, 6, 4))
        assert_array_equal(*_of_a_stretch_and_of_the_whole(layer, [_volume()]))
        assert not reach_of(layer, LENGTH).whole
    by_slice = layers.PReLU(shared_axes=[2, 3])
    by_slice.build((None, LENGTH, 6, 6, 4))
    assert reach_of(by_slice, LENGTH).whole


@pytest.mark.parametrize(
    "layer",
    [
        *(layers.Softmax(axis=axis) for axis in (1, (1, -1), (2, 3, 4), None)),
        layers.Rescaling(1.0, np.zeros((LENGTH, 1, 1, 4))),
        layers.Conv3D(1, 3, strides=2, padding="same"),
        layers.MaxPooling3D(3, strides=1, padding="same"),
        layers.MaxPooling3D(3, strides=2, padding="same"),
        layers.Conv3DTranspose(1, 3, strides=2),
        layers.Conv3DTranspose(1, 2, strides=2, output_padding=1),
    ],
    ids=lambda layer: layer.name,
)
def test_a_layer_whose_slices_depend_on_their_place_in_a_window_sees_whole_windows(layer):
    assert reach_of(layer, LENGTH) == Reach(whole=True)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Softmax(axis=4),
        layers.Concatenate(axis=4),
        layers.Rescaling([1.0, 2.0, 3.0, 4.0], np.zeros((1, 6, 6, 4))),
    ],
    ids=lambda layer: layer.name,
)
def test_layers_along_channels_or_alike_on_all_slices_see_one_slice(layer):
    assert reach_of(layer, LENGTH) == Reach()


def test_a_subclass_is_of_its_kind_unless_it_computes_in_its_own_way():
    class Named(layers.Conv3D):
        pass

    class Doubled(layers.Conv3D):
        def call(self, inputs):
            return 2 * super().call(inputs)

    class Tripled(layers.Conv3D):
        def __call__(self, inputs):
            return 3 * super().__call__(inputs)

    class Halved(layers.Conv3D):
        def convolution_op(self, inputs, kernel):
            return super().convolution_op(inputs, kernel / 2)

    class Standardized(layers.Conv3D):
        @property
        def kernel(self):
            return keras.ops.tanh(super().kernel)

    class Difference(layers.Add):
        def _merge_function(self, inputs):
            return inputs[0] - inputs[1]

    assert layer_of(Named(1, 1)).kind == "Conv3D"
    for own in (Doubled(1, 1), Tripled(1, 1), Halved(1, 1), Standardized(1, 1), Difference()):
        kind = kind_of(layer_of(own))
        assert reach_of(own, LENGTH).whole and kind.write is kind.macs is None


def test_channels_first_are_not_taken_for_slices():
    assert reach_of(layers.Conv3D(1, 1, data_format="channels_first"), LENGTH).whole
    assert keras.config.image_data_format() == "channels_last"


GROUPED = {"kernel_size": (1, 1, 1), "strides": (1, 1, 1), "dilation_rate": (1, 1, 1), "padding": "same"}


@pytest.mark.parametrize(
    ("kind", "settings", "taken"),
    [
        ("Conv3D", GROUPED | {"groups": 2, "filters": 4}, [(None, 4, 8, 8, 3)]),
        ("Conv3D", GROUPED | {"groups": 2, "filters": 3}, [(None, 4, 8, 8, 4)]),
        ("Conv3D", GROUPED | {"groups": 2, "filters": 4}, [(None, 4, 8, 8, None)]),
        ("GroupNormalization", {"groups": 2, "scale": True, "center": True}, [(None, 4, 8, 8, 3)]),
        ("GroupNormalization", {"groups": 2, "scale": True, "center": True}, [(None, 4, 8, 8, None)]),
        ("Reshape", {"target_shape": (4, -1, 8, 3)}, [(None, 4, 8, 8, 2)]),
        ("Add", {}, [(None, 4, 8, 8, 2), (None, 4, 8, 8, 3)]),
        ("Add", {}, [(None, 4, 8, 8, 2), (None, 2)]),
        ("Concatenate", {"axis": -1}, [(None, 4, 8, 8, 2), (None, 4, 6, 8, 2)]),
    ],
)
def test_inputs_that_a_layer_cannot_take_are_refused(kind, settings, taken):
    layer = Layer(kind, "odd", settings=settings)
    with pytest.raises(Planar3DError, match=rf"Layer odd \({kind}\) takes .*, which are incompatible"):
        kind_of(layer).arrays(layer, *taken), shape_of(layer, *taken)


@pytest.mark.parametrize("array", [np.array, keras.ops.convert_to_tensor, keras.Variable])
def test_settings_that_are_arrays_are_described_by_their_numbers(array):
    assert layer_of(layers.Rescaling(array([1.0, 2.0]), np.float32(3))).settings == {"scale": (1, 2), "offset": 3}


def test_a_layer_can_be_copied_and_pickled():
    layer = Layer("Conv3D", "conv", (0,), (None, 4, 8, 8, 2), {"filters": 2}, {"bias": np.zeros(2)})
    for same in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert (same.name, same.filters, same.bias.tolist()) == ("conv", 2, [0, 0])
