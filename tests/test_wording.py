"""A count and its noun agree, and a list names the first items and counts the others."""

import pytest

from planar3d.wording import counted, has_or_have, is_or_are, listed, rounded, score_text, visible


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 scans"), (1, "1 scan"), (2000, "2,000 scans"), ("a", "1 scan"), ([], "0 scans")]
)
def test_one_scan_and_several_scans(number, words):
    assert counted(number, "scan") == words


@pytest.mark.parametrize(("number", "verb"), [(0, "are"), (1, "is"), (2, "are"), (["a"], "is"), (["a", "b"], "are")])
def test_one_is_and_several_are(number, verb):
    assert is_or_are(number) == verb and has_or_have(number) == {"is": "has", "are": "have"}[verb]


def test_rounded_numbers_have_no_exponent():
    assert [rounded(value, 2) for value in (121.3, 0.0123, 3.0)] == ["120", "0.012", "3"]


def test_an_undefined_score_is_a_dash():
    assert [score_text(value, 2) for value in (0.456, float("nan"))] == ["0.46", "–"]


@pytest.mark.parametrize(
    ("items", "words"),
    [([], "none"), ([1], "1"), (["a", "b"], "a, b"), ((str(n) for n in range(5)), "0, 1 and 3 more")],
)
def test_of_many_items_the_first_are_named(items, words):
    assert listed(items, 2) == words


def test_what_could_control_a_terminal_is_written_as_escapes():
    named = "a\x1b[2J\r\x9b31m\u202egpj\udcff.nii"
    assert visible(named) == r"a\x1b[2J\r\x9b31m\u202egpj\udcff.nii"
    assert visible("Köpfe 5\xa0mm – “x”\n\tµ 脳") == "Köpfe 5\xa0mm – “x”\n\tµ 脳"
