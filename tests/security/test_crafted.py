"""Files made to do harm are refused by a sentence, and nothing in them runs."""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from security.crafted import ATTACKS, NEED_TRIAL, hdf5, one_array_often
from security.fuzz_weights import write_seeds

from planar3d.errors import WeightsError
from planar3d.transfer import published_models, rehearsal
from planar3d.transfer.array_files import read_directly
from planar3d.transfer.digests import file_sha256
from planar3d.transfer.published_models import PublishedModel
from planar3d.transfer.rehearsal import read_arrays


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """The user's cache, empty."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.mark.parametrize("attack", [name for name in ATTACKS if name not in NEED_TRIAL])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_crafted_file_is_refused_and_nothing_in_it_runs(tmp_path, attack):
    if attack.endswith(".onnx"):
        pytest.importorskip("onnx")
    make, sentence = ATTACKS[attack]
    path = tmp_path / "in" / "folders" / attack
    path.parent.mkdir(parents=True)
    make(path)
    with pytest.raises(WeightsError, match=sentence):
        read_directly(path)
    # Neither a mark of code that ran, which would lie beside the file, nor anything that climbed out of an archive.
    assert [p for p in tmp_path.rglob("*") if not p.is_dir()] == [path]


def test_a_file_that_would_fill_the_memory_is_stopped_in_another_process(tmp_path):
    hdf5(tmp_path / "aliases.h5", one_array_often)
    with pytest.raises(WeightsError, match=r"aliases\.h5 cannot be read as weights"):
        read_arrays(tmp_path / "aliases.h5")


def test_an_honest_file_passes_the_trial_and_is_tried_again_once_it_changed(tmp_path):
    path = tmp_path / "honest.weights.h5"
    hdf5(path)
    assert list(read_arrays(path)) == ["block1_conv1/kernel"]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="cannot be read"):
        read_arrays(path)


def test_a_damaged_file_whose_path_is_no_text_is_refused_by_a_sentence(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.h5"))
    try:
        path.write_bytes(b"\x89HDF\r\n\x1a\n")
    except OSError:
        pytest.skip("names of files are text here")
    with pytest.raises(WeightsError, match=r"\.h5 cannot be read as weights \(OSError"):
        read_arrays(path)


@pytest.mark.parametrize("folder", ["", "with:colon"])
def test_the_other_process_imports_the_package_from_where_this_one_did(tmp_path, folder):
    here, path = tmp_path / folder, tmp_path / "honest.h5"
    here.mkdir(exist_ok=True)
    (here / "planar3d").symlink_to(Path(rehearsal.__file__).parents[1])
    hdf5(path)
    program = (
        f"import sys; sys.path.insert(0, {folder and str(here)!r})\n"
        "from planar3d.transfer.rehearsal import read_arrays\n"
        f"import os; os.chdir(os.pardir); read_arrays(__import__('pathlib').Path({str(path)!r}))"
    )
    # Without this environment's links to the package, but with the packages of the environment.
    environment = os.environ | {"PYTHONPATH": sysconfig.get_path("purelib")}
    subprocess.run([sys._base_executable, "-c", program], cwd=here, env=environment, check=True)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes are stopped by a signal")
def test_the_time_in_which_a_job_is_suspended_is_not_the_trials(tmp_path):
    hdf5(tmp_path / "honest.h5")
    program = (
        "import pathlib, sys, planar3d.transfer.rehearsal as trial; trial._PATIENCE, trial._SECONDS = 1, 2;"
        "sys.addaudithook(lambda event, _: event == 'subprocess.Popen' and print(trial._SECONDS, flush=True));"
        "trial.rehearse(pathlib.Path('honest.h5'))"
    )
    command, here = [sys.executable, "-c", program], os.pathsep.join(sys.path)
    environment = os.environ | {"PYTHONPATH": here}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, start_new_session=True
    ) as job:
        limit = int(job.stdout.readline())
        time.sleep(0.1)
        os.killpg(job.pid, signal.SIGSTOP)
        time.sleep(limit + 1)
        os.killpg(job.pid, signal.SIGCONT)
        assert job.wait() == 0


def test_mutated_files_of_every_format_end_in_arrays_or_in_an_error(tmp_path):
    write_seeds(tmp_path)
    command = [sys.executable, Path(__file__).with_name("fuzz_weights.py"), "--files", "15", "--seeds", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert re.search(r"\b[1-9]\d* refused\b", done.stdout) and re.search(r"\b[1-9]\d* arrays\b", done.stdout)


@pytest.fixture
def trials(monkeypatch):
    """The names of the files that are tried from now on."""
    tried = []
    trial = rehearsal._try

    def count(path, nbytes):
        tried.append(path.name)
        trial(path, nbytes)

    monkeypatch.setattr(rehearsal, "_try", count)
    return tried


def _read_anew(path):
    rehearsal._rehearse.cache_clear()
    return list(read_arrays(path))


def test_a_file_that_passed_needs_no_other_trial_wherever_it_is(tmp_path, trials):
    hdf5(tmp_path / "mine.weights.h5")
    first = _read_anew(tmp_path / "mine.weights.h5")
    shutil.copy(tmp_path / "mine.weights.h5", tmp_path / "copy.h5")
    assert _read_anew(tmp_path / "mine.weights.h5") == _read_anew(tmp_path / "copy.h5") == first
    assert trials == ["mine.weights.h5"]


def test_a_new_file_is_hashed_once(tmp_path, trials, monkeypatch):
    hashed = []
    monkeypatch.setattr(rehearsal, "file_sha256", lambda path: hashed.append(path) or file_sha256(path))
    hdf5(tmp_path / "mine.h5")
    _read_anew(tmp_path / "mine.h5")
    assert trials == ["mine.h5"] and len(hashed) == 1


def test_other_readers_and_another_content_are_tried_again(tmp_path, trials, monkeypatch):
    path = tmp_path / "mine.h5"
    hdf5(path)
    _read_anew(path)
    _read_anew(path.rename(tmp_path / "mine.onnx"))  # by its suffix, another reader may take it
    hdf5(path, lambda file: file.attrs.create("note", "altered"))
    _read_anew(path)
    monkeypatch.setattr(rehearsal, "versions", lambda *others: {"h5py": "another"})
    _read_anew(path)
    assert trials == ["mine.h5", "mine.onnx", "mine.h5", "mine.h5"]


@pytest.mark.parametrize("end", [lambda note: note.write_text("{"), lambda note: note.write_text("[" * 10**5)])
def test_a_damaged_note_counts_as_none_and_is_written_again(tmp_path, cache, trials, end):
    hdf5(tmp_path / "mine.h5")
    _read_anew(tmp_path / "mine.h5")
    (note,) = cache.rglob("*.json")
    content = note.read_bytes()
    end(note)
    _read_anew(tmp_path / "mine.h5")
    assert len(trials) == 2 and note.read_bytes() == content


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owner")
def test_a_note_that_another_user_could_have_written_counts_as_none(tmp_path, cache, trials):
    hdf5(tmp_path / "mine.h5")
    _read_anew(tmp_path / "mine.h5")
    (note,) = cache.rglob("*.json")
    note.chmod(0o664)
    _read_anew(tmp_path / "mine.h5")
    if os.geteuid() == 0:
        os.chown(note, 12345, 12345)
        _read_anew(tmp_path / "mine.h5")
    assert len(trials) == 2 + (os.geteuid() == 0)


def test_nothing_is_noted_of_files_that_fail_or_are_exchanged_meanwhile(tmp_path, cache, monkeypatch):
    path, other = tmp_path / "mine.h5", tmp_path / "other.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(WeightsError):
        _read_anew(path)
    hdf5(path)
    hdf5(other, lambda file: file.attrs.create("note", "another"))
    trial = rehearsal._try

    def exchange(path, nbytes):
        os.replace(other, path)
        trial(path, nbytes)

    monkeypatch.setattr(rehearsal, "_try", exchange)
    _read_anew(path)
    assert not [*cache.rglob("*.json")]


def test_without_a_cache_that_can_be_written_every_file_is_tried(tmp_path, monkeypatch, trials):
    hdf5(tmp_path / "mine.h5")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    first = _read_anew(tmp_path / "mine.h5")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: Path("~nobody-of-this-name").expanduser())  # as of a user without a home
    assert _read_anew(tmp_path / "mine.h5") == first and len(trials) == 2


def test_a_published_file_needs_no_trial(tmp_path, monkeypatch):
    path = tmp_path / "published.weights.h5"
    hdf5(path)
    line = PublishedModel(path.name, file_sha256(path), path.stat().st_size, "CC BY 4.0")
    monkeypatch.setattr(published_models, "published_models", lambda: {"published": line})
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it was tried"))
    assert list(read_arrays(path)) == ["block1_conv1/kernel"]
