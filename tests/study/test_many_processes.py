"""Any number of processes fill one folder, some die, and the masks are those of one process alone."""

import itertools
import os
import subprocess
import sys

import pytest
from scan_pages import record_of, segmented

from planar3d.errors import RunError
from planar3d.files import read_json, write_json
from planar3d.locks import Claim, Holder
from planar3d.scans.inputs import ScanInput, outputs_of
from planar3d.study.cohort_folder import CohortFolder, takes_part


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Where scans and the masks of one process are kept for all ways of many."""
    return tmp_path_factory.mktemp("work")


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked, and watched by inotify")
@pytest.mark.parametrize("how", ["whole", "cluster"])
def test_three_processes_of_which_one_is_killed_write_what_one_alone_writes(work, how):
    from many_processes import is_right, segment_by_many

    if how == "cluster":
        pytest.importorskip("distributed")
    (found,) = segment_by_many(work, scans=6, processes=3, kills=1, **{how: True})
    assert is_right(found), found


def test_every_scan_has_one_part_whatever_scans_there_are_besides():
    names = [f"sub-{number:03d}" for number in range(200)]
    for of in (1, 3, 20):
        parts = [[name for name in names if takes_part(f"{number}/{of}")(name)] for number in range(1, of + 1)]
        assert sorted(itertools.chain(*parts)) == names and min(map(len, parts)) > 0


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0"])
def test_a_part_that_is_none_is_refused(text):
    with pytest.raises(RunError, match=f"--part {text}"):
        takes_part(text)


@pytest.fixture
def folder(tmp_path):
    """A folder for which five scans are requested, of which one is done, and one cannot be read."""
    folder = CohortFolder(tmp_path / "out")
    items = [ScanInput(name, tmp_path / f"{name}.nii", problem="c is damaged." * (name == "c")) for name in "abcde"]
    requested = {item: outputs_of(item, folder.path) for item in items}
    folder.request(requested)
    (tmp_path / "out/a_mask.nii.gz").touch()
    return folder, requested


def test_a_folder_says_what_is_done_failed_claimed_and_missing(folder, tmp_path):
    folder, requested = folder
    _, b, _, d, e = requested
    claim = folder.claim(requested[b])
    assert isinstance(claim, Claim) and isinstance(folder.claim(requested[b]), Holder) and folder.at_work()
    folder.fail(requested[d], d, "d is 4-D.")
    dead = folder.claim(requested[e])
    content = read_json(dead.path)
    write_json(dead.path, content | {"born": "1"})  # its process' number is another's now
    found = folder.standing()
    assert str(found) == "1 of 5 scans done, 2 failed, 1 claimed, 1 missing"
    assert found.done == [str(tmp_path / "a.nii")]
    assert found.failed == {str(tmp_path / "c.nii"): "c is damaged.", str(tmp_path / "d.nii"): "d is 4-D."}
    assert f"process {os.getpid()} on" in found.claimed[str(tmp_path / "b.nii")]
    assert found.missing[str(tmp_path / "e.nii")].endswith("died while segmenting it")
    halves = [tmp_path / "out/.writing-abcd_123-e_mask.nii.gz"]
    others = [tmp_path / "out/.writing-abcd_123-d-e.json", tmp_path / "out/.writing-abcd_123-b_mask.nii.gz"]
    for path in (*halves, *others):
        path.touch()
    assert isinstance(folder.claim(requested[e]), Claim)
    assert not any(path.exists() for path in halves) and all(path.exists() for path in others)


def test_notes_end_when_all_is_done(folder):
    folder, requested = folder
    folder.close(requested)
    assert str(folder.standing()) == "1 of 5 scans done, 1 failed, 3 missing"
    good = {item: outputs for item, outputs in requested.items() if not item.problem}
    for outputs in good.values():
        outputs.mask.touch()
    again = CohortFolder(folder.path)
    again.request(good)
    again.close(good)
    assert len(list(again.notes.iterdir())) == 1  # that of the scans of which one is damaged


def test_the_last_of_many_removes_claims_of_dead_processes_alone_and_damaged_lists(folder):
    folder, requested = folder
    a, b, _, d, e = requested
    claim = folder.claim(requested[b])
    living = [claim.path, folder.notes / "claim-0.json~"]
    living[1].write_bytes(living[0].read_bytes())  # of a process that takes a claim over
    for item in (d, e):
        dead = folder.claim(requested[item]).path
        write_json(dead, read_json(dead) | {"born": "1"})
    dead.rename(dead.with_name(f"{dead.name}~"))
    (folder.notes / "request-0.json").touch()
    folder.forget([a])
    folder.request({a: requested[a]})
    folder.close(requested)
    assert sorted(folder.notes.glob("claim-*")) == sorted(living) and not (folder.notes / "request-0.json").exists()
    claim.release()


def test_failed_scans_that_were_removed_or_renamed_are_forgotten_unless_they_are_named_again(folder, tmp_path):
    folder, requested = folder
    a, b, _, d, e = requested
    for item in (b, d):
        folder.fail(requested[item], item, "It is damaged.")
    d.path.touch()
    folder.forget([b])
    assert list(folder.standing().failed) == [str(b.path), str(d.path)]  # c is gone; e, which is gone too, did not fail
    d.path.unlink()
    for item in (b, e):
        requested[item].mask.touch()
    folder.succeed(requested[b])
    folder.forget([a])
    assert not folder.notes.exists() or not any(folder.notes.iterdir())


def test_a_folder_that_could_not_be_opened_is_forgotten_once_its_scans_are_found(tmp_path):
    """It had counted as failed for ever, in the tables too."""
    folder, inputs = CohortFolder(tmp_path / "out"), {}
    for path, problem in ((tmp_path / "data/b", "b cannot be opened."), (tmp_path / "data/c", "c cannot be opened.")):
        path.mkdir(parents=True)
        item = ScanInput(path.name, path, problem=problem)
        inputs[item] = outputs_of(item, folder.path)
    folder.request(inputs)
    folder.forget([ScanInput("b", tmp_path / "data/b/1/b.nii")])
    assert list(folder.standing().failed) == [str(tmp_path / "data/c")]


def test_a_scan_that_was_removed_after_its_process_died_is_forgotten_with_what_was_half_written(folder, tmp_path):
    folder, requested = folder
    a, b, _, d, e = requested
    living = folder.claim(requested[b])
    for item in (d, e):
        dead = folder.claim(requested[item]).path
        write_json(dead, read_json(dead) | {"born": "1"})
        (tmp_path / f"out/.writing-abcd_123-{item.name}_mask.nii.gz").touch()
    d.path.touch()
    folder.forget([a])
    found = folder.standing()
    assert list(found.claimed) == [str(b.path)] and list(found.missing) == [str(d.path)] and not found.failed
    assert [path.name for path in folder.path.glob(".writing-*")] == [".writing-abcd_123-d_mask.nii.gz"]
    living.release()


def _record(folder, name, **scan):
    write_json(folder.path / f"{name}.json", record_of(segmented()[1], name) | {"scan": {"name": name, **scan}})
    return folder.path / f"{name}.json"


def test_a_scan_whose_mask_is_gone_is_missing_and_one_that_is_being_written_is_claimed(tmp_path):
    folder = CohortFolder(tmp_path)
    for name in "xyz":
        _record(folder, name)
    (tmp_path / "x_mask.nii.gz").touch()
    claim = folder.claim(outputs_of(ScanInput("y", tmp_path / "y.nii"), tmp_path))  # its mask is renamed last
    found = folder.standing()
    assert str(found) == "1 of 3 scans done, 1 claimed, 1 missing" and list(found.claimed) == ["y"]
    assert found.missing == {"z": "z_mask.nii.gz does not exist; run predict again"}
    claim.release()


def test_a_damaged_record_is_a_failure_of_its_scan_or_stands_for_it(folder, tmp_path):
    folder, _ = folder
    for name in ("a", "x", "a_rating", ".hidden"):
        (folder.path / f"{name}.json").write_text('{"scan": ')
    found, file = folder.standing(), str(folder.path / "x.json")
    assert str(found) == "0 of 6 scans done, 3 failed, 3 missing"
    assert list(found.failed) == [file, str(tmp_path / "a.nii"), str(tmp_path / "c.nii")]
    assert f"{file} is not readable as JSON (Expecting value" in found.failed[file]
    assert "delete it with all other outputs of the scan, and run predict again" in found.failed[file]


def test_a_folder_of_a_damaged_record_alone_is_refused_with_its_name(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff")
    with pytest.raises(RunError, match=r"a\.json is not readable as JSON"):
        CohortFolder(tmp_path).opened()


def test_records_are_what_was_written_whole_whatever_other_processes_write_and_remove(folder, monkeypatch):
    folder, requested = folder
    claim = folder.claim(next(iter(requested.values())))
    _record(folder, "a")
    (folder.path / ".writing-x-a.json").write_text((folder.path / "a.json").read_text())
    place, _, files = next(os.walk(folder.path))
    monkeypatch.setattr(os, "walk", lambda folder, onerror: [(place, [], [*files, "gone.json"])])
    assert [path.name for path, _ in folder.read()[1]] == ["a.json"]
    claim.release()


def test_a_new_list_of_scans_ends_older_ones_of_some_of_them(folder, tmp_path):
    folder, requested = folder
    mended = {ScanInput(item.name, item.path): outputs for item, outputs in requested.items()}
    more = ScanInput("f", tmp_path / "f.nii")
    folder.request({**mended, more: outputs_of(more, folder.path)})
    assert len(list(folder.notes.glob("request-*.json"))) == 1
    assert str(folder.standing()) == "1 of 6 scans done, 5 missing"


@pytest.mark.parametrize(("scan", "record"), [("c", "c"), ("d", "d_alone"), ("e", "e_alone")])
def test_a_scan_that_was_mended_and_given_alone_is_done_until_it_fails_again(folder, tmp_path, scan, record):
    """In a group, its outputs may have another name; c could not be read, d failed, e is missing."""
    folder, requested = folder
    d = list(requested)[3]
    folder.fail(requested[d], d, "d is 4-D.")
    file = _record(folder, record, path=f"{tmp_path}/out/../{scan}.nii")
    file.with_name(f"{record}_mask.nii.gz").touch()
    found = folder.standing()
    assert str(found).startswith("2 of 5 scans done") and str(tmp_path / f"{scan}.nii") in found.done
    os.utime(file, (0, 0))  # it failed later, so it has the mask of another command
    folder.request(requested)
    done = 1 + (scan == "e")
    assert str(folder.standing()) == f"{done} of 5 scans done, 2 failed, {3 - done} missing"


def test_a_scan_in_two_lists_is_as_in_the_later_one(folder, tmp_path):
    folder, requested = folder
    items = list(requested)
    for number, problem in enumerate(["c is closed.", "", "c is a folder."]):
        c = ScanInput("c", items[2].path, problem=problem)
        folder.request({each: requested[each] for each in items[number : number + 1]} | {c: requested[items[2]]})
        for path in folder.notes.iterdir():
            os.utime(path, ns=(path.stat().st_mtime_ns - 10**10,) * 2)
        assert folder.standing().failed == ({str(c.path): problem} if problem else {})


def test_a_failure_is_forgotten_between_listing_and_reading(folder, monkeypatch):
    folder, requested = folder
    item = list(requested)[3]
    folder.fail(requested[item], item, "d is 4-D.")
    listed = os.listdir(folder.notes)
    folder.succeed(requested[item])
    monkeypatch.setattr(os, "listdir", lambda path: listed)
    assert str(folder.standing()) == "1 of 5 scans done, 1 failed, 3 missing"


OTHERS = """
import os, sys
print("begun", flush=True)
while True:
    for change in (os.mkdir, os.rmdir):
        try:
            change(sys.argv[1])
        except OSError:
            pass
"""


@pytest.fixture
def shared(tmp_path):
    """A folder of masks whose notes another process makes and, when they are empty, removes."""
    folder = CohortFolder(tmp_path / "masks")
    folder.path.mkdir()
    command = [sys.executable, "-c", OTHERS, str(folder.notes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        yield folder
        process.kill()


def test_notes_that_others_make_and_remove_end_nobodys_work(shared):
    for _ in range(300):
        with shared.alone(print):
            assert shared.notes.is_dir()
        assert not shared.at_work() and str(shared.standing()) == "0 of 0 scans done"
