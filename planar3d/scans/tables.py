"""Tables with commas, semicolons or tabs, in UTF-8, UTF-16 or a Windows encoding; and the sites in a BIDS table."""

import codecs
import csv
import io
import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from planar3d.errors import DatasetError, Planar3DError
from planar3d.wording import composed, counted, listed

_LARGEST = 2**26  # bytes; larger than a table of a million scans
_UNMARKED = ("utf-8-sig", "cp1252", "latin-1")  # the last reads any bytes
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_NAME = re.compile(r"[^\W_][\w.+-]*")  # a valid file name on every system, not a path
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_ID = "participant_id"  # in participants.tsv, and the names that the column of sites may have
SITES = ("site", "site_id", "siteid", "center", "centre", "center_id", "centre_id")
_UNKNOWN = {"", "n/a", "na", "nan"}  # the standard's value, and variants by spreadsheets


@dataclass(frozen=True)
class CsvRow:
    """A row of a table: its place, and its values by column name in lower case."""

    place: str
    values: dict[str, str]

    def __getitem__(self, column: str) -> str:
        """The value in a column; empty if there is none."""
        return self.values.get(column, "")

    def known(self, columns: Sequence[str]) -> str:
        """The value in the first of these columns that the table has, composed; empty if it is unknown, as n/a is."""
        value = next((self.values[column] for column in columns if column in self.values), "")
        return "" if value.lower() in _UNKNOWN else composed(value)


@dataclass(frozen=True)
class CsvTable:
    """A table's columns in lower case, with underscores for spaces; its rows; and how it was read."""

    names: list[str]
    rows: list[CsvRow]
    found: str
    hint: str


def read_table(path: Path, needed: Sequence[str], error: type[Planar3DError]) -> CsvTable:
    """Read a table with a header; columns that are `needed`, as in `CsvTable.names`, may be missing.

    Encoding and delimiter are detected: the delimiter is the one with which the header has most of the needed columns.
    Values are stripped, and empty lines skipped.

    Raises:
        Planar3DError: the file cannot be read, is not text, names a column twice, or has a row with more values than
            columns.
    """
    text, encoding = _decode(path, error)
    reads: dict[str, list[tuple[int, list[str]]]] = {}
    broken = ""
    for delimiter in _DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
        except csv.Error as problem:
            broken = f"{path}, line {reader.line_num}: {problem}. Check the quotation marks of that line."
            continue
        reads[delimiter] = [line for line in lines if any(line[1])]
    header = {delimiter: [_plain(cell) for cell in lines[0][1]] for delimiter, lines in reads.items() if lines}
    delimiter = max(header, key=lambda one: (len(set(needed) & set(header[one])), len(header[one])), default=",")
    columns = header.get(delimiter, [])
    if broken and not set(needed) & set(columns):
        raise error(broken)
    if not columns:
        return CsvTable([], [], "no column", "")
    first, *lines = reads[delimiter]
    if twice := sorted({name for name in columns if name and columns.count(name) > 1}):
        raise error(f"{path} has the column {twice[0]} more than once; rename one of them.")
    rows = []
    for number, cells in lines:
        place = f"{path}, line {number}"
        if any(cells[len(columns) :]) and set(needed) & set(columns):  # the first line may be no header
            raise error(
                f"{place}: {counted(cells, 'value')}, but {counted(columns, 'column')} ({', '.join(first[1])}). Quote "
                "values that contain the delimiter."
            )
        rows.append(CsvRow(place, {name: cell for name, cell in zip(columns, cells, strict=False) if name}))
    spelled = list(filter(None, first[1]))
    kind = "column" if len(spelled) == 1 else "columns"
    found = f"the {kind} {', '.join(spelled)} (read with {_DELIMITERS[delimiter]})" if spelled else "no column"
    hint = "" if encoding.startswith("utf") else f" The table is not in UTF-8 and was read as {encoding}."
    return CsvTable(list(filter(None, columns)), rows, found, hint)


def path_in_table(table: Path, text: str) -> Path:
    r"""The file that a table names: relative to the table, with `~` for the home, and `\` as separator on Windows.

    Its name may be spelled as in `unicodedata.normalize`: macOS writes ü as two signs, where a spreadsheet has one.
    """
    spelled = dict.fromkeys((text, composed(text), unicodedata.normalize("NFD", text)))
    homes = [table.parent / os.path.expanduser(one) for each in spelled for one in (each, each.replace("\\", "/"))]
    return next((path for path in (table.parent / text, *homes) if os.path.lexists(path)), homes[0])


def is_name(text: str) -> bool:
    """Whether a text can be part of a file name on every system; accents and vowel signs may be separate characters."""
    return _NAME.fullmatch("".join(sign for sign in text if unicodedata.category(sign)[0] != "M")) is not None


def check_name(name: str, row: CsvRow, error: type[Planar3DError]) -> None:
    """Refuse a row's name if it cannot be part of a file name on every system; an empty one counts as missing."""
    if name and not is_name(name):
        raise error(f"{row.place}: “{name}” cannot be part of a file name; use only letters, digits and . _ + -.")


def _decode(path: Path, error: type[Planar3DError]) -> tuple[str, str]:
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe has no end
        raise error(f"{path} cannot be read: it is a folder or device. Name a CSV file.")
    try:
        if path.stat().st_size > _LARGEST:
            raise error(f"{path} has {path.stat().st_size:,} bytes; no table of scans is that large.")
        content = path.read_bytes()
    except OSError as problem:
        lost = " It is a link; fetch its file first, e.g. with git annex get." if os.path.islink(path) else ""
        raise error(f"{path} cannot be read ({problem.strerror}).{lost}") from None
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if marked else _UNMARKED:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if _CONTROLS.search(text):
            break
        return text, encoding
    raise error(
        f"{path} is not readable as a CSV table: it is not text. Save a spreadsheet as CSV in UTF-8; instead of an "
        "image, name the folder of its data set."
    )


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def read_sites(path: Path, subjects: Collection[str]) -> dict[str, str]:
    """The site of each subject in `participants.tsv`, which may be missing; subjects with `n/a` have none.

    Subjects are named as their folders, sub-01; the table may omit sub-.

    Raises:
        DatasetError: the file cannot be read, gives a subject two sites, or has sites, but none of the subjects.
    """
    if not os.path.lexists(path):
        return {}
    table = read_table(path, (_ID, *SITES), DatasetError)
    column = next((name for name in SITES if name in table.names), None)
    if column is None:
        return {}
    if _ID not in table.names:
        raise DatasetError(f"{path} has no column {_ID}; found: {table.found}. Rename the column with the subjects.")
    sites: dict[str, str] = {}
    known = set()
    for row in table.rows:
        label = "".join(row[_ID].split())
        subject = label if label.startswith("sub-") else f"sub-{label}"
        known.add(subject)
        if (site := row.known(SITES)) and (other := sites.setdefault(subject, site)) != site:
            raise DatasetError(f"{row.place}: {subject} has the site {site}, but {other} in a line above; keep one.")
    if known and not known.intersection(subjects):
        raise DatasetError(
            f"{path} gives the sites of {listed(sorted(known))}, but not of {listed(sorted(subjects))}; "
            f"use the same names, or remove the column {column}."
        )
    return sites
