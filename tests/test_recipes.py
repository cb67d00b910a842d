"""Recipes say what the paper and the release say, and refuse what cannot be."""

import dataclasses
import json

import pytest

from planar3d.errors import RecipeError
from planar3d.recipe_formats import DEFAULTS
from planar3d.recipes import DEMO, MODERN, PAPER, RECIPES, RELEASED, Recipe, find_recipe


def test_paper_has_the_values_of_section_3():
    assert (PAPER.size, PAPER.spline_order, PAPER.depth, PAPER.stride) == (256, 2, 16, 8)
    assert (PAPER.learning_rate, PAPER.decay, PAPER.batch_size) == (5e-5, 1.99e-7, 2)
    assert (PAPER.epochs, PAPER.patience, PAPER.monitor) == (100, 40, "val_loss")
    assert (PAPER.validation, PAPER.shuffle, PAPER.frozen) == ("last scan", "once", ("encoder",))
    assert (PAPER.dice_smoothing, PAPER.threshold, PAPER.threshold_rule) == (0, 16, "absolute")


def test_released_differs_from_paper_in_what_docs_fidelity_lists():
    differing = {k for k, v in RELEASED.to_json().items() if v != PAPER.to_json()[k]}
    assert differing == {
        *("name", "raw_values", "resampling", "window_borders", "frozen", "epsilon", "dice_smoothing", "batch_size"),
        *("patience", "monitor", "validation", "shuffle", "threshold_rule", "seed"),
    }
    assert (RELEASED.batch_size, RELEASED.epsilon, RELEASED.dice_smoothing) == (3, 1e-8, 1)
    assert RELEASED.frozen == ("encoder", "bridge")


def test_demo_keeps_the_paper_s_architecture():
    assert (DEMO.depth, DEMO.stride, DEMO.channels, DEMO.encoder_weights) == (16, 8, 3, "imagenet")


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_survives_json(recipe, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe.to_json()))
    assert find_recipe(str(path)) == recipe == find_recipe(recipe.name)


def test_a_file_needs_only_what_differs_from_the_paper(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"name": "mine", "epochs": 8}')
    assert find_recipe(str(path)) == PAPER.changed(name="mine", epochs=8)


def test_a_file_of_this_package_keeps_its_meaning_whatever_todays_recipe_of_its_name_says(tmp_path):
    # A file of `modern` from before small lesions were dropped, before augmentation 'extraction' and matrices.
    content = MODERN.to_json()
    for field in ("format", "smallest_lesion_mm3", "augmentation", "resampling"):
        del content[field]
    recipe = Recipe.from_json(content)
    assert recipe == MODERN.changed(smallest_lesion_mm3=0, augmentation=(), resampling="scipy")
    (tmp_path / "run.json").write_text(json.dumps(content | {"format": 1}))
    assert find_recipe(str(tmp_path / "run.json")) == recipe
    # What a person writes by hand begins with today's recipe.
    (tmp_path / "own.json").write_text('{"name": "modern", "epochs": 8}')
    assert find_recipe(str(tmp_path / "own.json")) == MODERN.changed(epochs=8)


@pytest.mark.parametrize("number", DEFAULTS)
def test_every_field_has_a_value_in_every_format_and_the_name_alone_is_needed(number):
    # A new field needs a line in each table, with what was done before there was that field.
    assert set(DEFAULTS[number]) == {field.name for field in dataclasses.fields(Recipe)} - {"name"}
    assert Recipe.from_json({"name": "modern"}) == PAPER.changed(name="modern", resampling="scipy")


@pytest.mark.parametrize("number", [0, 2, "1", None, [1]])
def test_a_recipe_of_an_unknown_format_is_refused(number, tmp_path):
    (tmp_path / "newer.json").write_text(json.dumps(PAPER.to_json() | {"format": number}))
    with pytest.raises(RecipeError, match=r"newer\.json: the recipe is of format .*reads 1.*Update"):
        find_recipe(str(tmp_path / "newer.json"))


def test_settings_are_read_as_their_field_s_type():
    recipe = PAPER.with_settings(["epochs=8", "learning_rate=1e-4", "frozen=encoder,conv51", "decoder_filters=8,6,4,2"])
    assert (recipe.epochs, recipe.learning_rate) == (8, 1e-4)
    assert (recipe.frozen, recipe.decoder_filters) == (("encoder", "conv51"), (8, 6, 4, 2))
    assert PAPER.with_settings(["frozen="]).frozen == ()


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("epochs", "field=value"),
        ("epoch=3", "no field 'epoch'; it has: name, grid, size"),
        ("epochs=8.5", "type int"),
        ("epochs=0", "greater than 0"),
        ("learning_rate=nan", "type float"),
        ("monitor=loss", "'val_loss', 'val_dice'"),
        ("size=100", "multiple of 16"),
        ("stride=7", "must be even"),
        ("stride=18", "at most the depth"),
        ("size=0", "multiple of 16, at least 16"),
        ("decoder_filters=8,6,0,2", "numbers greater than 0 are needed, deepest level first"),
        ("encoder_depth=-1", "an odd number of slices, at least 1"),
        ("output_prior=1", "greater than 0 and less than 1"),
        ("lesion_share=1.5", "a share from 0 to 1"),
        ("spline_order=6", "from 0 to 5"),
        ("threshold=300", "threshold is 300.0, but a threshold from 0 to 256 is needed"),
        ("threshold=-1", "from 0 to 256"),
    ],
)
def test_impossible_settings_are_refused_with_a_sentence(setting, sentence):
    with pytest.raises(RecipeError, match=sentence):
        PAPER.with_settings([setting])


def test_unknown_names_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="paper, released, modern, demo"):
        find_recipe("papier")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(RecipeError, match="not JSON"):
        find_recipe(str(tmp_path / "bad.json"))
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(RecipeError, match="not a recipe"):
        find_recipe(str(tmp_path / "list.json"))
    with pytest.raises(RecipeError):
        Recipe(name="x", depth=24)
