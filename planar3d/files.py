"""Atomic writing of files."""

import csv
import errno
import io
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from planar3d.disk import naming
from planar3d.errors import RunError
from planar3d.wording import folded

_WRITING = ".writing-"  # prefix of temporary files and folders
_ADDED = len(_WRITING) + 8 + 1  # bytes of this prefix, with the random part and a hyphen
_FIX = "Fix it; if planar3d wrote it, you can also delete it to create it again."


@contextmanager
def written_beside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, remove it if not.

    The temporary name has the suffix of `path`, by which many writers choose their format. A `path` that is temporary,
    or in a temporary folder, is itself yielded. Few calls name a file, as each is a request to a file server.

    Raises:
        OSError: the disk is full, whatever error the writer raised; it names `path`.
    """
    path = Path(path)
    if any(part.startswith(_WRITING) for part in path.parts):
        yield path
        return
    temporary = path.with_name(f"{_WRITING}{secrets.token_hex(4)}-{path.name}")
    try:  # from the first, as a signal may arrive while the file is created
        try:
            temporary.touch(exist_ok=False)
        except FileNotFoundError:
            make_folder(path.parent)
            temporary.touch(exist_ok=False)
        with naming(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def written_together(within: Path, files: Iterable[Path], first: Path, last: Path) -> Iterator[Path]:
    """Yield a temporary folder; if the block succeeds, its files replace those at the same places in `within`.

    The temporary folder is beside the `last` file, and has the folders of all `files` that may be written. The `first`
    is replaced first, and the `last` one last.

    Raises:
        OSError: the disk is full, as in `written_beside`; then nothing was replaced.
    """
    make_folder(last.parent)
    with temporary_folder(last.parent, f"-{last.name}") as temporary:
        try:
            with naming(last):
                for folder in {path.parent.relative_to(within) for path in files} - {Path()}:
                    (temporary / folder).mkdir(parents=True, exist_ok=True)
                yield temporary
        except OSError as error:
            if error.filename:
                error.filename = str(error.filename).replace(str(temporary), str(within))  # not of the folder beside
            raise
        # By names as systems compare them: some list a file under another spelling than the one that created it.
        made = {folded(str(path.relative_to(temporary))): path for path in temporary.rglob("*") if path.is_file()}
        for folder in {within / path.relative_to(temporary).parent for path in made.values()} - {last.parent}:
            make_folder(folder)
        begin, end = (folded(str(path.relative_to(within))) for path in (first, last))
        for name in [begin, *made.keys() - {begin, end}, end]:
            os.replace(made[name], within / made[name].relative_to(temporary))


@contextmanager
def folder_written_beside(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; it replaces `folder` if the block succeeds."""
    make_folder((folder := Path(folder)).parent)
    with temporary_folder(folder.parent) as temporary:
        (made := temporary / folder.name).mkdir()
        try:
            with naming(folder):
                yield made
                if folder.exists():
                    _set_aside(folder, temporary / "before")
                os.replace(made, folder)
        finally:  # a signal may arrive between the two
            if made.exists() and (temporary / "before").exists():
                shutil.rmtree(folder, ignore_errors=True)  # of which a part may be left
                os.replace(temporary / "before", folder)


def _set_aside(folder: Path, to: Path) -> None:
    """Move a folder; one of a layer of a container's image, which cannot be moved, by a copy."""
    try:
        os.replace(folder, to)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(folder, copy := to.with_name("copy"), symlinks=True)
        os.replace(copy, to)  # once it is whole
        shutil.rmtree(folder)


def make_folder(folder: Path) -> None:
    """Create a folder with its parents, unless it exists; another process may remove it at any moment while empty."""
    for _ in range(100):
        with suppress(FileNotFoundError, FileExistsError):  # removed before, or after, it was found to exist
            return folder.mkdir(parents=True, exist_ok=True)
        time.sleep(secrets.randbelow(1000) / 1e6)  # to get out of step with that process
    folder.mkdir(parents=True, exist_ok=True)


def file_of(error: OSError) -> str:
    """The file that an error of the system is about, as the user knows it: not by its temporary name."""
    unnamed = "The current folder" if error.errno == errno.ENOENT else "A file or the standard output"
    found = str(error.filename2 or error.filename or unnamed)
    return re.sub(rf"{re.escape(_WRITING)}\w{{8}}(-?[^/\\]*[/\\]|-?)", "", found)


@contextmanager
def temporary_folder(folder: str | Path, ending: str = "") -> Iterator[Path]:
    """Yield a temporary empty folder inside `folder`; it counts as half-written."""
    path = Path(folder, f"{_WRITING}{secrets.token_hex(4)}{ending}")
    try:
        path.mkdir(0o700)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def written_at(path: Path) -> int:
    """When a file was last written, in ns by the clock of its file system; 0 if it does not exist."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0


def why_too_long(paths: Iterable[Path]) -> str:
    """Why the name of one of these files, with the prefix of its temporary file, is too long; empty if none is."""
    longest = max(paths, key=lambda path: len(os.fsencode(path.name)))
    most, size = _longest_name(longest.absolute().parent) - _ADDED, len(os.fsencode(longest.name))
    if size <= most:
        return ""
    return (
        f"the name {longest.name} has {size} bytes, but names in {longest.parent} can have at most {most}, as "
        f"the name of a temporary file is {_ADDED} longer."
    )


@cache
def _longest_name(folder: Path) -> int:
    """The bytes that a name can have in a folder, which may not exist yet."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return os.pathconf(there, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255


def remove_temporaries(*folders: str | Path) -> None:
    """Remove half-written files of killed processes directly in folders in which no other process is writing."""
    _remove(left for folder in folders for left in Path(folder).glob(f"{_WRITING}*"))


def remove_temporaries_of(*paths: str | Path) -> None:
    """Remove half-written versions of these files from killed processes; the last part of a path may be a pattern."""
    for path in map(Path, paths):
        _remove(left for left in path.parent.glob(f"{_WRITING}*-{path.name}") if fnmatch(left.name[_ADDED:], path.name))


def _remove(found: Iterable[Path]) -> None:
    for left in [*found]:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with written_beside(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # of names that are no text


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table with a header line, atomically; with tabs if the file's name ends in .tsv."""
    delimiter, table = "\t" if Path(path).suffix == ".tsv" else ",", io.StringIO()
    writer = csv.DictWriter(table, columns, delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, table.getvalue())


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV file by column name; none if it does not exist, a `RunError` if it is not a table."""
    try:
        content = Path(path).read_bytes() if Path(path).is_file() else b""
        return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path} is not a table in UTF-8 ({error}). Delete it to create it again.") from None


def read_json(path: str | Path, made: Callable[[Any], Any] = lambda content: content, advice: str = _FIX) -> Any:
    """What is `made` of a JSON file's content; a `RunError` names a file that is damaged or has another form."""
    found = "is not readable as JSON"
    try:
        content, found = parse_json(path), "is not in the form that planar3d writes"
        return made(content)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise RunError(f"{path} {found} ({error}). {advice}") from error


def parse_json(path: str | Path) -> Any:
    """The content of a JSON file; a `ValueError` if it is not JSON in Unicode, or names a field of an object twice."""
    try:
        return json.loads(Path(path).read_bytes(), object_pairs_hook=_each_once)
    except RecursionError:
        raise ValueError("its lists or objects are nested too deeply") from None


def _each_once(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in fields]
    if len(content := dict(fields)) < len(names):
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} occurs twice in one object")
    return content
