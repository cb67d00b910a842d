"""A published network is half the size, loads as float32 everywhere, and carries its recipe and its card."""

import json
import pickle
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from narrow_networks import narrow_networks
from numpy.testing import assert_array_equal

import planar3d as p3
from planar3d import cli
from planar3d.errors import WeightsError
from planar3d.networks import publishing
from planar3d.networks.model_card import summarize_card, write_card
from planar3d.networks.publishing import publish_weights
from planar3d.networks.registry import recipe_network
from planar3d.networks.weights_file import Model, load_network, read_recipe, save_weights
from planar3d.recipes import PAPER
from planar3d.transfer import published_models
from planar3d.transfer.digests import digest_of_all, file_sha256
from planar3d.transfer.published_models import PublishedModel
from planar3d.transfer.rehearsal import read_arrays

SCRIPT = Path(__file__).parents[2] / "experiments/open_model/publish.py"
RECIPE = PAPER.changed(size=32, decoder_filters=(4, 4, 4, 4), bridge_filters=4, threshold=140, epochs=3)
CARD = {
    "name": "ms-flair-open",
    "data": "Nine heads",
    "licence": "CC BY 4.0",
    "attribution": ["Those who scanned", "Those who trained VGG-16"],
    "training": "Three epochs",
    "scores": {"mean Dice | three folds": 0.65432, "sensitivity": 0.7},
    "patients": [{"patient": "A", "dice": 0.5}, {"patient": "B", "dice": 0.75, "note": "few lesions"}],
    "input": "Raw FLAIR scans",
    "limits": ["Not a medical device", "Thin lesions"],
}


def said(**changes):
    return {field: value for field, value in (CARD | changes).items() if value is not None}


@pytest.fixture(scope="module", autouse=True)
def narrow():
    with pytest.MonkeyPatch.context() as patch:
        narrow_networks(patch, 128)
        yield


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return recipe_network(RECIPE)


@pytest.fixture(scope="module")
def published(network, tmp_path_factory):
    return publish_weights(network, tmp_path_factory.mktemp("weights") / "ms-flair-open.weights.h5", RECIPE, CARD)


@pytest.fixture
def by_name(published, monkeypatch, tmp_path):
    """The name stands for the tiny file, whose digest is the table's for this test."""
    line = PublishedModel(published.name, file_sha256(published), published.stat().st_size, "CC BY 4.0")
    monkeypatch.setattr(published_models, "published_models", lambda: {"ms-flair-open": line})
    monkeypatch.setenv("PLANAR3D_WEIGHTS", str(published.parent))
    monkeypatch.chdir(tmp_path)
    return "ms-flair-open"


def rounded(network):
    return [weight.astype(np.float16).astype(np.float32) for weight in network.get_weights()]


def assert_filled(network, expected):
    for variable, values in zip(network.weights, expected, strict=True):
        assert variable.dtype == "float32"
        assert_array_equal(variable, values, err_msg=variable.path)


def test_it_is_stored_in_float16_and_loaded_in_float32(network, published):
    kinds = set()
    with h5py.File(published) as file:
        assert json.loads(file["planar3d_description"][()].tobytes())["name"] == "planar_resunet"
        file["layers"].visititems(lambda name, item: kinds.add(item.dtype) if isinstance(item, h5py.Dataset) else None)
    assert kinds == {np.dtype(np.float16)}
    assert published.stat().st_size < 2.1 * network.count_params()
    assert {array.dtype for array in read_arrays(published).values()} == {np.dtype(np.float32)}
    loaded, recipe = load_network(published)
    assert recipe == RECIPE
    assert_filled(loaded, rounded(network))


def test_keras_itself_loads_it(network, published):
    plain = recipe_network(RECIPE)
    plain.load_weights(published)
    assert_filled(plain, rounded(network))


def test_what_compresses_is_compressed_and_read_as_it_was(network, tmp_path):
    before = [np.array(weight) for weight in network.get_weights()]
    sparse = recipe_network(RECIPE)
    sparse.set_weights([np.zeros_like(weight) for weight in before[:-2]] + before[-2:])
    path = publish_weights(sparse, tmp_path / "ms-flair-open.weights.h5", RECIPE, CARD)
    assert path.stat().st_size < sparse.count_params()
    assert_filled(load_network(path)[0], rounded(sparse))
    again = recipe_network(RECIPE)
    again.load_weights(path)
    assert_filled(again, rounded(sparse))


def test_a_weights_file_gives_the_same_bytes_as_its_network(network, published, tmp_path):
    trained = save_weights(network, tmp_path / "best.weights.h5", RECIPE)
    (tmp_path / ".writing-killed00-ms-flair-open.weights.h5").touch()  # by a process that was killed
    (tmp_path / ".writing-killed01-ms-flair-open.weights.h5").mkdir()
    path = publish_weights(trained, tmp_path / "ms-flair-open.weights.h5", None, CARD)
    assert file_sha256(path) == file_sha256(published) and set(tmp_path.iterdir()) == {trained, path}


def test_nothing_is_written_elsewhere_where_no_later_publication_removes_it(network, published, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    path = publish_weights(network, tmp_path / "ms-flair-open.weights.h5", RECIPE, CARD)
    assert file_sha256(path) == file_sha256(published) and list(tmp_path.iterdir()) == [path]


def test_every_way_of_loading_takes_the_name(network, by_name):
    expected = rounded(network)
    sizes = {"decoder_filters": (4, 4, 4, 4), "bridge_filters": 4}
    assert_filled(p3.PlanarResUNet((16, 32, 32, 3), weights=by_name, **sizes), expected)
    loaded, recipe = load_network(by_name)
    assert recipe == RECIPE == read_recipe(by_name)
    assert_filled(loaded, expected)
    fresh = recipe_network(RECIPE)
    report = p3.load_weights(fresh, by_name, strict=True)
    assert report.file == by_name and not report.unused
    assert_filled(fresh, expected)
    assert Model.open(by_name).card["name"] == by_name


def test_a_damaged_file_is_not_loaded_by_name(by_name, published, monkeypatch, tmp_path):
    (tmp_path / published.name).write_bytes(published.read_bytes()[:-1])
    monkeypatch.setenv("PLANAR3D_WEIGHTS", str(tmp_path))
    for load in (load_network, read_recipe, Model.open, read_arrays):
        with pytest.raises(WeightsError, match="SHA-256"):
            load(by_name)


def test_an_optimizer_is_left_out(network, published, tmp_path):
    trained = recipe_network(RECIPE)
    trained.set_weights(network.get_weights())
    trained.compile("adam", "mse")
    trained.optimizer.build(trained.trainable_variables)
    path = publish_weights(trained, tmp_path / "ms-flair-open.weights.h5", RECIPE, CARD)
    assert file_sha256(path) == file_sha256(published)


@pytest.mark.parametrize("value", [70000.0, np.inf, -np.inf, np.nan])
def test_values_that_float16_cannot_hold_are_refused(value, tmp_path):
    broken = recipe_network(RECIPE)
    broken.get_layer("conv10").bias.assign([value])
    with pytest.raises(WeightsError, match=r"conv10/bias has .*float16 cannot represent"):
        publish_weights(broken, tmp_path / "ms-flair-open.weights.h5", RECIPE, CARD)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "recipe", "card", "sentence"),
    [
        ("other.weights.h5", RECIPE, CARD, "published as ms-flair-open.weights.h5"),
        ("ms-flair-open.h5", RECIPE, CARD, "published as ms-flair-open.weights.h5"),
        ("ms-flair-open.weights.h5", None, CARD, "does not contain its recipe"),
        ("ms-flair-open.weights.h5", RECIPE.changed(bridge_filters=5), CARD, "not the network of the recipe"),
        ("ms-flair-open.weights.h5", RECIPE.changed(encoder_weights="home/vgg.npz"), CARD, "which others do not have"),
        ("ms-flair-open.weights.h5", RECIPE, said(limits=None, data=""), r"lacks data \(.*limits \("),
        ("ms-flair-open.weights.h5", RECIPE, said(threshold=0.5), "must not have threshold: measured fields"),
        ("ms-flair-open.weights.h5", RECIPE, said(training="x" * 60_000), "the limit is 60,000"),
        ("ms-flair-open.weights.h5", RECIPE, ["ms-flair-open"], "is a JSON object"),
    ],
)
def test_what_cannot_be_published_is_refused_and_leaves_nothing(network, tmp_path, name, recipe, card, sentence):
    with pytest.raises(WeightsError, match=sentence):
        publish_weights(network, tmp_path / name, recipe, card)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_too_large_is_refused(network, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "LARGEST_FILE", network.count_params())
    with pytest.raises(WeightsError, match="the limit is"):
        publish_weights(network, tmp_path / "ms-flair-open.weights.h5", RECIPE, CARD)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_hdf5_writes(network, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 100, 0))
    with pytest.raises(OSError, match=r"No space left on device.*ms-flair-open\.weights\.h5"):
        publish_weights(network, tmp_path / "ms-flair-open.weights.h5", RECIPE, CARD)
    assert list(tmp_path.iterdir()) == []


class Trap:
    """Unpickling it raises the alarm."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


def test_a_linked_or_pickled_file_is_refused_under_its_name_as_well(published, monkeypatch, tmp_path):
    linked, pickled = tmp_path / "linked.weights.h5", tmp_path / "pickled.weights.h5"
    linked.write_bytes(published.read_bytes())
    with h5py.File(linked, "a") as file:
        variables = file["layers/conv3d/vars"]
        del variables["0"]
        variables["0"] = h5py.ExternalLink(published, "/layers/conv3d/vars/0")
    pickled.write_bytes(pickle.dumps(Trap()))
    table = {path.name: PublishedModel(path.name, file_sha256(path), 1, "none") for path in (linked, pickled)}
    monkeypatch.setattr(published_models, "published_models", lambda: table)
    monkeypatch.setenv("PLANAR3D_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"layers/conv3d/vars/0 is a link"):
        load_network(linked.name)
    with pytest.raises(WeightsError, match="an unknown format"):
        load_network(pickled.name)
    assert not Trap.sprung


def test_a_card_is_read_as_it_was_said_with_what_was_measured(network, published):
    card = Model.open(published).card
    assert {field: card[field] for field in CARD} == CARD
    assert card["network"]["parameters"] == network.count_params() and card["network"]["windows"] == "16×32×32×3"
    assert card["threshold"] == "140 of 256 (absolute)" and card["versions"]["keras"] == keras.__version__
    names = [name for name, _ in sorted(read_arrays(published).items())]
    values = dict(zip([f"{v.path}" for v in network.weights], rounded(network), strict=True))
    assert set(names) == set(values) and card["weights_sha256"] == digest_of_all(values)


def test_a_file_without_a_card_has_none_and_a_damaged_one_is_refused(network, tmp_path):
    path = tmp_path / "plain.weights.h5"
    network.save_weights(path)
    assert Model.open(path).card is None and summarize_card(None) == []
    with pytest.raises(WeightsError, match="no model card"):
        write_card(path)
    for damaged in ("{", '["a", "list"]', np.arange(3)):
        with h5py.File(path, "a") as file:
            file.attrs["planar3d_card"] = damaged
        with pytest.raises(WeightsError, match=r"plain\.weights\.h5 is damaged"):
            Model.open(path)


def test_a_card_is_summarized_without_characters_that_steer_a_terminal():
    card = {"name": "evil\x1b[2J", "data": "two\nlines", "scores": {"dice\x07": 0.5}, "licence": ["a", "b"]}
    lines = summarize_card(card)
    assert lines == [
        "evil[2J",
        "  Training data: two lines",
        "  Licence:",
        "    a",
        "    b",
        "  Cross-validated scores:",
        "    dice: 0.5",
    ]


def test_the_script_writes_file_card_and_table(network, published, tmp_path, monkeypatch, capsys):
    trained = save_weights(network, tmp_path / "best.weights.h5", RECIPE.changed(threshold=16))
    (tmp_path / "card.json").write_text(json.dumps(CARD))
    (tmp_path / "table.json").write_text(json.dumps({"another": {"file": "another.weights.h5"}}))
    out = tmp_path / "out/ms-flair-open.weights.h5"
    words = ["--weights", trained, "--card", tmp_path / "card.json", "--out", out, "--table", tmp_path / "table.json"]
    monkeypatch.setattr(sys, "argv", ["publish.py", *map(str, words), "--set", "threshold=140"])
    with pytest.raises(SystemExit) as stopped:
        cli.main(runpy.run_path(str(SCRIPT))["publish"])
    assert stopped.value.code == 0
    assert file_sha256(out) == file_sha256(published)
    table = json.loads((tmp_path / "table.json").read_text())
    assert list(table) == ["another", "ms-flair-open"]
    line = PublishedModel(**table["ms-flair-open"])
    assert line == PublishedModel(out.name, file_sha256(out), out.stat().st_size, "CC BY 4.0")
    assert line.sha256 in capsys.readouterr().out
    page = (out.parent / "ms-flair-open.md").read_text()
    for part in (
        line.sha256,
        "- Not a medical device",
        r"| mean Dice \| three folds | 0.6543 |",
        "| B | 0.75 | few lesions |",
    ):
        assert part in page, part
    assert "## Limits" in page and page.index("## Limits") < page.index("## Patients") < page.index("## Network")


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setattr(published_models, "TABLE", tmp_path / "table.json")
    yield tmp_path / "table.json"
    published_models.published_models.cache_clear()


def test_what_was_measured_is_kept_when_the_same_weights_are_published_again(network, table, tmp_path, monkeypatch):
    trained = save_weights(network, tmp_path / "best.weights.h5", RECIPE)
    out = tmp_path / "ms-flair-open.weights.h5"

    def published_again(**changes):
        settings = [
            word for name, value in changes.pop("settings", {}).items() for word in ("--set", f"{name}={value}")
        ]
        (tmp_path / "card.json").write_text(json.dumps(CARD | changes))
        words = ["--weights", trained, "--card", tmp_path / "card.json", "--out", out, "--table", table, *settings]
        monkeypatch.setattr(sys, "argv", ["publish.py", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main(runpy.run_path(str(SCRIPT))["publish"])
        assert stopped.value.code == 0
        lines = json.loads(table.read_text())
        return lines, lines["ms-flair-open"]

    lines, line = published_again()
    measured = {"card": {"agreement": [{"least": 0.99}]}, "installed": False}
    table.write_text(json.dumps({**lines, "ms-flair-open": {**line, **measured, "release": "zenodo:1"}}))
    assert published_again()[1] == {**line, **measured, "release": "zenodo:1"}
    again = published_again(limits="Thin lesions, small lesions")[1]
    assert {name: again.get(name) for name in (*measured, "release")} == {**measured, "release": None}
    assert "## Agreement" in (tmp_path / "ms-flair-open.md").read_text()
    assert published_again(settings={"threshold": 16})[1].keys() == line.keys()


def test_a_card_with_a_field_twice_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "card.json").write_text('{"limits": "thin lesions", "limits": "none"}')
    words = ["--weights", "a.weights.h5", "--card", tmp_path / "card.json", "--out", tmp_path / "mine.weights.h5"]
    monkeypatch.setattr(sys, "argv", ["publish.py", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main(runpy.run_path(str(SCRIPT))["publish"])
    assert stopped.value.code == 2 and "'limits' occurs twice in one object" in capsys.readouterr().err
