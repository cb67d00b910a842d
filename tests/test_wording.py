"""A count and its noun agree."""

import pytest

from planar3d.wording import counted, is_or_are


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 scans"), (1, "1 scan"), (2000, "2,000 scans"), ("a", "1 scan"), ([], "0 scans")]
)
def test_one_scan_and_several_scans(number, words):
    assert counted(number, "scan") == words


@pytest.mark.parametrize(("number", "verb"), [(0, "are"), (1, "is"), (2, "are"), (["a"], "is"), (["a", "b"], "are")])
def test_one_is_and_several_are(number, verb):
    assert is_or_are(number) == verb
