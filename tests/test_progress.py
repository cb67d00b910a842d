"""Progress is told now and then, and never for what ends at once."""

import io
import sys

from planar3d.progress import Ticker, duration, part_of, tell


def test_lines_come_no_more_often_than_asked(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    lines = []
    ticker = Ticker(lines.append, "windows")
    for done in range(1, 11):
        ticker(done, 10)
    assert lines == [
        "windows: 3/10, 1 min 10 s left",
        "windows: 6/10, 0 min 40 s left",
        "windows: 9/10, 0 min 10 s left",
    ]


def test_the_progress_of_a_part_is_that_of_the_whole():
    told = []
    part_of(lambda *steps: told.append(steps), 1, 3)(2, 4)
    assert told == [(6, 12)] and part_of(None, 1, 3) is None


def test_durations_are_said_as_by_people():
    assert [duration(s) for s in (9.6, 190, 7500)] == ["0 min 10 s", "3 min 10 s", "2 h 05 min"]


def test_a_line_with_signs_that_the_output_lacks_is_printed_with_escapes(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "cp1252", newline="\n"))
    tell("1/2  Mü/a_FLAIR.nii.gz → \udcff/mask.nii.gz")
    sys.stdout.flush()
    assert written.getvalue().decode("cp1252") == "1/2  Mü/a_FLAIR.nii.gz \\u2192 \\udcff/mask.nii.gz\n"
