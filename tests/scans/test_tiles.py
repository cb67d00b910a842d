"""Tiles cover a volume without a gap, and composing them gives it again."""

import itertools
import json

import numpy as np
import pytest
from scipy import ndimage

from planar3d.errors import RecipeError
from planar3d.scans.tiles import TILES, DepthWindows, Patches, SteppedPatches, tile_shape
from planar3d.scans.windows import compose_tiles, cut_tile, cut_windows

OVERLAPS = ("crop", "average", "gaussian")


def _cut(volume, tiles, air=0.0):
    """All tiles of a volume, in the order in which they are composed."""
    shape = tile_shape(tiles, volume.shape)
    places = itertools.product(*tiles.starts(volume.shape))
    return [cut_tile(volume, place, shape, tiles.beyond, air) for place in places]


def _composed(parts, volume, tiles):
    return compose_tiles(iter(parts), tiles.starts(volume.shape), volume.shape[:3], tiles.overlap)


def _equation_1(windows, stride):
    """The middle of each window, and the outer ends of the first and last (Kolarik 2020, eq. 1)."""
    margin = (windows.shape[1] - stride) // 2
    middle = windows[:, margin : margin + stride].reshape(-1, *windows.shape[2:])
    return np.concatenate([windows[0, :margin], middle, windows[-1, margin + stride :]])


def _noise(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("depth", "stride"), [(16, 8), (16, 16), (16, 4), (5, 3), (1, 1)])
def test_depth_windows_are_the_paper_s_windows_and_equation_1_bit_for_bit(depth, stride):
    tiles = DepthWindows(depth, stride)
    for slices in range(depth, 4 * depth + 7):
        volume = _noise(slices, 2, 3, 2)
        expected = cut_windows(volume, depth, stride)
        np.testing.assert_array_equal(_cut(volume, tiles), expected)
        predicted = _noise(*expected.shape)  # windows that disagree where they overlap
        np.testing.assert_array_equal(_composed(predicted, volume, tiles), _equation_1(predicted, stride)[:slices])


@pytest.mark.parametrize(("depth", "stride"), [(16, 8), (16, 4), (5, 3)])
def test_patches_cropped_along_depth_are_equation_1_bit_for_bit(depth, stride):
    tiles = Patches((depth, 0, 0), (stride, 0, 0), "crop")
    volume = _noise(depth + 5 * stride, 2, 3, 1)
    predicted = _noise(6, depth, 2, 3, 1)
    np.testing.assert_array_equal(_cut(volume, tiles), cut_windows(volume, depth, stride))
    np.testing.assert_array_equal(_composed(predicted, volume, tiles), _equation_1(predicted, stride))


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("size", [(9, 8, 8), (8, 9, 13), (11, 17, 10), (4, 6, 5), (3, 9, 4), (1, 2, 3), (2, 20, 7)])
def test_a_volume_of_any_size_composes_to_itself(overlap, size):
    volume = _noise(*size, 2)
    tiles = Patches((4, 6, 5), (2, 4, 3), overlap)
    composed = _composed(_cut(volume, tiles), volume, tiles)
    assert composed.shape == volume.shape and composed.dtype == np.float32
    np.testing.assert_array_equal(composed, volume)


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_a_volume_far_smaller_than_it_is_padded_composes_to_itself(overlap):
    volume = _noise(2, 3, 1, 1)
    tiles = SteppedPatches((6, 6, 6), (2, 2, 2), overlap, smallest=(12, 16, 12))
    assert tiles.starts(volume.shape)[0] == (-5, -3, -1, 1)  # the first two meet before the volume
    np.testing.assert_array_equal(_composed(_cut(volume, tiles), volume, tiles), volume)


def test_the_last_patch_ends_with_the_volume_and_no_place_comes_twice():
    for size in range(1, 60):
        for length, step in ((4, 2), (6, 6), (5, 1), (1, 1)):
            (starts, _, _) = Patches((length, 0, 0), (step, 0, 0), "average").starts((size, 3, 3))
            assert len(set(starts)) == len(starts)
            assert set().union(*(range(start, start + length) for start in starts)) >= set(range(size))
            assert size <= length or starts[-1] + length == size


def test_brats_volumes_are_covered_by_the_patches_of_wacker_2019():
    starts = Patches(step=(24, 32, 32)).starts((155, 240, 240))
    assert starts[0] == (0, 24, 48, 72, 96, 120, 131) and starts[1] == starts[2] == (0, 32, 64, 96, 112)


@pytest.mark.parametrize("overlap", ["average", "gaussian"])
def test_means_are_those_of_all_tiles_by_their_weights(overlap):
    tiles = Patches((4, 6, 5), (2, 4, 3), overlap)
    volume = _noise(9, 13, 11, 1)
    parts = [_noise(4, 6, 5, 1) + number for number in range(len(_cut(volume, tiles)))]
    peak = np.zeros(tiles.shape)
    peak[2, 3, 2] = 1
    # As nnU-Net has it: a smoothed peak, by its highest value; its own is cut off at 4 σ, which is half a patch.
    weights = ndimage.gaussian_filter(peak, [n / 8 for n in tiles.shape], mode="constant", truncate=9)
    weights = np.ones(tiles.shape) if overlap == "average" else weights / weights.max()
    total, weight = np.zeros(volume.shape), np.zeros((*volume.shape[:3], 1))
    for part, place in zip(parts, itertools.product(*tiles.starts(volume.shape)), strict=True):
        at = tuple(slice(start, start + n) for start, n in zip(place, tiles.shape, strict=True))
        total[at] += weights[..., None] * part
        weight[at] += weights[..., None]
    np.testing.assert_allclose(_composed(parts, volume, tiles), total / weight, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_equal_tiles_give_their_value_and_a_tile_alone_its_own_to_the_last_bit(overlap):
    volume = np.empty((10, 9, 7, 3), np.float32)
    tiles = Patches((4, 5, 3), (2, 1, 1), overlap)
    value = np.float32([0.1, 1 / 3, 0.7])
    parts = [np.broadcast_to(value, (*tiles.shape, 3)) for _ in _cut(volume, tiles)]
    np.testing.assert_array_equal(_composed(parts, volume, tiles), np.broadcast_to(value, volume.shape))
    parts = [_noise(*tiles.shape, 3) for _ in parts]
    np.testing.assert_array_equal(_composed(parts, volume, tiles)[:2, 0, 0], parts[0][:2, 0, 0])


def test_composition_holds_no_more_than_the_volume_a_slab_and_a_strip():
    import tracemalloc

    volume = np.empty((64, 64, 64), np.float32)
    tiles = Patches((8, 16, 16), (4, 8, 8), "gaussian")
    parts = (np.ones((*tiles.shape, 1), np.float32) for _ in _cut(volume, tiles))
    tracemalloc.start()
    _composed(parts, volume, tiles)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1.6 * volume.nbytes  # a slab is an eighth, and a temporary of its size comes with it


def test_beyond_the_volume_patches_read_air_and_windows_the_edge():
    volume = np.arange(1, 7, dtype=np.uint8).reshape(2, 1, 3)
    (patch,) = _cut(volume, Patches((4, 3, 4), (4, 3, 4), "average"), air=9)
    assert patch.dtype == np.uint8 and patch.shape == (4, 3, 4)
    np.testing.assert_array_equal(patch[1:3, 1, :3], volume[:, 0])
    assert (patch[[0, 3]] == 9).all() and (patch[:, [0, 2]] == 9).all() and (patch[..., 3] == 9).all()
    (window,) = _cut(volume, DepthWindows(5, 1))
    np.testing.assert_array_equal(window, volume[[0, 0, 1, 1, 1]])


def test_tiles_are_made_from_json_by_their_names():
    assert TILES["depth-windows"]() == DepthWindows(16, 8)
    patches = TILES["patches"](**json.loads('{"shape": [24, 128, 128], "step": [24, 32, 32], "overlap": "average"}'))
    assert patches == Patches(step=(24, 32, 32)) and hash(patches) == hash(Patches(step=(24, 32, 32)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": (24, 128)}, "three numbers"),
        ({"shape": (8, 64, 64), "step": (9, 64, 64)}, "gaps"),
        ({"step": (12, 0, 64)}, "gaps"),
        ({"shape": (24, 0, 128)}, "gaps"),
        ({"step": (12, 6.5, 64)}, "step=6.5: a whole number"),
        ({"step": (-12, 64, 64)}, "gaps"),
        ({"step": (11, 64, 64), "overlap": "crop"}, "even"),
        ({"overlap": "max"}, "'crop', 'average', 'gaussian'"),
    ],
)
def test_patches_that_cannot_be_composed_are_refused(fields, message):
    with pytest.raises(RecipeError, match=message):
        Patches(**fields)


@pytest.mark.parametrize(("depth", "stride"), [(16, 0), (16, 18), (16, 7), (16, -8), (0, 0)])
def test_windows_that_leave_gaps_are_refused(depth, stride):
    with pytest.raises(RecipeError, match=r"at most the depth|must be even|greater than 0|1 to 512"):
        DepthWindows(depth, stride)


def test_of_155_slices_the_last_11_are_in_no_stepped_patch():
    tiles = SteppedPatches((24, 128, 128), (24, 32, 32), smallest=(144, 192, 192))
    slices, rows, cols = tiles.starts((155, 192, 240))
    assert slices == (0, 24, 48, 72, 96, 120) and rows == (0, 32, 64) and cols == (0, 32, 64, 96)
    assert len(tiles.starts((144, 192, 192))[0]) * 3 * 3 == 54  # Wacker 2019's number of windows
    assert SteppedPatches((24, 0, 0), (24, 0, 0)).starts((50, 30, 40)) == ((0, 24), (0,), (0,))  # whole planes


@pytest.mark.parametrize("volume", [(5, 4, 2), (8, 11, 4), (3, 16, 1), (9, 7, 13)])
def test_stepped_patches_are_those_of_the_volume_filled_up_first(volume):
    """As the release does it: zeros on both sides, and every whole window of the filled volume."""
    tiles = SteppedPatches((4, 3, 3), (3, 2, 3), smallest=(8, 9, 10))
    image = _noise(*volume)
    more = [max(0, least - entries) for entries, least in zip(volume, tiles.smallest, strict=True)]
    filled = np.pad(image, [(n // 2, n - n // 2) for n in more])
    sums, counts = np.zeros(filled.shape), np.zeros(filled.shape)
    ranges = [range(0, n - k + 1, s) for n, k, s in zip(filled.shape, tiles.shape, tiles.step, strict=True)]
    for z, y, x in itertools.product(*ranges):
        window = (slice(z, z + 4), slice(y, y + 3), slice(x, x + 3))
        sums[window] += filled[window] * (1 + filled[window].mean())
        counts[window] += 1
    inside = tuple(slice(n // 2, n // 2 + entries) for n, entries in zip(more, volume, strict=True))
    expected = np.divide(sums, counts, out=np.zeros(filled.shape), where=counts > 0)[inside]
    parts = _cut(image, tiles)
    assert all(part.any() for part in parts)  # none is only air
    seen = [part * (1 + part.mean()) for part in parts]
    np.testing.assert_allclose(_composed(seen, image, tiles), expected, rtol=1e-5, atol=1e-6)
