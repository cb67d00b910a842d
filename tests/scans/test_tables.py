"""A table that has one meaning is read however it was saved; of another it is said what was found."""

import os
import unicodedata
from pathlib import Path

import pytest

from planar3d.errors import DatasetError
from planar3d.scans.tables import is_name, path_in_table, read_table

NEEDED = ("scan", "mask", "group")


def _read(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table = read_table(path, NEEDED, DatasetError)
    return [[row[name] for name in NEEDED] for row in table.rows]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encoding_delimiter_and_line_ends_make_no_difference(tmp_path, delimiter, encoding, end):
    lines = ["", "Scan;MASK ; Group", "Köpfe/a.nii;m.nii;Ålesund", ";;", "", "b.nii;n.nii;"]
    content = end.join(lines).replace(";", delimiter).encode(encoding)
    assert _read(tmp_path / "t.csv", content) == [["Köpfe/a.nii", "m.nii", "Ålesund"], ["b.nii", "n.nii", ""]]


@pytest.mark.parametrize(
    "text",
    [
        'scan,mask\n"a,1.nii", "m ""x"".nii"\n',
        'scan;mask\na,1.nii;m "x".nii\n',
        'notes,scan,mask,,\n,"a,1.nii",m "x".nii,,\n',
        'mask;scan;a,b,c,d\nm "x".nii;a,1.nii\n',
    ],
)
def test_values_may_hold_the_other_delimiters(tmp_path, text):
    assert _read(tmp_path / "t.csv", text) == [["a,1.nii", 'm "x".nii', ""]]


def test_rows_say_where_they_stand(tmp_path):
    (tmp_path / "t.csv").write_text('scan,note\n\na.nii,"two\nlines"\nb.nii\n')
    places = [row.place for row in read_table(tmp_path / "t.csv", NEEDED, DatasetError).rows]
    assert [place.rpartition(" ")[2] for place in places] == ["4", "5"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"scan,mask\na\x00.nii,b\n", "is not text"),
        ("scan,mask\na,b\n".encode("utf-16-le"), "is not text"),
        (b"\x1f\x8b\x08\x00\x00\x00", "is not text.* instead of an image, name the folder of its data set"),
        (b"\xff\xfes", "is not text"),
        (b"scan,Scan,mask\n", "the column scan more than once"),
        (b"scan,mask\na,b,c\n", r"line 2: 3 values, but 2 columns \(scan, mask\)"),
        (b'scan,mask\n"a,b\nc,d\n', "line 3: .*quotation marks"),
        (b'scan,mask\na,"b\nc,d\n', "line 3: .*quotation marks"),
        (bytes(2**26 + 1), "no table of scans is that large"),
    ],
)
def test_what_has_no_one_meaning_is_explained(tmp_path, content, sentence):
    with pytest.raises(DatasetError, match=sentence):
        _read(tmp_path / "t.csv", content)


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff", ";;\n"])
def test_an_empty_table_has_no_rows(tmp_path, content):
    assert _read(tmp_path / "t.csv", content) == []


def test_what_was_found_is_said_of_a_table_of_other_columns(tmp_path):
    (tmp_path / "t.csv").write_text("Subject ID;Image\n1;a.nii\n")
    table = read_table(tmp_path / "t.csv", NEEDED, DatasetError)
    assert table.names == ["subject_id", "image"]
    assert table.found == "the columns Subject ID, Image (read with semicolons)"


@pytest.mark.parametrize("suffix", ["", ".csv"])
def test_a_missing_table_and_a_folder_are_refused(tmp_path, suffix):
    for path in (tmp_path, tmp_path / f"absent{suffix}"):
        with pytest.raises(DatasetError, match="cannot be read"):
            read_table(path, NEEDED, DatasetError)


def test_paths_are_those_beside_the_table_of_the_home_or_of_windows(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "d").mkdir(parents=True)
    (home / "d/a.nii").touch()
    (home / "d/odd\\name.nii").touch()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    table = home / "t.csv"
    for text in ("d/a.nii", "d\\a.nii", "~/d/a.nii", "~\\d\\a.nii", str(home / "d/a.nii"), "./d/../d/a.nii"):
        assert path_in_table(table, text).samefile(home / "d/a.nii")
    assert path_in_table(table, "d/odd\\name.nii") == home / "d/odd\\name.nii"
    assert path_in_table(table, "absent.nii") == home / "absent.nii"
    assert path_in_table(Path("t.csv"), "x" * 5000) == Path("x" * 5000)


def test_a_name_is_found_and_valid_whether_its_accents_are_signs_of_their_own_or_not(tmp_path):
    forms = [unicodedata.normalize(form, "Jürgen_é_が") for form in ("NFC", "NFD")]
    for stored in forms:
        (folder := tmp_path / str(len(stored))).mkdir()
        (folder / f"{stored}.nii").touch()
        for told in forms:
            assert path_in_table(folder / "t.csv", f"{told}.nii").samefile(folder / f"{stored}.nii")
    assert all(map(is_name, [*forms, "रोगी-1"])) and not is_name("a/b") and not is_name("")
    (tmp_path / "t.csv").write_text("group\n" + "\n".join(forms), encoding="utf-8")
    rows = read_table(tmp_path / "t.csv", NEEDED, DatasetError).rows
    assert len({row.known(["group"]) for row in rows}) == 1  # one center, and one patient


def test_a_pipe_and_a_device_without_an_end_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zeros.csv").symlink_to("/dev/zero")
    for name in ("pipe.csv", "zeros.csv"):
        with pytest.raises(DatasetError, match=f"{name} cannot be read: it is a folder or device"):
            read_table(tmp_path / name, NEEDED, DatasetError)
