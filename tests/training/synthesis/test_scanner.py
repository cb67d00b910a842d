"""A scan of a synthetic head: where its voxels lie, what they average, and how its noise and brain are."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from planar3d.training.synthesis.anatomy import _CENTERS, BRAIN, TISSUES, Anatomy
from planar3d.training.synthesis.scanner import Acquisition, Pose, averaged, bias, kept_of, with_noise

STILL = np.zeros((3, 2, 2, 2), np.float32)


@pytest.fixture(scope="module")
def anatomy():
    """A brain in skin, upright, with a third of the real brain's size; elsewhere no tissue of `_CENTERS`."""
    middle = np.array([30, 40, 45])
    places = (np.indices((61, 81, 71)) - middle[:, None, None, None]).T
    labels = np.where(np.linalg.norm(places / (26, 36, 40), axis=-1).T < 1, TISSUES.index("skin"), 0)
    labels[np.linalg.norm(places / (16, 26, 20), axis=-1).T < 1] = TISSUES.index("insula")
    for name, (aside, *others) in _CENTERS.items():
        for side in (1, -1):
            labels[tuple(middle + np.rint(np.array([side * aside, *others]) / 3).astype(int))] = TISSUES.index(name)
    return Anatomy(labels.astype(np.uint8), np.eye(4))


def test_a_view_shows_at_each_voxel_the_nearest_one_of_the_head_and_nothing_beyond():
    volume = np.arange(1, 1 + 6 * 7 * 8).reshape(6, 7, 8)
    matrix = Rotation.from_euler("xyz", (20, -30, 40), degrees=True).as_matrix() * [-1, -1, 1] * 0.8
    pose = Pose((9, 10, 12), matrix, np.array([2.3, 3.1, 3.9]), STILL)
    bent = np.zeros((3, 3, 2, 2), np.float32)  # two voxels forward in the middle, three at the left end
    bent[1, 1:] = np.reshape([2, 3], (2, 1, 1))
    for displacement in (0 * bent, bent):
        here = np.indices(pose.grid).reshape(3, -1)
        index = matrix @ (here - (np.array(pose.grid)[:, None] - 1) / 2) + pose.center[:, None]
        index[1] += np.interp(here[0], (0, 4, 8), displacement[1, :, 0, 0])
        index = np.rint(index).astype(int)
        inside = ((index >= 0) & (index < np.reshape(volume.shape, (3, 1)))).all(axis=0)
        expected = np.where(inside, volume[tuple(np.clip(index, 0, np.reshape(volume.shape, (3, 1)) - 1))], 0)
        (found,) = Pose(pose.grid, matrix, pose.center, displacement).sampled(volume)
        np.testing.assert_array_equal(found.ravel(), expected)
        assert inside.any() and not inside.all()


def test_a_drawn_view_contains_the_brain_or_head_at_its_scale_seen_from_any_side(anatomy):
    mirrored, scales, volumes = set(), [], {}
    for seed in range(12):
        for extracted, shown in ((True, BRAIN[anatomy.labels]), (False, anatomy.labels > 0)):
            pose = Pose.drawn(anatomy, extracted, np.random.default_rng(seed))
            still = Pose(pose.grid, pose.matrix, pose.center, STILL)
            (seen,) = still.sampled(shown)
            scales.append(np.cbrt(1 / abs(np.linalg.det(pose.matrix))))
            lost = 1 - seen.sum() / (np.count_nonzero(shown) * scales[-1] ** 3)
            assert abs(lost) < 0.02 if extracted else lost < 0.6  # of a head, the neck and vertex may be cut
            sides = [seen.any(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
            for axis, side in enumerate(sides if extracted else sides[:2]):
                margins = np.argmax(side), np.argmax(side[::-1])
                assert min(margins) >= (1 if axis < 2 else 0) and max(margins) <= (18 if extracted else 26)
            assert pose.matrix[1, 1] < -0.5 and pose.matrix[2, 2] > 0.5  # posterior, superior
            mirrored.add(np.sign(pose.matrix[0, 0]))
            volumes.setdefault(extracted, []).append(pose.displacement.std())
    assert mirrored == {-1, 1} and 0.9 < np.mean(scales) < 1.1 and 0.03 < np.std(scales) < 0.12
    assert 1.8 < np.mean(volumes[True]) < 2.6  # mm


@pytest.mark.parametrize("shares", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_a_voxel_averages_its_width_around_its_place_and_voxels_lie_their_spacing_apart(shares):
    lengths = (61, 50, 74)
    for seed in range(6):
        drawn = Acquisition.drawn(shares, 1.0, np.random.default_rng(seed))
        coarser = Acquisition.drawn(shares, 2.0, np.random.default_rng(seed))
        for name in ("spacing", "acquired", "width"):
            np.testing.assert_allclose(getattr(coarser, name), 2 * getattr(drawn, name))
        assert (drawn.width[:2] >= drawn.acquired[:2]).all() and drawn.width[2] >= 0.8 * drawn.acquired[2]
        assert (drawn.acquired >= drawn.spacing).all()
        for axis, matrix in enumerate(drawn.weights(lengths)):
            weights = matrix.toarray().astype(float)
            count, places = len(weights), np.arange(lengths[axis])
            assert count * drawn.spacing[axis] <= lengths[axis] < (count + 1) * drawn.spacing[axis]
            np.testing.assert_allclose(weights.sum(axis=1), 1, atol=2e-3)
            edge = int(np.ceil((drawn.width + drawn.acquired)[axis] / drawn.spacing[axis])) + 2
            inner = slice(edge, count - edge)
            middle = weights @ places
            expected = (np.arange(count) - (count - 1) / 2) * drawn.spacing[axis] + (lengths[axis] - 1) / 2
            np.testing.assert_allclose(middle[inner], expected[inner], atol=0.04)
            spread = np.sqrt((weights * (places - middle[:, None]) ** 2).sum(axis=1))[inner]
            box = np.hypot(drawn.width[axis] / np.sqrt(12), 0.45)
            if drawn.spacing[axis] == drawn.acquired[axis]:
                np.testing.assert_allclose(spread, box, rtol=0.1)
            else:  # between two measured voxels
                assert (spread > 0.97 * box).all() and (spread < np.hypot(box, drawn.acquired[axis])).all()


def test_a_blur_widens_the_profile_by_its_deviation():
    acquisition = Acquisition(np.full(3, 2.0), np.full(3, 2.0), np.full(3, 2.0))
    for blur in (0.0, 3.0):
        weights = acquisition.weights((41, 41, 41), blur)[0].toarray()[10]
        middle = weights @ np.arange(41)
        assert np.sqrt(weights @ (np.arange(41) - middle) ** 2) == pytest.approx(
            np.sqrt(4 / 12 + 0.45**2 + blur**2), rel=0.03
        )


def test_an_average_is_the_product_with_the_weights_of_each_axis():
    volume = np.random.default_rng(0).random((20, 14, 17), dtype=np.float32)
    acquisition = Acquisition(*[np.array([1.1, 4.0, 2.0])] * 3)
    matrices = acquisition.weights(volume.shape)
    expected = np.einsum("ia,jb,kc,abc->ijk", *(matrix.toarray() for matrix in matrices), volume)
    np.testing.assert_allclose(averaged(volume, matrices), expected, rtol=1e-5)


def test_noise_is_rician_and_the_coil_has_the_strength_asked_for():
    signal = np.tile(np.float32([0, 0.5, 1]), (40, 40, 20)).astype(np.float32)
    noisy = with_noise(signal, 0.2, np.random.default_rng(0))
    for level in (0, 0.5, 1):
        values = noisy[signal == level]
        assert values.min() >= 0 and np.mean(values**2) == pytest.approx(level**2 + 2 * 0.2**2, rel=0.03)
    fields = [np.log(bias((200, 240, 200), (50, 60, 50), 0.2, np.random.default_rng(seed))) for seed in range(4)]
    assert np.mean([field.std() for field in fields]) == pytest.approx(0.2, rel=0.25)
    assert max(np.abs(np.diff(field, axis=axis)).max() for field in fields for axis in range(3)) < 0.1  # smooth


def test_cuts_keep_from_less_than_the_brain_to_pieces_of_the_skull(anatomy):
    acquisition = Acquisition(*[np.full(3, 1.0)] * 3)
    brain = BRAIN[anatomy.labels]
    beyond = ndimage.distance_transform_edt(~brain) > 2.5
    volumes, pieces = {}, {}
    for cut in ("tissue", "tight", "eroded", "loose", "remnants"):
        kept = [kept_of(anatomy.labels, acquisition, cut, np.random.default_rng(seed)) for seed in range(3)]
        volumes[cut] = np.mean(kept) / np.mean(brain)
        pieces[cut] = np.mean([(each & beyond).sum() for each in kept]) / brain.sum()
    assert 0.95 < volumes["tissue"] < 1.05 and 0.9 < volumes["tight"] < 1.05
    assert 0.5 < volumes["eroded"] < volumes["tight"] < volumes["loose"] < 1.6
    assert pieces["tissue"] == pieces["tight"] == 0 and 0.002 < pieces["remnants"] < 0.3
