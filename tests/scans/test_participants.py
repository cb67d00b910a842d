"""Sites of participants.tsv are read however the file was saved, and what it does not tell is not made up."""

import pytest

from planar3d.errors import DatasetError
from planar3d.scans.tables import read_sites

SUBJECTS = {"sub-01", "sub-02"}
SITES = {"sub-01": "Ålesund", "sub-02": "Brno"}


def _read(tmp_path, content, encoding="utf-8"):
    path = tmp_path / "participants.tsv"
    path.write_bytes(content.encode(encoding))
    return read_sites(path, SUBJECTS)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("delimiter", ["\t", ";", ","])
def test_encoding_and_delimiter_make_no_difference(tmp_path, encoding, delimiter):
    text = "participant_id\tage\tsite\nsub-01\t40\tÅlesund\nsub-02\t50\tBrno\n".replace("\t", delimiter)
    assert _read(tmp_path, text, encoding) == SITES


@pytest.mark.parametrize("column", ["site", "Site", "SITE", "site_id", "Site ID", "center", "Centre", "center_id"])
@pytest.mark.parametrize("subjects", [("sub-01", "sub-02"), ("01", "02"), (" sub-01 ", "sub- 02")])
def test_the_column_and_the_subjects_may_be_spelled_otherwise(tmp_path, column, subjects):
    text = f"Participant_ID\t{column}\n{subjects[0]}\tÅlesund\n{subjects[1]}\tBrno\n"
    assert _read(tmp_path, text) == SITES


@pytest.mark.parametrize("site", ["n/a", "N/A", "", "NA", "nan"])
def test_a_site_that_is_not_known_is_none(tmp_path, site):
    assert _read(tmp_path, f"participant_id\tsite\nsub-01\tÅlesund\nsub-02\t{site}\n") == {"sub-01": "Ålesund"}


@pytest.mark.parametrize(
    "content", ["", "\n", "participant_id\n", "participant_id\tage\nsub-01\t40\n", "subject\tage\n"]
)
def test_without_sites_there_are_no_groups(tmp_path, content):
    assert _read(tmp_path, content) == {}
    assert read_sites(tmp_path / "absent.tsv", SUBJECTS) == {}


def test_a_subject_may_stand_twice_but_at_one_site(tmp_path):
    start = "participant_id\tsession\tsite\nsub-01\t1\toslo\n"
    assert _read(tmp_path, f"{start}01\t2\toslo\nsub-01\t3\tn/a\n") == {"sub-01": "oslo"}
    with pytest.raises(DatasetError, match=r"line 3: sub-01 has the site brno, but oslo in a line above; keep one"):
        _read(tmp_path, f"{start}sub-01\t2\tbrno\n")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("participant_id\tsite\n1\toslo\n2\tbrno\n", "gives the sites of sub-1, sub-2, but not of sub-01, sub-02"),
        ("subject\tsite\nsub-01\toslo\n", "no column participant_id; found: the columns subject, site"),
        ("participant_id\tsite\nsub-01\tos\x00lo\n", "is not text"),
    ],
)
def test_what_cannot_be_followed_is_explained(tmp_path, content, sentence):
    with pytest.raises(DatasetError, match=sentence):
        _read(tmp_path, content)


def test_a_link_without_its_target_is_not_taken_for_no_file(tmp_path):
    (tmp_path / "participants.tsv").symlink_to("nowhere")
    with pytest.raises(
        DatasetError,
        match=r"participants.tsv cannot be read .* It is a link; fetch its file first, e.g. with git annex get",
    ):
        read_sites(tmp_path / "participants.tsv", SUBJECTS)
