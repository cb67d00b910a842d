"""A count and its noun agree."""

import pytest

from planar3d.wording import counted


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 scans"), (1, "1 scan"), (2, "2 scans"), ("a", "1 scan"), ([], "0 scans")]
)
def test_one_scan_and_several_scans(number, words):
    assert counted(number, "scan") == words
