"""A published model is found by its name, in a fixed order of places, and is what its digest says."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from planar3d.errors import WeightsError
from planar3d.transfer import published_models as module
from planar3d.transfer.digests import file_sha256
from planar3d.transfer.published_models import PublishedModel, find_model, published_models
from planar3d.transfer.rehearsal import read_arrays

FILE = "tiny.weights.h5"
CONTENT = b"the published arrays"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The five places, in their order, all empty; the release is a folder."""
    found = {name: tmp_path / name for name in ("named", "installed", "checkout", "cache/planar3d", "release")}
    for folder in found.values():
        folder.mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PLANAR3D_WEIGHTS", str(found["named"]))
    monkeypatch.setattr(module, "_INSTALLED", found["installed"])
    monkeypatch.setattr(module, "_CHECKOUT", found["checkout"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PLANAR3D_RELEASE", found["release"].as_uri())
    monkeypatch.delenv("PLANAR3D_OFFLINE", raising=False)
    return list(found.values())


@pytest.fixture
def table(monkeypatch):
    models = {"tiny": PublishedModel(FILE, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), "CC BY 4.0")}
    monkeypatch.setattr(module, "published_models", lambda: models)
    return models


def test_the_places_are_looked_at_in_their_order(places, table):
    for folder in places:
        (folder / FILE).write_bytes(CONTENT)
    for folder in places[:-1]:
        assert find_model("tiny") == folder / FILE
        (folder / FILE).unlink()
    cached = places[-2] / FILE
    assert find_model("tiny") == cached and cached.read_bytes() == CONTENT
    (places[-1] / FILE).unlink()
    assert find_model("tiny") == cached
    assert list(places[-2].iterdir()) == [cached]


def test_a_file_comes_first_and_is_taken_as_it_is(places, table):
    (places[0] / FILE).write_bytes(CONTENT)
    Path("tiny").write_bytes(b"the user's own")
    assert find_model("tiny") == Path("tiny")
    assert find_model(places[0] / FILE) == places[0] / FILE


def test_a_folder_of_the_same_name_does_not_hide_a_model(places, table):
    (places[0] / FILE).write_bytes(CONTENT)
    Path("tiny").mkdir()  # as of masks of that model
    assert find_model("tiny") == places[0] / FILE
    Path("small").mkdir()
    with pytest.raises(WeightsError, match="small is a folder or device, not a file"):
        find_model("small")


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_file_of_another_digest_is_refused(places, table, place):
    path = places[place] / FILE
    path.write_bytes(CONTENT + b"!")
    with pytest.raises(WeightsError) as error:
        find_model("tiny")
    for part in (str(path), file_sha256(path), table["tiny"].sha256, "get it again"):
        assert part in str(error.value)
    assert path.read_bytes() == CONTENT + b"!"


def test_a_download_of_another_digest_is_refused_and_not_kept(places, table):
    (places[-1] / FILE).write_bytes(b"something else")
    with pytest.raises(WeightsError) as error:
        find_model("tiny")
    for part in (hashlib.sha256(b"something else").hexdigest(), table["tiny"].sha256, str(places[-2]), FILE):
        assert part in str(error.value)
    assert list(places[-2].iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("PLANAR3D_RELEASE", "", "neither PLANAR3D_RELEASE nor the table"),
        ("PLANAR3D_OFFLINE", "1", "PLANAR3D_OFFLINE disables the download"),
        ("PLANAR3D_OFFLINE", "0", "could not be downloaded"),
    ],
)
def test_a_model_that_is_nowhere_is_an_error_that_says_where_to_put_it(
    places, table, monkeypatch, variable, value, reason
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(WeightsError, match=f"tiny is not on this machine.*{reason}") as error:
        find_model("tiny")
    for part in (FILE, str(places[-2]), "PLANAR3D_WEIGHTS"):
        assert part in str(error.value)


def test_the_table_says_where_a_released_model_lies(places, table, monkeypatch):
    (places[-1] / FILE).write_bytes(CONTENT)
    monkeypatch.delenv("PLANAR3D_RELEASE")
    table["tiny"] = replace(table["tiny"], release=places[-1].as_uri() + "/")
    assert find_model("tiny") == places[-2] / FILE


@pytest.mark.parametrize(
    ("release", "address"),
    [
        ("zenodo:1234567", "https://zenodo.org/records/1234567/files"),
        ("huggingface:group/models@v2", "https://huggingface.co/group/models/resolve/v2"),
        ("huggingface:group/models", "https://huggingface.co/group/models/resolve/main"),
        ("https://example.org/models/", "https://example.org/models"),
    ],
)
def test_a_release_has_a_short_form(release, address):
    assert module._address(release) == address


def test_without_a_cache_that_can_be_written_the_error_says_so(places, table):
    (places[-1] / FILE).write_bytes(CONTENT)
    places[-2].rmdir()
    places[-2].parent.rmdir()
    places[-2].parent.write_bytes(b"a file in the way")
    with pytest.raises(WeightsError, match="could not be downloaded"):
        find_model("tiny")


@pytest.mark.parametrize("name", ["smal", "", "../tiny", "absent.weights.h5"])
def test_any_other_name_is_an_error_that_lists_the_published_ones(places, table, name):
    with pytest.raises(WeightsError, match=r"does not exist; name a weights file, or a published model: tiny"):
        find_model(name)
    with pytest.raises(WeightsError, match="a published model: tiny"):
        read_arrays(Path(name, "absent.h5"))


def test_the_open_model_is_in_the_table_and_in_the_checkout_it_is_the_right_one(monkeypatch):
    published = published_models()["ms-flair-open"]
    assert published.file == "ms-flair-open.weights.h5"
    monkeypatch.delenv("PLANAR3D_WEIGHTS", raising=False)
    path = module._CHECKOUT / published.file
    if not path.is_file():
        pytest.skip("this checkout does not hold the open model")
    assert find_model("ms-flair-open") == path
    assert file_sha256(path) == published.sha256
    assert path.stat().st_size == published.bytes <= 50_000_000


def test_finding_a_file_loads_no_keras():
    code = "import sys; from planar3d.transfer import published_models as m; m.published_models()"
    code += "; print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
