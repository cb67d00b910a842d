"""The recipe with which one case is learned by heart."""

import pytest
from experiment_modules import modules_of

from planar3d.errors import RecipeError
from planar3d.recipes import MODERN, RECIPES

WACKER2019_3D, MESSAOUDI2020 = RECIPES["wacker2019-3d"], RECIPES["messaoudi2020"]


@pytest.fixture
def overfitting():
    with modules_of("", "overfit_brats") as (module,):
        yield module.overfitting


def test_steps_are_epochs_of_patches_around_the_tumour(overfitting):
    recipe = overfitting(WACKER2019_3D, 300, 25, "24,64,65", ["batch_size=2", "augmentation=flip"])
    assert (recipe.epochs, recipe.patches_per_epoch, recipe.batch_size) == (12, 50, 2)
    assert (recipe.tiles.shape, recipe.tiles.step) == ((24, 64, 65), (12, 32, 33))
    assert (recipe.foreground_share, recipe.augmentation) == (1, ("flip",))


def test_without_a_crop_the_network_sees_what_it_sees_in_its_recipe(overfitting):
    assert overfitting(WACKER2019_3D, 300, 25, "", []).tiles == WACKER2019_3D.tiles
    recipe = overfitting(MESSAOUDI2020, 300, 25, "", [])
    assert recipe.window == MESSAOUDI2020.window == recipe.sample == (108, 192, 160, 1)


def test_recipes_of_8_bit_images_are_refused(overfitting):
    with pytest.raises(RecipeError, match="one image per channel"):
        overfitting(MODERN, 300, 25, "", [])
