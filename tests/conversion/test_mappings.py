"""Deep kernels do on a volume what their mapping promises; mappings can differ from layer to layer."""

import numpy as np
import pytest
from flat_networks import by_slice, network_of, run, volume
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

from planar3d.conversion.choices import KernelMapping
from planar3d.conversion.convert import convert
from planar3d.errors import ConversionError
from planar3d.transfer.mappings import map_kernel

KERNELS = {
    "same": lambda: layers.Conv2D(5, 3, padding="same"),
    "valid": lambda: layers.Conv2D(5, 3, strides=2),
    "even": lambda: layers.Conv2D(5, 4, padding="same"),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
    "separable": lambda: layers.SeparableConv2D(5, 3, padding="same"),
    "transposed": lambda: layers.Conv2DTranspose(5, 3, strides=2, padding="same"),
    "transposed, valid": lambda: layers.Conv2DTranspose(5, 3, strides=2),
    "dilated": lambda: layers.Conv2D(5, 3, dilation_rate=2),
}
ALPHA = (0.2, 0.5, 0.3)


@pytest.fixture(params=KERNELS.values(), ids=KERNELS)
def flat(request):
    return network_of(request.param())


def inner(voxels):
    return voxels[:, 2:-2]


def test_zero_with_its_tap_at_the_centre_equals_planar(flat):
    voxels = volume(1, 6, 8, 10, 4)
    for taps in (None, 3, 5):
        found = run(convert(flat, "zero", kernel_depth=taps), voxels)
        assert_allclose(found, by_slice(flat, voxels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("taps", [2, 3, 4, 5])
@pytest.mark.parametrize(("depth", "slices"), [(None, 8), (4, 4), (5, 5)])  # a stride need not divide a known depth
def test_zero_keeps_slices_in_place_where_depth_is_divided_too(taps, depth, slices):
    flat = network_of(layers.Conv2D(5, 3, strides=2, padding="same"))
    voxels = volume(1, slices, 8, 10, 4)
    found = run(convert(flat, "zero", depth=depth, kernel_depth=taps, depth_pooling="match"), voxels)
    assert_allclose(found, by_slice(flat, voxels[:, ::2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mapping", [{"mapping": "average"}, {"mapping": "scale", "alpha": ALPHA}])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_average_and_scale_equal_the_2d_layer_where_slices_do_not_differ(flat, mapping, axis):
    voxels = np.repeat(volume(1, 1, 8, 10, 4), 7, axis=1)
    found = run(convert(flat, axis=axis, **mapping), np.moveaxis(voxels, 1, 1 + axis))
    assert_allclose(inner(np.moveaxis(found, 1 + axis, 1)), inner(by_slice(flat, voxels)), rtol=1e-4, atol=1e-5)


def test_repeat_adds_the_slices_up():
    flat = network_of(layers.Conv2D(5, 3, padding="same", use_bias=False))
    voxels = volume(1, 6, 8, 10, 4)
    expected = by_slice(flat, voxels)
    found = run(convert(flat, "repeat"), voxels)
    assert_allclose(found[:, 1:-1], expected[:, :-2] + expected[:, 1:-1] + expected[:, 2:], rtol=1e-4, atol=1e-4)


def test_zero_at_another_tap_looks_at_the_neighbouring_slice():
    flat = network_of(layers.Conv2D(5, 3))
    voxels = volume(1, 6, 8, 10, 4)
    found = run(convert(flat, "zero", kernel_depth=3, tap=0), voxels)
    assert_allclose(found[:, 1:], by_slice(flat, voxels)[:, :-1], rtol=1e-4, atol=1e-5)


def test_kernels_are_those_of_map_kernel_and_1x1_stay_one_deep():
    flat = network_of(layers.Conv2D(5, 3, name="wide"), layers.Conv2D(5, 1, name="narrow"))
    alpha = np.array([0.1, 0.2, 0.4, 0.2, 0.1])
    volumes = convert(flat, "scale", alpha=alpha)
    wide, narrow = (np.asarray(flat.get_layer(name).kernel) for name in ("wide", "narrow"))
    assert_array_equal(volumes.get_layer("wide").kernel, map_kernel(wide, "scale", 5, alpha=alpha))
    assert_array_equal(volumes.get_layer("narrow").kernel[0], narrow)


@pytest.mark.parametrize(
    "mapping",
    [
        {"first": "average", "se*": KernelMapping("zero", depth=5)},
        lambda layer: {"first": "average", "second": KernelMapping("zero", depth=5)}.get(layer.name, "planar"),
    ],
    ids=["patterns", "function"],
)
def test_mappings_differ_by_layer(mapping):
    flat = network_of(*(layers.Conv2D(5, 3, padding="same", name=name) for name in ("first", "second", "third")))
    volumes = convert(flat, mapping)
    assert [volumes.get_layer(name).kernel_size[0] for name in ("first", "second", "third")] == [3, 5, 1]
    assert [row.mapping for row in volumes.transfer_report.rows] == ["average 3", "zero 5", "planar"]


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"mapping": "cubic"}, "'planar', 'zero'.*'acs'"),
        ({"mapping": 3}, "^mapping: a name or a KernelMapping is needed; got 3"),
        ({"mapping": {"*": 3}}, "conv.*a name or a KernelMapping"),
        ({"mapping": lambda layer: KernelMapping("planar", depth=3)}, "conv.*'planar' has depth 1, not 3"),
        (
            {"mapping": "zero", "kernel_depth": 3, "tap": 4},
            r"^conv \(Conv2D\) has no counterpart in 3D: tap=4 is not one of the 3 taps",
        ),
        (
            {"mapping": "zero", "kernel_depth": 3, "tap": 1.5},
            r"^conv \(Conv2D\) has no counterpart in 3D: tap=1\.5 is not one",
        ),
        ({"mapping": "scale"}, r"^conv \(Conv2D\) has no counterpart in 3D: .*3 positive factors"),
        ({"mapping": "scale", "alpha": (0.5, 0.6)}, r"^conv \(Conv2D\) has no counterpart in 3D: .*add up to 1"),
        ({"mapping": "scale", "alpha": 0.5}, "^alpha=0.5: a list of factors"),
        ({"mapping": "scale", "alpha": "abc"}, "^alpha='abc': a list of factors"),
        ({"kernel_depth": 3}, "^kernel_depth=3 has no effect with mapping='planar': it is for 'zero', 'average'"),
        ({"mapping": "acs", "kernel_depth": 5}, "^kernel_depth=5 has no effect with mapping='acs'"),
        (
            {"mapping": KernelMapping("acs", 5)},
            r"^conv \(Conv2D\) has no counterpart in 3D: mapping='acs': .* as rows \(3\), not 5",
        ),
        ({"mapping": "average", "alpha": ALPHA}, "^alpha=.* has no effect with mapping='average': it is for 'scale'"),
        ({"mapping": "average", "tap": 1}, "^tap=1 has no effect with mapping='average': it is for 'zero'"),
        ({"mapping": {"conv": "planar"}, "kernel_depth": 3}, "^kernel_depth=3 has no effect with these mappings"),
        ({"mapping": KernelMapping("zero", 3), "kernel_depth": 5}, "kernel_depth=5.*a KernelMapping has its own depth"),
        ({"axis": 3}, "before rows"),
    ],
)
def test_choices_that_do_not_fit_are_refused(choice, says):
    with pytest.raises(ConversionError, match=says):
        convert(network_of(layers.Conv2D(5, 3, name="conv")), **choice)


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"name": "zero", "depth": 1.5}, "depth=1.5: a whole number"),
        ({"name": "average", "tap": 1}, "tap=1 is for the mapping 'zero', not for 'average'"),
        ({"name": "zero", "alpha": ALPHA}, "alpha=.* is for the mapping 'scale', not for 'zero'"),
    ],
)
def test_a_mapping_has_no_argument_without_effect(choice, says):
    with pytest.raises(ConversionError, match=says):
        KernelMapping(**choice)
