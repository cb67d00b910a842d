"""A weights file says what it is, and one that does not fit is refused in the user's words."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import keras
import narrow_encoder
import numpy as np
import pytest
from challenge_road import recipe_of, with_tiny
from flat_networks import assert_same

from planar3d.commands.options import open_model
from planar3d.errors import WeightsError
from planar3d.inference.slicewise import slicewise
from planar3d.networks.model_card import card_markdown, training_card, write_card
from planar3d.networks.registry import ARCHITECTURES, build_network, recipe_network
from planar3d.networks.vgg16 import PlanarVGG16
from planar3d.networks.weights_file import Model, load_network, read_recipe, save_weights
from planar3d.recipes import MODERN, PAPER, RELEASED
from planar3d.scans.folds import Fold
from planar3d.training.precision import in_precision
from planar3d.transfer.digests import file_sha256
from planar3d.transfer.published_models import find_model
from planar3d.transfer.rehearsal import trust

FORMAT_1 = json.loads((Path(__file__).parents[1] / "format_1_recipes.json").read_text())
FEW = {"encoder": narrow_encoder.NAME, "decoder_filters": (4, 4), "bridge_filters": 4}
RECIPE = PAPER.changed(size=32, threshold=140, **FEW)
FOLD = Fold(train=("a", "b"), validation=("c",), test=("d",))
DATA = {"folder": "/home/someone/heads", "layout": "bids", "phantom": False}
pytestmark = pytest.mark.usefixtures("module_narrow")


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return recipe_network(RECIPE)


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "best.weights.h5"
    return save_weights(network, path, RECIPE, training_card(RECIPE, DATA, FOLD, 1, 3))


@pytest.fixture
def trained(saved, tmp_path):
    """A copy that a test may change, as if this process had written it."""
    path = Path(shutil.copy(saved, tmp_path))
    trust(path, path)
    return path


def change(path, name, value):
    with h5py.File(path, "a") as file:
        file.attrs[name] = value if isinstance(value, str) else json.dumps(value)
    trust(path, path)
    return path


def test_training_says_what_is_known_and_that_the_rest_is_not_stated(trained, network):
    card = Model.open(trained).card
    assert card["name"] == "paper, fold 1 of 3"
    assert card["data"] == {
        "data set": "heads",
        "layout": "bids",
        "scans that train": 2,
        "scans that validate": 1,
        "scans": "a, b, c",
    }
    for recipe in (MODERN, RELEASED):  # of crops, and validated on windows of all scans
        data = training_card(recipe, DATA, FOLD, 1, 3)["data"]
        assert (data["scans that train"], data["scans that validate"]) == (3, 0)
    assert card["licence"] == "not stated" and "VGG-16" in card["attribution"][0]
    assert card["threshold"] == "140 of 256 (absolute)" and "cube of 32 voxels" in card["input"][1]
    assert card["network"]["parameters"] == network.count_params()
    page = write_card(trained).read_text()
    for part in ("# paper, fold 1 of 3", "--model best.weights.h5", file_sha256(trained), "not a medical device"):
        assert part in page, part
    assert "someone" not in page


def test_a_file_is_rehearsed_by_those_who_did_not_write_it_and_once_it_changed(network, tmp_path, monkeypatch):
    trained = save_weights(network, tmp_path / "best.weights.h5", RECIPE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tried = []
    sys.addaudithook(lambda event, _: event == "subprocess.Popen" and tried.append(event))
    Model.open(trained)
    assert not tried
    Model.open(shutil.copy(trained, tmp_path / "copy.weights.h5"))
    assert len(tried) == 1
    with h5py.File(trained, "a") as file:
        file.attrs["note"] = "changed"
    Model.open(trained)
    assert len(tried) == 2


def test_weights_are_read_where_files_cannot_be_locked(trained, network, tmp_path):
    """As on some network drives; here another program holds the file."""
    fcntl = pytest.importorskip("fcntl")
    copy = Path(shutil.copy(trained, tmp_path / "copy.weights.h5"))
    with copy.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert Model.open(copy).network().count_params() == network.count_params()


def test_they_are_also_where_a_session_loaded_hdf5_before_the_package(tmp_path):
    """HDF5 reads only once whether it is to lock."""
    pytest.importorskip("fcntl")
    copy = Path(shutil.copy(find_model("ms-flair-open"), tmp_path / "copy.weights.h5"))
    script = f"""if True:
        import fcntl, h5py
        from planar3d.networks.weights_file import Model
        from planar3d.transfer.metadata import write_metadata
        with open({str(copy)!r}, "rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            model = Model.open({str(copy)!r})
            print(len(model._arrays()))
            write_metadata(model.path, {{}})
    """
    environment = {name: value for name, value in os.environ.items() if name != "HDF5_USE_FILE_LOCKING"}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert int(ended.stdout) > 0 and ended.returncode == 0, ended.stderr


def test_an_open_model_stays_open_in_another_folder(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained.parent)
    model = Model.open(trained.name)
    monkeypatch.chdir(tmp_path)
    assert model.description().layers and model == Model.open(trained)


def test_the_same_weights_make_the_same_card(network, tmp_path):
    cards = [Model.open(save_weights(network, tmp_path / f"{n}.weights.h5", RECIPE)).card for n in (1, 2)]
    assert cards[0] == cards[1]


def test_a_card_of_thousands_of_scans_is_still_written(network, tmp_path):
    fold = Fold(tuple(f"sub-{n:06d}_ses-01_FLAIR" for n in range(5000)), (), ())
    card = training_card(RECIPE, DATA, fold, 1, 1)
    path = save_weights(network, tmp_path / "large.weights.h5", RECIPE, card)
    assert Model.open(path).card["data"]["scans that train"] == 5000
    assert Model.open(path).card["data"]["scans"].endswith("and 4800 more")


def test_a_model_is_described_for_what_it_makes(trained):
    found = Model.open(trained).describe()
    assert found["name"] == "paper, fold 1 of 3" and found["sha256"] == file_sha256(trained)
    assert found["licence"] == "not stated" and found["threshold"] == 140.0 and found["whole_head"] is True
    assert found["limits"][0] == "Research software, not a medical device."


def test_a_model_used_unlike_it_was_trained_or_without_a_recipe_says_so(trained):
    assert Model.open(trained).cautions == Model.open(trained, RECIPE.changed(threshold=99)).cautions == []
    smaller = Model.open(trained, RECIPE.changed(size=16))
    assert smaller.cautions == [
        "best.weights.h5 was trained with preparation.size=32, but is used with preparation.size=16; its accuracy with "
        "that is unknown."
    ]
    assert smaller.describe()["limits"][-1:] == smaller.cautions
    with h5py.File(trained, "a") as file:
        del file.attrs["planar3d_recipe"]
    trust(trained, trained)
    (sentence,) = Model.open(trained).cautions
    assert sentence.startswith("best.weights.h5 has no recipe; it is used with the recipe paper.")
    assert open_model(str(trained), None, ["threshold=32"]).cautions == [sentence]
    assert open_model(str(trained), "paper", ["threshold=32"]).cautions == []
    assert Model.open(Model.open(trained)).cautions == [sentence] and Model.open(trained, PAPER).cautions == []
    assert Model.open(trained, MODERN).cautions == []


def test_a_model_says_what_it_was_measured_on_as_far_as_that_is_sound(trained):
    sound = {"false_alarms_ml": 0.4, "spacing_mm": [0.9, 8.1], "extracted": [True]}
    card = Model.open(trained).card
    change(trained, "planar3d_card", card | {"measured": sound | {"more": 1}})
    assert Model.open(trained).describe()["measured"] == sound
    for name, wrong in (("false_alarms_ml", [1]), ("spacing_mm", 4), ("extracted", "yes")):
        change(trained, "planar3d_card", card | {"measured": sound | {name: wrong}})
        assert Model.open(trained).describe()["measured"] == {k: v for k, v in sound.items() if k != name}


def test_a_network_trained_on_extracted_brains_as_well_takes_both_unless_its_card_says_otherwise(network, tmp_path):
    recipe = MODERN.changed(size=32, crop=32, **FEW)
    path = save_weights(network, tmp_path / "both.weights.h5", recipe)
    assert Model.open(path).describe()["whole_head"] is None
    assert Model.open(path).card["input"][0].startswith("One raw FLAIR scan of a whole head or extracted brain")
    for said in (True, False, None):
        change(path, "planar3d_card", Model.open(path).card | {"whole_head": said})
        assert Model.open(path).describe()["whole_head"] is said


def test_a_network_for_images_with_zeros_around_the_brain_takes_both(tmp_path):
    recipe = RECIPE.changed(preparation="center-crop", images=("flair",), crop=(16, 32, 32))
    found = Model.open(save_weights(recipe_network(recipe), tmp_path / "brains.weights.h5", recipe))
    assert found.describe()["whole_head"] is None
    assert found.card["input"][0].startswith("One raw FLAIR scan of a whole head or extracted brain")


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (("flair",), ("One raw FLAIR scan", "predict scan.nii.gz --model", 'segment("scan.nii.gz", "')),
        (("t1w",), ("- Images of a case: t1w; NIfTI", "predict scan.nii.gz --model", 'segment("scan.nii.gz", "')),
        (
            ("t1", "t1 gd"),
            (
                "- Images of a case: t1, t1 gd; NIfTI",
                "--image t1=t1.nii.gz --image 't1 gd=t1 gd.nii.gz' --model 'mine 1.weights.h5'",
                'segment({"t1": "t1.nii.gz", "t1 gd": "t1 gd.nii.gz"}, "mine 1.weights.h5")',
            ),
        ),
    ],
)
def test_a_card_names_the_images_that_the_network_needs_and_how_they_are_given(monkeypatch, tmp_path, images, expected):
    recipe = with_tiny(monkeypatch, recipe_of(images, ("grey=1", "white=2")))
    page = card_markdown(save_weights(recipe_network(recipe), tmp_path / "mine 1.weights.h5", recipe, {}))
    assert [part for part in expected if part not in page] == []
    assert ("FLAIR" in page.partition("## Recipe")[0]) is (images == ("flair",))


def test_a_card_steers_no_terminal_and_begins_no_html(trained):
    card = Model.open(trained).card | {
        "name": "evil\x1b[2J",
        "limits": ["<script>alert(1)</script>\x07"],
        "whole_head": False,
    }
    change(trained, "planar3d_card", card)
    page, found = card_markdown(trained), Model.open(trained).describe()
    assert "<" not in page and "\x1b" not in page and "\x07" not in page
    assert found["name"] == "evil[2J" and found["whole_head"] is False


def _drawn(*_, **__):
    raise AssertionError("random weights were drawn")


@pytest.mark.parametrize(
    "make",
    [
        lambda network, file: load_network(file)[0],
        lambda network, file: build_network("planar-resunet", RECIPE.window, weights=file, **FEW),
        lambda network, file: in_precision(network, "bf16"),
        lambda network, file: slicewise(network),
    ],
    ids=["load_network", "build_network", "in_precision", "slicewise"],
)
def test_no_random_weights_are_drawn_where_weights_follow(network, trained, monkeypatch, make):
    # JAX compiles each shape that is drawn, for half a minute of processor time in the published model.
    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", _drawn)
    made = make(network, trained)
    for found, expected in zip(made.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert made.get_layer("conv10").kernel_initializer.__class__ is keras.initializers.GlorotUniform


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path, value):
    broken = recipe_network(RECIPE)
    broken.get_layer("conv10").bias.assign([value])
    broken.save_weights(tmp_path / "broken.weights.h5")
    with pytest.raises(WeightsError, match=r"conv10/bias has values that are not finite"):
        load_network(tmp_path / "broken.weights.h5", RECIPE)


def test_arrays_that_are_not_the_cards_are_refused(trained):
    with h5py.File(trained, "a") as file:
        file["layers/conv3d/vars/0"][0, 0, 0, 0, 0] += 1e-3
    with pytest.raises(WeightsError, match=r"best\.weights\.h5 is damaged or was altered"):
        load_network(trained)


def classifier():
    layers = keras.layers
    return keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2)])


def another():
    inputs = keras.Input((16, 16, 16, 3))
    return keras.Model(inputs, keras.layers.Conv3D(2, 3, name="enc1")(inputs))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: PlanarVGG16((16, 32, 32, 3), weights=None),
            "planar_resunet lacks .*conv51.*Weights of an encoder only initialize",
        ),
        (classifier, "Nothing matched: .*conv2d"),
        (another, "has another network: .*trained with .--recipe, or --set decoder_filters"),
        (
            lambda: recipe_network(RECIPE.changed(bridge_filters=6)),
            "conv51/kernel .*build it with 6 output channels .*--set for .*bridge_filters",
        ),
        (lambda: recipe_network(RECIPE.changed(decoder_filters=(4, 5))), "trans7/kernel .*build it with 5"),
        (lambda: recipe_network(RECIPE.changed(channels=2)), "block1_conv1/kernel .*build it with 2 input channels"),
    ],
)
def test_weights_of_another_network_are_refused_by_what_they_are(tmp_path, make, sentence):
    path = tmp_path / "other.weights.h5"
    make().save_weights(path)
    with pytest.raises(WeightsError, match=rf"other\.weights\.h5.*{sentence}"):
        load_network(path, RECIPE)


def convolutions(*names):
    """A builder of a network with a nested convolution and the head of `tiny`."""

    def build(input_shape, outputs, activation, weights=None, encoder_weights=None):
        x = inputs = keras.Input(input_shape)
        for outer, name in zip("ab", names, strict=True):
            x = keras.Sequential([keras.layers.Conv3D(2, 3, padding="same", name=name)], name=outer)(x)
        return keras.Model(inputs, keras.layers.Conv3D(outputs, 1, activation=activation, name="head")(x), name="tiny")

    return build


def opened_twice(tmp_path, monkeypatch, names):
    recipe = with_tiny(monkeypatch, recipe_of(("t1",), ("grey=1", "white=2")))
    monkeypatch.setitem(ARCHITECTURES, "tiny", replace(ARCHITECTURES["tiny"], build=convolutions(*names)))
    network = recipe_network(recipe)
    path = save_weights(network, tmp_path / "best.weights.h5", recipe)
    return network, path


def test_nested_layers_are_found_in_the_file(tmp_path, monkeypatch):
    network, path = opened_twice(tmp_path, monkeypatch, ("c", "c"))
    assert_same(load_network(path)[0], network)


def test_layers_without_names_are_refused_with_advice(tmp_path, monkeypatch):
    _, path = opened_twice(tmp_path, monkeypatch, (None, "c"))
    with pytest.raises(WeightsError, match=r"Layers of tiny have no names, .*name the layers"):
        load_network(path)


def _with(section, recipe=RECIPE, **fields):
    content = recipe.to_json()
    own = {} if fields.get("name") else content[section]
    return content | {section: own | fields}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (RECIPE.to_json() | {"wavelets": 3}, r"written by planar3d .*wavelets.*Update"),
        (_with("preparation", size=16 * 10**8), r"size is 1600000000, but 16 to 1024"),
        (_with("preparation", MODERN, slice_mm=1e-9), r"slice_mm is 1e-09, but 0.2 to 50"),
        (_with("tiles", name="patches", shape=[8, 8, 10**6], step=[8, 8, 8]), r"shape is 1000000, but 0 to 1024"),
        (_with("targets", threshold=float("nan")), "recipe cannot be read"),
        (_with("network", decoder_filters=5), "recipe cannot be read"),
        (_with("preparation", size=float("inf")), "recipe cannot be read"),
        (_with("training", samples=3), "recipe cannot be read"),
        (_with("network", name="small-unet"), "'small-unet' is unknown; .* import that program first"),
        ("[" * 40_000, "cannot be read"),
        ("[1]", "damaged"),
    ],
)
def test_a_recipe_that_is_newer_or_absurd_is_refused(trained, content, sentence):
    change(trained, "planar3d_recipe", content)
    with pytest.raises(WeightsError, match=sentence):
        read_recipe(trained)


def test_a_file_from_before_a_field_keeps_the_meaning_it_had(network, tmp_path):
    recipe = MODERN.changed(size=32, crop=32, **FEW)
    path = save_weights(network, tmp_path / "older.weights.h5", recipe)
    assert read_recipe(path) == recipe and recipe.smallest_lesion_mm3 == 20
    flat = {place.rpartition(".")[2]: value for place, value in recipe.leaves().items()}
    older = {name: flat.get(name, value) for name, value in FORMAT_1["modern"].items() if name != "smallest_lesion_mm3"}
    change(path, "planar3d_recipe", older)
    assert read_recipe(path) == load_network(path)[1] == recipe.changed(smallest_lesion_mm3=0, planes="whole")
    change(path, "planar3d_recipe", recipe.to_json() | {"format": 99})
    with pytest.raises(WeightsError, match=r"older\.weights\.h5 .*format 99.*Update"):
        read_recipe(path)


def test_a_recipe_of_ones_own_goes_around_one_that_is_refused(trained):
    change(trained, "planar3d_recipe", RECIPE.to_json() | {"wavelets": 3})
    own = RECIPE.changed(threshold=99)
    network, used = load_network(trained, own)
    assert used == own and network.count_params() == recipe_network(RECIPE).count_params()
    assert Model.open(trained, own).describe()["threshold"] == 99


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"a text", "an unknown format"),
        (None, "is a folder"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS pointer .* with: git -C .* lfs pull"),
        (b"../.git/annex/objects/a/b.h5\n", r"git-annex pointer .* annex get model\.weights\.h5"),
        (b"<!DOCTYPE html><html>", r"it is a web page\. Download the file again"),
        (b'{"message": "Not Found"}', r"it is a JSON text\. Download the file again"),
    ],
)
def test_what_is_no_weights_file_is_refused(tmp_path, content, sentence):
    path = tmp_path / "model.weights.h5"
    path.mkdir() if content is None else path.write_bytes(content)
    for read in (load_network, read_recipe, Model.open):
        with pytest.raises(WeightsError, match=sentence):
            read(path)
