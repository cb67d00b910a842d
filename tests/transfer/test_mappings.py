"""A mapped kernel does in 3D what the 2D kernel does on each slice, in the way its mapping promises."""

import keras
import numpy as np
import pytest

from planar3d.transfer.mappings import MAPPINGS, map_kernel

RNG = np.random.default_rng(0)
K2 = RNG.normal(size=(3, 3, 2, 4)).astype(np.float32)
STACK = RNG.normal(size=(6, 7, 7, 2)).astype(np.float32)
ALPHA = (0.2, 0.5, 0.3)


def by_slice(stack):
    return np.asarray(keras.ops.conv(stack, K2, padding="same"))


def in_3d(stack, kernel):
    return np.asarray(keras.ops.conv(stack[np.newaxis], kernel, padding="same"))[0]


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_planar_is_the_kernel_itself_as_one_plane():
    k3 = map_kernel(K2)
    assert k3.shape == (1, 3, 3, 2, 4)
    np.testing.assert_array_equal(k3[0], K2)
    close(in_3d(STACK, k3), by_slice(STACK))


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_zero_padding_at_the_center_leaves_slices_in_place(depth):
    k3 = map_kernel(K2, "zero", depth)
    close(in_3d(STACK, k3), by_slice(STACK))


@pytest.mark.parametrize(("tap", "shift"), [(0, -1), (1, 0), (2, 1)])
def test_zero_padding_at_another_tap_moves_slices(tap, shift):
    found = in_3d(STACK, map_kernel(K2, "zero", 3, tap=tap))
    close(found[2:4], by_slice(STACK)[2 + shift : 4 + shift])


def test_average_and_scale_equal_the_2d_kernel_where_slices_do_not_differ():
    constant = np.repeat(STACK[:1], 6, axis=0)
    for k3 in (map_kernel(K2, "average", 3), map_kernel(K2, "scale", 3, alpha=ALPHA)):
        close(in_3d(constant, k3)[1:-1], by_slice(constant)[1:-1])
        close(k3.sum(axis=0), K2)


def test_average_repeat_and_scale_weigh_the_taps():
    np.testing.assert_allclose(map_kernel(K2, "average", 4), np.stack([K2 / 4] * 4), rtol=1e-6)
    np.testing.assert_array_equal(map_kernel(K2, "repeat", 2), np.stack([K2, K2]))
    np.testing.assert_allclose(map_kernel(K2, "scale", 3, alpha=ALPHA), np.stack([a * K2 for a in ALPHA]), rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_new_axis_goes_where_it_is_asked(axis):
    k3 = map_kernel(K2, "average", np.int8(3), axis)
    close(k3.sum(axis=axis), K2)
    assert k3.shape[axis] == 3
    np.testing.assert_array_equal(np.moveaxis(k3, axis, 0), map_kernel(K2, "average", 3))


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_dtype_stays(mapping, dtype):
    options = {"alpha": (1.0,)} if mapping == "scale" else {}
    k3 = map_kernel(K2.astype(dtype), mapping, 1, **options)
    np.testing.assert_array_equal(k3, K2.astype(dtype)[np.newaxis])
    assert k3.dtype == dtype


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"mapping": "cubic"}, "'planar', 'zero', 'average', 'scale', 'repeat'"),
        ({"depth": 3}, "'zero', 'average', 'scale', 'repeat'"),
        ({"mapping": "average", "depth": 0}, "at least 1 is needed"),
        ({"mapping": "average", "depth": 1.5}, "whole number"),
        ({"axis": 3}, "0 .*1 .*2"),
        ({"mapping": "zero", "depth": 3, "tap": 3}, "from 0 to 2"),
        ({"mapping": "zero", "depth": 3, "tap": -1}, "from 0 to 2"),
        ({"mapping": "zero", "depth": 3, "tap": True}, "from 0 to 2"),
        ({"mapping": "zero", "depth": 3, "tap": "first"}, "'center'"),
        ({"mapping": "average", "depth": 3, "tap": 1}, "mapping='zero'"),
        ({"mapping": "scale", "depth": 2}, "2 positive factors"),
        ({"mapping": "scale", "depth": 3, "alpha": (0.5, 0.5)}, "3 positive factors"),
        ({"mapping": "scale", "depth": 2, "alpha": (1.0, 0.0)}, "positive"),
        ({"mapping": "scale", "depth": 2, "alpha": (0.5, 0.4999)}, "add up to 1"),
        ({"mapping": "repeat", "depth": 2, "alpha": (0.5, 0.5)}, "mapping='scale'"),
    ],
)
def test_wrong_arguments_say_what_would_be_right(arguments, says):
    with pytest.raises(ValueError, match=says):
        map_kernel(K2, **arguments)


@pytest.mark.parametrize("k2", [K2[0], K2[np.newaxis], np.ones((3, 3, 1, 1), int)])
def test_only_2d_kernels_in_floating_point_are_mapped(k2):
    with pytest.raises(ValueError, match="kh, kw, cin, cout"):
        map_kernel(k2)
