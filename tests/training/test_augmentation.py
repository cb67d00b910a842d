"""Crops of extracted brains: skull and scalp are gone, brain and lesions stay, at the grey level of the whole head."""

import numpy as np
import pytest

from planar3d.errors import RecipeError
from planar3d.recipes import MODERN, PAPER
from planar3d.training.augmentation import brain_mask, extracted_brain
from planar3d.training.crops import CropSamples

PIXEL = 2.0
RECIPE = MODERN.changed(crop=32, depth=16, pixel_mm=PIXEL, augmentation=("extraction",), lesion_share=0.0)


def _head(brain_level=100, slices=16, size=96):
    """Discs around one middle: brain to 60 mm, with a dark fold, skull to 68 mm, bright scalp to 78 mm."""
    rows, cols = np.indices((size, size)) - size // 2
    mm = np.hypot(rows, cols) * PIXEL
    head = np.select([mm < 60, mm < 68, mm < 78], [brain_level, 15, 250], 3)
    head[(mm < 60) & (abs(cols) < 2) & (rows < -20)] = 15
    volume = np.repeat(head[None].astype(np.uint8), slices, axis=0)
    lesions = np.zeros_like(volume)
    lesions[5:7, size // 2 + 10 : size // 2 + 13, size // 2 + 10 : size // 2 + 13] = 1
    volume[lesions > 0] = brain_level * 3 // 2
    return volume, lesions, np.broadcast_to(mm < 60, volume.shape)


@pytest.mark.parametrize("cut", [0, 24])
def test_the_brain_is_found_with_its_folds_and_nothing_of_skull_and_scalp(cut):
    """Also where the plane ends within the brain."""
    voxels, _, brain = (array[:, cut:] for array in _head())
    found = brain_mask(voxels, PIXEL)
    assert found.shape == voxels.shape
    assert (found & brain).sum() > 0.97 * brain.sum()
    assert not (found & (voxels > 200)).any()
    assert (found & ~brain).sum() < 0.03 * brain.sum()


def test_the_brain_has_the_grey_level_of_the_head_and_all_else_is_zero():
    voxels, lesions, brain = _head(brain_level=80)
    extracted = extracted_brain(voxels, lesions, PIXEL)
    assert extracted.dtype == np.uint8 and np.median(extracted[brain]) == 100
    assert extracted[lesions > 0].min() == 150
    assert not extracted[voxels > 200].any() and not extracted[:, :8].any()


def test_lesions_stay_wherever_they_are():
    voxels, lesions, _ = _head()
    lesions[2, 4:6, 4:6] = 1
    voxels[2, 4:6, 4:6] = 140
    assert (extracted_brain(voxels, lesions, PIXEL)[2, 4:6, 4:6] == 140).all()


def test_without_a_brain_nothing_stays():
    empty = np.zeros((16, 32, 32), np.uint8)
    assert not extracted_brain(empty, empty, PIXEL).any()


def test_a_third_of_the_crops_show_extracted_brains_with_the_same_masks():
    voxels, lesions, _ = _head()
    samples = CropSamples([voxels[..., None]], [lesions], RECIPE.changed(crop=96))
    crops = [samples.crop(number) for number in range(60)]
    extracted = [not (grey > 200).any() for grey, _ in crops]
    assert 10 <= sum(extracted) <= 30
    for grey, mask in crops:
        assert (grey > 60).any() and (grey[mask > 0] >= 150).all()
    assert any(mask.any() for (_, mask), one in zip(crops, extracted, strict=True) if one)


@pytest.mark.parametrize(
    ("recipe", "levels"), [(PAPER, "min-max"), (PAPER, "median"), (MODERN, "min-max")], ids=["both", "grid", "levels"]
)
def test_a_recipe_whose_grid_or_grey_levels_tell_no_brain_is_refused(recipe, levels):
    with pytest.raises(
        RecipeError, match=r"'extraction' finds brains.*'axial-slices' with grey_levels='median'.*omit it"
    ):
        recipe.changed(samples="crops", monitor="last", augmentation=("extraction",), grey_levels=levels)
