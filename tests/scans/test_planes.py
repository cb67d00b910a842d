"""The box around the head: where it begins and ends, and that a network sees in it what it sees in whole planes."""

import numpy as np
import pytest
from inference_networks import small_unet, voxels

from planar3d.errors import RecipeError
from planar3d.inference.predictor import predict_volume
from planar3d.networks.registry import describe_network
from planar3d.recipes import MODERN, PAPER
from planar3d.scans.tiles import head_box


def _scan(*heads: tuple[slice, slice], size: int = 128) -> np.ndarray:
    found = np.zeros((20, size, size, 1), np.uint8)
    for rows, cols in heads:
        found[2:18, rows, cols] = 100
    return found


def test_it_begins_and_ends_at_multiples_of_16_with_air_around_the_head() -> None:
    assert head_box(_scan((slice(36, 92), slice(35, 93)))) == (slice(32, 96), slice(16, 112))


def test_it_ends_with_the_plane() -> None:
    assert head_box(_scan((slice(0, 128), slice(30, 127)))) == (slice(0, 128), slice(16, 128))


def test_it_leaves_out_what_is_smaller_or_thin_or_in_one_slice() -> None:
    head = (slice(52, 60), slice(52, 60))
    scan = _scan(head, (slice(100, 107), slice(100, 107)), (slice(0, 128), slice(61, 63)))
    scan[5, 80:120, 10:50] = 100
    scan[:, 10:40, 100:120] = 20
    assert head_box(scan) == head_box(_scan(head)[:4]) == (slice(48, 64), slice(48, 64))


@pytest.mark.parametrize("empty", [_scan(), _scan((slice(3, 6), slice(3, 6)))])
def test_planes_are_whole_where_no_head_is_found(empty: np.ndarray) -> None:
    assert empty[:, *head_box(empty)].shape == empty.shape


def test_it_needs_grey_levels_that_tell_the_head_from_air() -> None:
    assert PAPER.changed(planes="head", grey_levels="median").planes == "head"
    with pytest.raises(RecipeError, match=r"planes='head' needs grey levels .*sagittal-cube.*planes='whole'"):
        PAPER.changed(planes="head")


def test_a_network_that_boxes_do_not_fit_needs_whole_planes() -> None:
    recipe = MODERN.changed(encoder="resnet18", decoder_filters=(4, 4, 4, 4, 4))
    with pytest.raises(RecipeError, match=r"planes='head' .* multiples of 16 .* 32 and 32; set planes='whole'"):
        describe_network(recipe)
    assert describe_network(recipe.changed(planes="whole"))["network"] == "planar-resunet"


def test_both_methods_take_planes_of_any_size_and_agree_bit_for_bit() -> None:
    network, scan = small_unet(16), voxels(20, 32)[:, 16:]
    recipe = MODERN.changed(size=16, channels=1, encoder_weights="none")
    shared, windowed = (predict_volume(network, scan, recipe, method) for method in ("shared", "windowed"))
    assert shared.shape == scan.shape[:3] and np.std(shared) > 0.001
    np.testing.assert_array_equal(shared, windowed)
