"""Files are written whole or not at all."""

import errno
import os
import shutil
import unicodedata
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np
import pytest

from planar3d.disk import require_room
from planar3d.errors import RunError
from planar3d.files import (
    file_of,
    folder_written_beside,
    read_json,
    remove_temporaries,
    temporary_folder,
    write_json,
    written_beside,
    written_together,
)
from planar3d.transfer.metadata import RECIPE, write_metadata


@contextmanager
def file_limit(most):
    """Refuse larger files, as at a quota."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError), written_beside(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_written_file_can_be_read_by_others(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"a": 1})
    assert read_json(tmp_path / "new" / "a.json") == {"a": 1}
    (tmp_path / "plain").touch()
    assert (tmp_path / "new" / "a.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_temporary_file_is_written_in_its_place(tmp_path):
    with written_beside(tmp_path / "a.json") as temporary:
        write_json(temporary, {"a": 1})
        assert os.listdir(tmp_path) == [temporary.name] and read_json(temporary) == {"a": 1}
        with pytest.raises(OSError), written_beside(temporary):
            raise OSError("disk full")
        assert temporary.exists()
    assert os.listdir(tmp_path) == ["a.json"]


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(RunError, match=r"a\.json is not readable"):
        read_json(tmp_path / "a.json")


def test_a_full_disk_is_said_of_the_file_that_was_meant(tmp_path, monkeypatch):
    """NumPy's own error for a full disk has neither a number nor a name."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 100, 0))
    with pytest.raises(OSError) as found, written_beside(tmp_path / "voxels.npy"):
        raise OSError("4096 requested and 512 written")
    assert found.value.errno == errno.ENOSPC and found.value.filename == str(tmp_path / "voxels.npy")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded"),
        (OSError(errno.EFBIG, "write failed: time = Sat\n, errno = 27"), "File too large"),
        (OSError("32768 requested and 20352 written"), "32768 requested and 20352 written, as when a quota is used up"),
    ],
)
def test_a_used_up_quota_is_said_of_the_file_that_was_meant(tmp_path, error, reason):
    with pytest.raises(OSError) as found, written_beside(tmp_path / "mask.nii.gz"):
        raise error
    assert found.value.strerror.startswith(reason) and found.value.filename == str(tmp_path / "mask.nii.gz")


def test_weights_beyond_a_limit_are_refused_before_hdf5_writes_them(tmp_path):
    """As beyond a quota, at which HDF5 ends in a segmentation fault: also of what a file has besides its arrays."""
    with file_limit(2**20 + 10_000):
        require_room(tmp_path / "best.weights.h5", 9_000)
        for size in (11_000, 2**20 + 9_000):
            with pytest.raises(OSError) as found:
                require_room(tmp_path / "best.weights.h5", size)
            assert found.value.errno == errno.EFBIG and found.value.filename == str(tmp_path / "best.weights.h5")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("written", [{RECIPE: {"name": "a" * 9_000}}, {}])
def test_metadata_beyond_a_limit_leave_the_weights_file_as_it_was(tmp_path, written):
    """As of `planar3d tune` at a full disk or a quota, which ended in lines of HDF5."""
    path = tmp_path / "best.weights.h5"
    with h5py.File(path, "w") as file:
        file["kernel"] = np.zeros(3)
    before = path.read_bytes()
    description = None if written else ["a" * 9_000]
    with file_limit(len(before) + 100), pytest.raises(OSError) as found, written_beside(path) as temporary:
        temporary.write_bytes(before)
        write_metadata(temporary, written, description)
    assert found.value.errno == errno.EFBIG and file_of(found.value) == str(path)
    assert os.listdir(tmp_path) == [path.name] and path.read_bytes() == before


def test_an_error_names_the_file_that_was_meant_also_in_a_temporary_folder(tmp_path):
    with temporary_folder(tmp_path, "-mask.nii.gz") as folder:
        assert file_of(OSError(13, "denied", str(folder / "sub-1/page.html"))) == str(tmp_path / "sub-1/page.html")
    assert file_of(OSError(13, "denied", str(tmp_path / ".writing-0123abcd-a.csv"))) == str(tmp_path / "a.csv")


def test_an_error_of_a_removed_current_folder_says_so(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError) as found:
        Path("masks").absolute()
    assert file_of(found.value) == "The current folder"


def test_an_error_that_names_no_file_names_the_folder_that_was_meant(tmp_path):
    with pytest.raises(OSError) as raised, folder_written_beside(tmp_path / "onnx"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert raised.value.filename == str(tmp_path / "onnx") and not [*tmp_path.iterdir()]


def test_an_error_names_the_file_that_was_meant_in_another_folder_than_the_temporary_one(tmp_path):
    """Of a data set, the folder of the mask was named twice."""
    picture, mask = tmp_path / "sub-1/figures/a.png", tmp_path / "sub-1/anat/mask.nii.gz"
    with pytest.raises(OSError) as found, written_together(tmp_path, [picture, mask], mask, mask) as temporary:
        (temporary / "sub-1/figures/a.png/none").touch()
    assert file_of(found.value) == str(picture / "none")


@pytest.mark.parametrize("spelled", [str.lower, lambda name: unicodedata.normalize("NFD", name)])
def test_files_written_together_may_be_listed_under_another_spelling(tmp_path, spelled):
    """As macOS' HFS+ and some drivers of Windows' file systems do; the names were not found, with a traceback."""
    record, mask = tmp_path / "Zoë_FLAIR.json", tmp_path / "masks/Zoë_FLAIR_mask.nii.gz"
    with written_together(tmp_path, [record, mask], record, mask) as temporary:
        for path in (record, mask, tmp_path / "masks/other.json"):
            place = temporary / path.relative_to(tmp_path)
            place.with_name(spelled(place.name)).touch()
    found = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(found) == sorted(["other.json", *map(spelled, (record.name, mask.name))])


@pytest.mark.parametrize("creates", ["touch", "mkdir"])
def test_a_signal_that_arrives_while_a_temporary_file_is_created_leaves_none(tmp_path, monkeypatch, creates):
    """Of tables in a folder of masks it was removed only after a kill, not after a signal."""
    create = getattr(Path, creates)

    def interrupted(path, *how, **more):
        create(path, *how, **more)
        raise SystemExit(130)

    monkeypatch.setattr(Path, creates, interrupted)
    with pytest.raises(SystemExit):
        if creates == "touch":
            write_json(tmp_path / "scans.json", [])
        else:
            with temporary_folder(tmp_path):
                pass
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("moved", [0, 1])
def test_a_signal_that_arrives_while_a_folder_is_replaced_leaves_the_old_one(tmp_path, monkeypatch, moved):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    replace, before = os.replace, [*range(moved)]

    def replace_until_the_signal(source, target):
        if not before:
            monkeypatch.undo()
            raise SystemExit
        before.pop()
        replace(source, target)

    with pytest.raises(SystemExit), folder_written_beside(tmp_path / "a") as made:
        (made / "new").touch()
        monkeypatch.setattr(os, "replace", replace_until_the_signal)
    assert [*tmp_path.rglob("*")] == [tmp_path / "a", tmp_path / "a" / "old"]


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_folder_of_a_container_image_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, interrupted):
    """Such a folder cannot be moved; exports and phantoms there could not be replaced."""
    folder, replace, rmtree = tmp_path / "a", os.replace, shutil.rmtree
    folder.mkdir()
    for name in ("old", "older"):
        (folder / name).touch()

    def refuse(source, target):
        if source == folder:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source), None, str(target))
        replace(source, target)

    def stop(path, **how):
        monkeypatch.setattr(shutil, "rmtree", rmtree)
        (folder / "old").unlink()
        raise SystemExit

    monkeypatch.setattr(os, "replace", refuse)
    if interrupted:
        monkeypatch.setattr(shutil, "rmtree", stop)
    with suppress(SystemExit), folder_written_beside(folder) as made:
        (made / "new").touch()
    expected = ["old", "older"] if interrupted else ["new"]
    assert sorted(tmp_path.rglob("*")) == [folder, *(folder / name for name in expected)]


def test_only_what_is_half_written_is_removed_and_only_there(tmp_path):
    for name in (".writing-1-a.json", "a.json", "inner/.writing-2-b.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_temporaries(tmp_path, tmp_path / "not there")
    assert sorted(p.name for p in tmp_path.rglob("*")) == [".writing-2-b.json", "a.json", "inner"]
