"""Recipes say what the paper and the release say, and refuse what cannot be."""

import json
from pathlib import Path
from typing import get_args

import pytest

from planar3d.errors import RecipeError, RunError
from planar3d.files import read_json
from planar3d.networks.registry import describe_network
from planar3d.networks.settings import AlbuNetSettings, MappingName
from planar3d.recipes import DEMO, MODERN, PAPER, RECIPES, RELEASED, Recipe, find_recipe
from planar3d.scans.preparation import AxialSlices, SagittalCube
from planar3d.scans.targets import Classes, Regions
from planar3d.scans.tiles import DepthWindows

WITHOUT_VALIDATION = PAPER.changed(validation="none", monitor="last", schedule="plateau")


def test_paper_has_the_values_of_section_3():
    assert (PAPER.size, PAPER.spline_order, PAPER.depth, PAPER.stride) == (256, 2, 16, 8)
    assert (PAPER.learning_rate, PAPER.decay, PAPER.batch_size) == (5e-5, 1.99e-7, 2)
    assert (PAPER.epochs, PAPER.patience, PAPER.monitor) == (100, 40, "val_loss")
    assert (PAPER.validation, PAPER.shuffle, PAPER.frozen) == ("last scan", "once", ("encoder",))
    assert (PAPER.dice_smoothing, PAPER.threshold, PAPER.threshold_rule) == (0, 16, "absolute")


def test_released_differs_from_paper_in_what_docs_fidelity_lists():
    differing = {k.rpartition(".")[2] for k, v in RELEASED.leaves().items() if v != PAPER.leaves()[k]}
    assert differing == {
        *("name", "raw_values", "resampling", "window_borders", "frozen", "epsilon", "dice_smoothing", "batch_size"),
        *("patience", "monitor", "validation", "shuffle", "threshold_rule", "seed"),
    }
    assert (RELEASED.batch_size, RELEASED.epsilon, RELEASED.dice_smoothing) == (3, 1e-8, 1)
    assert RELEASED.frozen == ("encoder", "bridge")


def test_demo_keeps_the_paper_s_architecture():
    assert (DEMO.depth, DEMO.stride, DEMO.channels, DEMO.encoder_weights) == (16, 8, 3, "imagenet")


def test_recipes_of_other_kernels_differ_from_the_paper_in_their_mapping_alone():
    names = {name: RECIPES[name].leaves() for name in RECIPES if name.startswith(("eshed", "yang", "paper-"))}
    changed = {name: {k for k, v in leaves.items() if v != PAPER.leaves()[k]} for name, leaves in names.items()}
    assert set(map(frozenset, changed.values())) == {frozenset({"name", "network.mapping"})}
    mapped = {leaves["network.mapping"] for leaves in names.values()}
    assert mapped | {"planar"} == set(get_args(MappingName))


def test_wacker2019_has_the_values_of_the_paper():
    recipe = RECIPES["wacker2019-3d"]
    assert recipe.window == recipe.sample == (24, 128, 128, 3) and recipe.images == ("flair", "t1ce", "t2")
    assert (recipe.learning_rate, recipe.decay, recipe.epochs, recipe.batch_size) == (1e-3, 0, 50, 24)
    assert recipe.patches_per_epoch == 100 * 24 and recipe.dice_of == "foreground"
    assert (recipe.overlap, recipe.step) == ("average", (24, 32, 32)) and recipe.targets.outputs == 4
    flat = RECIPES["wacker2019-2d"]
    changed = {k for k, v in flat.leaves().items() if v != recipe.leaves()[k]}
    assert changed == {
        *("name", "tiles.shape", "tiles.step", "network.depth_layers", "training.batch_size"),
        "training.samples.patches_per_epoch",
    }
    assert (flat.window, flat.batch_size, flat.patches_per_epoch) == ((1, 128, 128, 3), 64, 6400)


def test_the_released_code_of_wacker2019_differs_in_what_fidelity_lists():
    paper, released = RECIPES["wacker2019-3d"], RECIPES["wacker2019-3d-released"]
    changed = {k: v for k, v in released.leaves().items() if v != paper.leaves().get(k)}
    assert changed == {
        "name": "wacker2019-3d-released",
        "preparation.images": ["t1ce", "t2", "flair"],
        "tiles": "stepped-patches",
        "tiles.averaged": "logits",
        "tiles.smallest": [144, 192, 192],
        "network.encoder_bias": True,
        "training.loss.dice_of": "all",
        "training.loss.denominator_smoothing": 1e-15,
    }
    flat, its_paper = RECIPES["wacker2019-2d-released"], RECIPES["wacker2019-2d"]
    assert flat.network == released.network and flat.network.depth_layers and flat.tiles.smallest == (144, 192, 192)
    assert (flat.window, flat.step, flat.batch_size) == (its_paper.window, its_paper.step, its_paper.batch_size)


@pytest.mark.parametrize(
    ("recipe", "changes", "sentence"),
    [
        (MODERN, {"targets": Classes(("csf=1", "grey=2"))}, "mask of {0, 1}.*'axial-slices' and targets='classes'"),
        (MODERN, {"targets": Regions(("ET=4",), (4,))}, "targets='regions'; .*training.samples='patches'"),
        (
            RECIPES["wacker2019-3d"],
            {"samples": "crops", "augmentation": "", "targets": "binary"},
            "preparation='non-zero-box'",
        ),
        (RECIPES["wacker2019-3d-released"], {"targets": "regions"}, "averaged='logits'.*has targets='regions'"),
        (PAPER, {"samples": "patches", "monitor": "last"}, "one image per channel.*preparation='sagittal-cube'"),
        (RECIPES["wacker2019-3d"], {"samples": "windows", "monitor": "last"}, "'non-zero-box', scans differ in their"),
    ],
)
def test_samples_that_would_mix_labels_or_lack_channels_are_refused(recipe, changes, sentence):
    with pytest.raises(RecipeError, match=sentence):
        recipe.changed(**changes)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_survives_json(recipe, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe.to_json()))
    assert find_recipe(str(path)) == recipe == find_recipe(recipe.name)


def test_a_file_needs_only_what_differs_from_the_paper(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"name": "mine", "epochs": 8}')
    assert find_recipe(str(path)) == PAPER.changed(name="mine", epochs=8)


# What planar3d wrote of its four recipes before recipes had sections, and of the published model.
FORMAT_1 = json.loads((Path(__file__).parent / "format_1_recipes.json").read_text())


@pytest.mark.parametrize("name", FORMAT_1)
def test_a_flat_recipe_of_format_1_means_what_it_meant(name):
    recipe = Recipe.from_json(FORMAT_1[name])
    assert recipe == RECIPES[name].changed(planes="whole")
    # Every field is where its section has it, but those that the recipe's choices do not use.
    kept = {place.rpartition(".")[2]: value for place, value in recipe.leaves().items()}
    new = {"image": "flair", "beta_1": 0.9, "beta_2": 0.999, "lookahead_steps": 0, "lookahead_share": 0.5}
    new |= {"mapping": "planar", "alpha": [0.25, 0.5, 0.25], "least_mean": 0.0}
    new |= {"mirrored": False}
    new |= {"floor": 0.0, "constant_epochs": 0} if name == "modern" else {}
    new |= {"tiles": "depth-windows", "planes": "whole", "targets": "binary", "loss": "bce-dice", "optimizer": "adam"}
    new |= {
        "preparation": {"cube": "sagittal-cube", "slices": "axial-slices"}[FORMAT_1[name]["grid"]],
        "samples": FORMAT_1[name]["sampling"],
    }
    assert kept == new | {field: FORMAT_1[name][field] for field in kept.keys() - new}
    unused = FORMAT_1[name].keys() - kept.keys() - {"format", "grid", "sampling", "network", "schedule"}
    windows = {"validation", "window_borders", "shuffle", "cached_features"}
    crops = {"crop", "crops_per_epoch", "lesion_share", "augmentation"}
    assert unused == (windows | {"decay"} if name == "modern" else crops | {"pixel_mm", "slice_mm"})


def test_a_file_of_format_1_lacks_what_was_not_yet_a_field(tmp_path):
    # A file of `modern` from before small lesions were dropped, before augmentation 'extraction' and matrices.
    content = dict(FORMAT_1["modern"])
    for field in ("format", "smallest_lesion_mm3", "augmentation", "resampling"):
        del content[field]
    recipe = Recipe.from_json(content)
    then = MODERN.changed(planes="whole")
    assert recipe == then.changed(smallest_lesion_mm3=0, augmentation=(), resampling="scipy")
    (tmp_path / "run.json").write_text(json.dumps(content | {"format": 1}))
    assert find_recipe(str(tmp_path / "run.json")) == recipe
    # What a person writes by hand begins with today's recipe.
    (tmp_path / "own.json").write_text('{"name": "modern", "epochs": 8}')
    assert find_recipe(str(tmp_path / "own.json")) == MODERN.changed(epochs=8)
    (tmp_path / "nested.json").write_text('{"name": "modern", "training": {"epochs": 8, "samples": {"crop": 64}}}')
    assert find_recipe(str(tmp_path / "nested.json")) == MODERN.changed(epochs=8, crop=64)
    assert Recipe.from_json({"name": "modern"}) == PAPER.changed(name="modern", resampling="scipy")


def test_a_file_of_format_2_keeps_its_meaning_whatever_todays_recipe_of_its_name_says():
    content = MODERN.to_json()
    for section, field in (("targets", "smallest_lesion_mm3"), ("preparation", "pixel_mm"), ("training", "epochs")):
        del content[section][field]
    del content["training"]["samples"]["augmentation"]
    recipe = Recipe.from_json(content)
    assert recipe == MODERN.changed(smallest_lesion_mm3=0, pixel_mm=0.9, epochs=100, augmentation=())
    # The sections' own values are those of format 2 and never change; a new field has what was done before it.
    bare = {"format": 2, "name": "x", "preparation": {"name": "axial-slices"}, "training": {"monitor": "last"}}
    bare["training"]["samples"] = {"name": "crops"}
    assert Recipe.from_json({"format": 2, "name": "paper"}).leaves() == FORMAT_2["paper"]
    assert Recipe.from_json(bare).leaves() == FORMAT_2["x"]


FORMAT_2 = json.loads((Path(__file__).parent / "format_2_values.json").read_text())


@pytest.mark.parametrize("number", [0, 3, "1", "2", True, None, [1]])
def test_a_recipe_of_an_unknown_format_is_refused(number, tmp_path):
    (tmp_path / "newer.json").write_text(json.dumps(PAPER.to_json() | {"format": number}))
    with pytest.raises(RecipeError, match=r"newer\.json: the recipe has format .*reads 1 and 2.*Update"):
        find_recipe(str(tmp_path / "newer.json"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"training": 3}, "training=3: a JSON object of its fields is needed"),
        (
            {"training": {"epoch": 3}},
            r"training has no field 'epoch'\. Did you mean epochs\? It has: samples, loss, frozen.*\.$",
        ),
        ({"preparation": {"size": 64}}, "preparation='' is unknown; choose one of: 'sagittal-cube', 'axial-slices'"),
        ({"preparation": {"name": "sagittal-cube", "pixel_mm": 1}}, "preparation has no field 'pixel_mm'"),
        ({"preparation": {"name": ["x"]}}, r"preparation=\['x'\] is unknown"),
        ({"network": {"name": "small-unet"}}, r"'small-unet' is unknown; .*\. If .* import that program first.*Python"),
        ({"trainin": {}}, "no field 'trainin'"),
        ({"training": {"epochs": [3]}}, r"epochs=\[3\]: a whole number"),
        ({"training": {"epochs": True}}, "epochs=True: a whole number"),
        ({"training": {"epochs": 10**400}}, "epochs=10+: a whole number"),
        ({"training": {"learning_rate": True}}, "learning_rate=True: a finite number"),
        ({"training": {"frozen": [None]}}, "frozen=None: text"),
        ({"name": ["x"]}, r"name=\['x'\]: text"),
    ],
)
def test_a_damaged_recipe_of_format_2_is_refused_with_a_sentence(content, sentence):
    with pytest.raises(RecipeError, match=sentence):
        Recipe.from_json({"format": 2, "name": "x"} | content)


@pytest.mark.parametrize("grid", [["sagittal-cube"], {}, None, True])
def test_a_choice_of_format_1_that_is_no_name_is_refused_with_a_sentence(grid):
    with pytest.raises(RecipeError, match=r"grid=.* is unknown; choose one of"):
        Recipe.from_json({"name": "x", "grid": grid})


def test_an_unknown_field_of_format_1_is_refused():
    with pytest.raises(RecipeError, match="a recipe of format 1 has no field 'epoch'"):
        Recipe.from_json({"name": "x", "epoch": 3})


def test_fields_are_read_and_changed_by_their_name_alone_or_with_their_sections():
    assert MODERN.crop == MODERN.training.samples.crop == 128 and MODERN.name == "modern"
    assert PAPER.changed(**{"training.epochs": 8}) == PAPER.changed(epochs=8) == PAPER.with_settings(["epochs=8"])
    assert PAPER.with_settings(["training.samples.shuffle=every epoch"]).shuffle == "every epoch"
    assert not hasattr(PAPER, "crop") and not hasattr(PAPER, "epoch")


def test_another_variant_keeps_the_fields_that_both_have():
    recipe = PAPER.changed(size=64, grey_levels="median").with_settings(
        ["pixel_mm=2", "samples=crops", "preparation=axial-slices", "monitor=last", "crop=32"]
    )
    assert recipe.preparation.to_json() == AxialSlices(size=64, grey_levels="median", pixel_mm=2).to_json()
    assert recipe.sample == (16, 32, 32, 3) and recipe.window == (16, 64, 64, 3)
    assert PAPER.changed(preparation=SagittalCube(size=32)).size == 32
    albunet = PAPER.changed(network="albunet", depth_layers="false")
    assert albunet.network == AlbuNetSettings(depth_layers=False) and "decoder_filters" not in albunet.leaves()
    with pytest.raises(RecipeError, match="depth_layers='maybe': true or false is needed"):
        albunet.changed(depth_layers="maybe")


def test_settings_are_read_as_their_field_s_type():
    recipe = PAPER.with_settings(["epochs=8", "learning_rate=1e-4", "frozen=encoder, up9", "decoder_filters=8,6,4,2"])
    assert (recipe.epochs, recipe.learning_rate) == (8, 1e-4)
    assert (recipe.frozen, recipe.decoder_filters) == (("encoder", "up9"), (8, 6, 4, 2))
    assert PAPER.with_settings(["frozen="]).frozen == ()


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("epochs", "field=value"),
        ("epoch=3", "no field 'epoch'. Did you mean training.epochs. 'paper' has: name, preparation, preparation.size"),
        ("grid=slices", "The field 'grid' was replaced; set preparation=sagittal-cube or axial-slices"),
        ("preparation=slices", "preparation='slices' is unknown; choose one of: 'sagittal-cube', 'axial-slices'"),
        ("preparation=axial-slices", "'axial-slices', scans differ in their number of slices"),
        ("validation=none", "there is no val_loss; choose a validation, or monitor='last'"),
        ("samples=crops", "without validation there is no val_loss"),
        ("watched=val_dice", "there is no val_dice; choose a validation, or watched='loss'"),
        ("watched=val_los", "watched='val_los' is unknown; choose one of: 'loss', 'dice', 'val_loss', 'val_dice'"),
        ("self=3", "no field 'self'"),
        ("crop=64", "no field 'crop'.*samples=crops has it"),
        ("network=resunet", "network='resunet' is unknown"),
        ("epochs=8.5", "a whole number"),
        ("epochs=0", "greater than 0"),
        ("learning_rate=nan", "a finite number"),
        ("learning_rate=inf", "a finite number"),
        ("monitor=val", "'loss', 'dice', 'val_loss', 'val_dice', 'last'"),
        ("size=100", "multiple of 16"),
        ("stride=7", "must be even"),
        ("stride=18", "at most the depth"),
        ("size=0", "multiple of 16, at least 16"),
        ("decoder_filters=8,6,0,2", "numbers greater than 0 are needed, one for each level"),
        ("encoder_depth=-1", "an odd number of slices, at least 1"),
        ("beta_2=1", "beta_2 is 1.0, but at least 0 and less than 1 is needed"),
        ("output_prior=1", "greater than 0 and less than 1"),
        ("seed=4294967296", "seed is 4294967296, but a seed from 0 to 4294967295 is needed"),
        ("spline_order=6", "from 0 to 5"),
        ("threshold=300", "threshold is 300.0, but a threshold from 0 to 256 is needed"),
        ("threshold=-1", "from 0 to 256"),
        ("learning_rate=1e300", "learning_rate='1e300': 0, or a size from 1.2e-38 to 3.4e.38 is needed"),
        ("epsilon=1e-320", "or a size from 1.2e-38"),
        ("size=2048", "size is 2048, but 16 to 1024 is plausible"),
        ("depth=514", "depth is 514, but 1 to 512 is plausible"),
    ],
)
def test_impossible_settings_are_refused_with_a_sentence(setting, sentence):
    with pytest.raises(RecipeError, match=sentence):
        (WITHOUT_VALIDATION if "watched" in setting else PAPER).with_settings([setting])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"training": {"epochs": 1}, "training": {"seed": 1}}', "'training' occurs twice in one object"),
        (f'{{"epochs": 1{5000 * "0"}}}', "Exceeds the limit"),
        (100_000 * "[", "nested too deeply"),
    ],
)
def test_a_file_that_json_does_not_allow_or_python_does_not_read_is_refused(text, sentence, tmp_path):
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(RecipeError, match=rf"mine\.json is not a recipe: .*{sentence}"):
        find_recipe(str(tmp_path / "mine.json"))
    with pytest.raises(RunError, match=rf"mine\.json is not readable as JSON .*{sentence}"):
        read_json(tmp_path / "mine.json")


def test_unknown_names_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="paper, released, modern, demo"):
        find_recipe("papier")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(RecipeError, match="not JSON"):
        find_recipe(str(tmp_path / "bad.json"))
    for content in ("[1]", "3", '{"epochs": 3}'):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(RecipeError, match=r"other\.json is not a recipe: a JSON object with at least 'name'"):
            find_recipe(str(tmp_path / "other.json"))
    (tmp_path / "list.json").write_text('{"name": ["x"]}')
    with pytest.raises(RecipeError, match=r"list\.json: .*name=\['x'\]: text is needed"):
        find_recipe(str(tmp_path / "list.json"))
    for content in ({"epoch": 3}, {"format": 2, "epoch": 3}, {"format": 2, "training": {"epoch": 3}}):
        (tmp_path / "mine.json").write_text(json.dumps({"name": "mine"} | content))
        with pytest.raises(RecipeError, match=r"mine\.json: .* no field 'epoch'"):
            find_recipe(str(tmp_path / "mine.json"))
    with pytest.raises(RecipeError):
        Recipe("x", tiles=DepthWindows(stride=24))
    with pytest.raises(RecipeError, match="a share from 0 to 1"):
        MODERN.changed(lesion_share=1.5)
    with pytest.raises(RecipeError, match=r"slice_mm is 60\.0, but 0\.2 to 50"):
        MODERN.changed(slice_mm=60)
    with pytest.raises(RecipeError, match="24×256×256 voxels, but planar-resunet needs a multiple of 16 along depth"):
        describe_network(PAPER.changed(depth=24))
