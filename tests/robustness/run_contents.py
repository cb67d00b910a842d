"""What a run has left in its folder, so that two runs can be compared.

Files are compared byte by byte, except: gzip and HDF5 files by what they hold; and without what differs between two
uninterrupted runs, which is how long things took, and when.
"""

import gzip
import hashlib
import re
from pathlib import Path

import h5py

TIMES = re.compile(rb'("(seconds|date|time|duration|mask_written)[a-z_]*": )("[^"]*"|[0-9.e-]+)')


def temporaries(folder: Path) -> list[str]:
    """What is half-written in a folder."""
    return sorted(str(path) for path in folder.rglob(".*") if ".writing-" in path.name)


def contents(folder: Path) -> dict[str, str]:
    """Digests of what each file in a folder holds, but for times."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(_held(path)).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".writing-" not in path.name
    }


def _held(path: Path) -> bytes:
    content = path.read_bytes()
    if path.name == "history.csv":
        return b"\n".join(line.rsplit(b",", 1)[0] for line in content.splitlines())  # the last column is seconds
    if path.suffix == ".gz":
        return gzip.decompress(content)
    if path.suffix == ".h5":
        return _arrays(path)
    return TIMES.sub(rb"\1", content) if path.suffix in (".json", ".html") else content


def _arrays(path: Path) -> bytes:
    held: list[bytes] = []

    def add(name: str, item: object) -> None:
        held.append(name.encode())
        held.extend(f"{key}={value}".encode() for key, value in sorted(item.attrs.items()))
        if isinstance(item, h5py.Dataset):
            held.append(item[()].tobytes())

    with h5py.File(path, "r") as file:
        add("", file)
        file.visititems(add)
    return TIMES.sub(rb"\1", b"\0".join(held))
