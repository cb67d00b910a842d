"""An ensemble gives the mean of its members' probabilities, on whatever grids they found them."""

import keras
import nibabel as nib
import numpy as np
import pytest

from planar3d.errors import RecipeError, ScanError, WeightsError
from planar3d.inference.segmenter import Segmenter, segment, segment_case
from planar3d.recipes import MODERN, PAPER, Recipe
from planar3d.scans.case import Case
from planar3d.scans.preparation import NonZeroBox
from planar3d.scans.targets import Classes, Regions
from planar3d.scans.tiles import Patches
from planar3d.scans.volume import Scan
from planar3d.training.patches import PatchSampling
from planar3d.training.settings import Training

REGIONS = Regions(regions=("WT=1+2", "TC=1"), order=(2, 1))
CLASSES = Classes(classes=("edema=2", "core=1"))


def _head(seed, shape=(20, 22, 24), brain=None):
    rng = np.random.default_rng(seed)
    voxels = np.zeros(shape, np.float32)
    inside = brain or (slice(2, -2),) * 3
    voxels[inside] = rng.integers(200, 2000, voxels[inside].shape)
    return Scan(voxels, nib.Nifti1Image(voxels, np.diag([-0.9, -0.9, 1.1, 1])).header)


def _network(shape, targets, seed, name):
    """A network whose outputs differ from voxel to voxel."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(shape)
    sized = {"activation": targets.activation, "kernel_initializer": "normal", "bias_initializer": "normal"}
    return keras.Model(inputs, keras.layers.Conv3D(targets.outputs, 3, padding="same", **sized)(inputs), name=name)


def _folds(recipe, number):
    return [(_network(recipe.window, recipe.targets, seed, f"fold{seed}"), recipe) for seed in range(number)]


def _of_one_image(image, targets, seed):
    recipe = Recipe(
        image,
        preparation=NonZeroBox(images=(image,)),
        tiles=Patches(shape=(8, 8, 8), step=(8, 8, 8)),
        targets=targets,
        training=Training(samples=PatchSampling(), monitor="last"),
    )
    return _network(recipe.window, targets, seed, image), recipe


@pytest.mark.parametrize(
    "recipe", [PAPER.changed(size=32, mirrored=True), MODERN.changed(size=32, crop=32, mirrored=True)]
)
def test_the_mean_with_the_mirror_image_is_the_same_for_the_mirrored_scan(recipe):
    (network, _), scan = _folds(recipe, 1)[0], _head(0)
    (side,) = (axis for axis, letter in enumerate(nib.aff2axcodes(scan.affine)) if letter in "LR")
    (across,) = (axis for axis, letter in enumerate(recipe.preparation.view) if letter in "LR")
    other = Scan(np.flip(scan.voxels, side), scan.header)
    found = []
    for used in (recipe.changed(mirrored=False), recipe):
        segmenter = Segmenter((network, used), engine="keras")
        found.append([segmenter.predict(segmenter.prepare({"flair": one})).values for one in (scan, other)])
    (alone, of_other), (mean, mean_of_other) = found
    np.testing.assert_allclose(mean, (alone + np.flip(of_other, across)) / 2, atol=2e-3)
    np.testing.assert_allclose(mean, np.flip(mean_of_other, across), atol=2e-3)
    assert np.abs(mean - alone).max() > 0.01


@pytest.mark.parametrize("recipe", [PAPER.changed(size=32, threshold=128), MODERN.changed(size=32, crop=32)])
def test_folds_of_a_recipe_are_averaged_exactly_and_one_alone_is_as_it_is(recipe):
    scan, folds = _head(0), _folds(recipe, 3)
    alone = [Segmenter(fold, engine="keras") for fold in folds]
    (prepared,) = alone[0].prepare({"flair": scan})
    own = [one.predict([prepared]).values for one in alone]
    assert len({values.tobytes() for values in own}) == 3
    for members in (folds[:1], folds[:2], folds):
        ensemble = Segmenter(members, engine="keras")
        made, seen = ensemble.prepare({"flair": scan}), []
        assert all(each is made[0] for each in made)
        found = ensemble.predict(made, lambda done, of, seen=seen: seen.append((done, of)))
        mean = np.mean(own[: len(members)], axis=0)
        assert mean.dtype == found.values.dtype == np.float32
        np.testing.assert_array_equal(found.values, mean)
        assert seen[-1][0] == seen[-1][1] and seen == sorted(seen)
    assert ensemble.description.startswith("mean of 3 models, ") and alone[0].description in ensemble.description
    (one,) = folds[:1]
    expected = segment(scan, one, engine="keras")
    for mask in (segment(scan, [one], engine="keras"), segment_case(scan, alone[0])):
        assert mask.voxels.tobytes() == expected.voxels.tobytes() and expected.voxels.any()
        assert mask.header.binaryblock == expected.header.binaryblock


# A box of its own for each image, so that a voxel may be seen by both, by one or by none.
BRAINS = {"flair": (slice(2, -2),) * 3, "t1": (slice(4, 15), slice(1, -3), slice(2, -4))}


@pytest.mark.parametrize("targets", [REGIONS, CLASSES], ids=["regions", "classes"])
def test_networks_of_one_image_each_are_averaged_on_the_native_grid_where_their_boxes_differ(targets):
    images = {name: _head(seed, brain=BRAINS[name]) for seed, name in enumerate(BRAINS)}
    members = [_of_one_image(name, targets, seed) for seed, name in enumerate(images)]
    ensemble = Segmenter(members, engine="keras")
    assert ensemble.images == ("flair", "t1")
    prepared = ensemble.prepare(images)
    assert prepared[0].geometry.prepared != prepared[1].geometry.prepared
    whole = []
    for member, own in zip(members, prepared, strict=True):
        values = own.restore(Segmenter(member, engine="keras").predict([own]).values).voxels
        unseen = ~values.any(axis=-1)
        assert unseen.sum() == values[..., 0].size - np.prod(own.geometry.prepared)
        if targets is CLASSES:
            values[unseen] = (1, 0, 0)
        whole.append(values)
    found = ensemble.predict(prepared)
    np.testing.assert_array_equal(found.values, np.mean(whole, axis=0))
    mask = found.mask()
    np.testing.assert_array_equal(mask.voxels, targets.decode(np.mean(whole, axis=0), mask.affine))
    assert len(np.unique(mask.voxels)) > 1 and not mask.voxels[0].any()
    np.testing.assert_array_equal(mask.affine, images["flair"].affine)
    case = {name: Scan(scan.voxels, scan.header) for name, scan in images.items()}
    np.testing.assert_array_equal(segment(case, members, engine="keras").voxels, mask.voxels)


def test_where_all_boxes_are_the_same_the_mean_is_that_of_the_native_grid():
    images = {name: _head(seed) for seed, name in enumerate(BRAINS)}
    ensemble = Segmenter([_of_one_image(name, REGIONS, seed) for seed, name in enumerate(images)], engine="keras")
    found = ensemble.predict(ensemble.prepare(images))
    assert found.values.shape == (20, 18, 16, 2)  # the box, its slices along the third axis of the files
    restored = found.prepared.restore(found.values)
    np.testing.assert_array_equal(found.mask().voxels, REGIONS.decode(restored.voxels, restored.affine))


@pytest.mark.parametrize("brains", [BRAINS, dict.fromkeys(BRAINS)], ids=["own boxes", "one box"])
def test_images_of_other_models_may_be_stored_in_another_order_but_not_on_another_grid(brains):
    images = {name: _head(seed, brain=brains[name]) for seed, name in enumerate(brains)}
    ensemble = Segmenter([_of_one_image(name, REGIONS, seed) for seed, name in enumerate(images)], engine="keras")
    expected = ensemble.predict(ensemble.prepare(images)).mask()
    assert expected.voxels.any()
    t1 = nib.Nifti1Image(images["t1"].voxels, images["t1"].affine)
    for order in ("RAS", "PIL"):
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(t1.affine), nib.orientations.axcodes2ornt(tuple(order))
        )
        stored = t1.as_reoriented(turn)
        given = images | {"t1": Scan(np.asarray(stored.dataobj), stored.header), "pd": "of no model"}
        found = ensemble.predict(ensemble.prepare(given)).mask()
        np.testing.assert_array_equal(found.voxels, expected.voxels)
        np.testing.assert_array_equal(found.affine, expected.affine)
    moved = nib.Nifti1Image(t1.dataobj, np.diag([1, 1, 1, 1]) + np.eye(4, k=3) * 5)
    with pytest.raises(ScanError, match=r"does not match"):
        ensemble.prepare(images | {"t1": Scan(np.asarray(moved.dataobj), moved.header)})


def test_a_contrast_that_is_missing_is_named(tmp_path):
    ensemble = Segmenter([_of_one_image(name, REGIONS, 0) for name in BRAINS], engine="keras")
    with pytest.raises(ScanError, match=r"needs t1, but t1 is missing; given: flair"):
        segment_case({"flair": _head(0)}, ensemble)
    with pytest.raises(ScanError, match=r"is missing; given: pd\."):
        segment_case({"pd": _head(0)}, ensemble)
    path = tmp_path / "f.nii.gz"
    _head(0).save(path)
    with pytest.raises(ScanError, match=r"t1 is missing"):
        segment_case(Case("p01", {"flair": path}, None, ""), ensemble)


def test_images_that_no_model_takes_are_not_read():
    segmenter = Segmenter(_of_one_image("flair", REGIONS, 0), engine="keras")
    mask = segment_case({"flair": _head(0), "t1": "missing.nii.gz"}, segmenter)
    np.testing.assert_array_equal(mask.voxels, segment_case(_head(0), segmenter).voxels)


def test_a_flat_image_is_accepted_only_if_every_model_takes_one():
    network, recipe = _of_one_image("flair", PAPER.targets, 0)
    assert Segmenter((network, recipe)).flat and not Segmenter([(network, recipe), (network, PAPER)]).flat


@pytest.mark.parametrize("choice", [{"method": "fast"}, {"engine": "tpu"}, {"precision": "fp16"}, {"batch_size": 0}])
def test_what_is_chosen_for_a_scan_is_checked_before_its_model_is_opened(choice):
    with pytest.raises(RecipeError, match=f"^{next(iter(choice))}="):
        segment("missing.nii.gz", "missing.weights.h5", **choice)


def test_a_network_without_its_recipe_is_refused():
    with pytest.raises(WeightsError, match=r"\(network, recipe\); got Functional"):
        Segmenter(_network((4, 4, 4, 1), REGIONS, 0, "bare"))


def test_models_of_other_targets_are_refused_by_what_differs():
    first, second = _of_one_image("flair", REGIONS, 0), _of_one_image("t1", CLASSES, 1)
    with pytest.raises(
        RecipeError, match=r"t1 has targets with name=classes, but the first model has name=regions.* models\.$"
    ):
        Segmenter([first, second])
    folds = [(network, PAPER.changed(threshold=limit)) for limit, (network, _) in ((16, first), (99, second))]
    with pytest.raises(RecipeError, match=r"t1 has targets with threshold=99.*=16.*--set"):
        Segmenter(folds)
    with pytest.raises(RecipeError, match=r"threshold=99.0, least_mean=9.0, but .*threshold=16.0, least_mean=0.0;"):
        Segmenter([folds[0], (second[0], PAPER.changed(threshold=99, least_mean=9))])
    assert Segmenter(folds, PAPER).recipes == [PAPER, PAPER]
    with pytest.raises(WeightsError, match="No model was given"):
        Segmenter([])
