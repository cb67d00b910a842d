"""Mutated weights files of every format: each ends in arrays or in a WeightsError, whatever the parsers below do.

    python tests/security/fuzz_weights.py --files 1000

reads so many files of each format, one process a file, and prints how they ended. A file whose bare reading crashes or
breaks the limits of time and memory is read again as users read it, and must then be refused within them.
"""

import argparse
import io
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import h5py
import numpy as np

from planar3d.errors import WeightsError
from planar3d.transfer.array_files import read_directly
from planar3d.transfer.rehearsal import read_arrays

SECONDS, MEMORY = 5, 2**30
ENDS = {0: "arrays", 1: "refused", 2: "another error"}
EXTREMES = (b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"\1\0\0\0", b"\0\0\0\x80")
# Of an HDF5 file of this size nearly all structure comes first.
STRUCTURE = 6000


def write_seeds(folder):
    """A small honest file of each format, as Keras, NumPy and onnx write them."""
    import keras

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="block1_conv1")(inputs)
    network = keras.Model(inputs, keras.layers.Conv2D(5, 3, name="block1_conv2")(x))
    network.save_weights(folder / "seed.weights.h5")
    network.save(folder / "seed.h5")
    network.save(folder / "seed.keras")
    np.savez(folder / "seed.npz", **{w.path: np.asarray(w) for w in network.weights})
    with h5py.File(folder / "seed.weights.h5", "r") as plain, h5py.File(folder / "packed.weights.h5", "w") as packed:
        packed.attrs["planar3d_recipe"], packed.attrs["planar3d_card"] = '{"name": "paper"}', '{"name": "fuzz"}'

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                made = packed.create_dataset(name, data=item, chunks=item.shape, compression="gzip", shuffle=True)
            else:
                made = packed.require_group(name)
            made.attrs.update(item.attrs)

        plain.visititems(copy)
    try:
        from onnx import helper, numpy_helper, save
    except ImportError:
        return
    kernel = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "conv1.weight")
    graph = helper.make_graph([helper.make_node("Conv", ["x", "conv1.weight"], ["y"])], "g", [], [], [kernel])
    save(helper.make_model(graph), folder / "seed.onnx")


def mutated(content, rng):
    """The content with one to sixteen faults; of an archive also within its members, whose checksums then are right."""
    if content.startswith(b"PK") and rng.random() < 0.6:
        return _with_mutated_member(content, rng)
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(min(len(changed), STRUCTURE if rng.random() < 0.7 else len(changed)))
        match rng.randrange(7):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                changed[at] ^= 1 << rng.randrange(8)
            case 2:
                changed[at : at + 4] = rng.choice(EXTREMES)
            case 3:
                other = rng.randrange(len(changed))
                changed[at : at + 8] = changed[other : other + 8]
            case 4:
                del changed[at : at + rng.choice((1, 8))]
            case 5:
                changed[at:at] = changed[at : at + 64]
            case 6 if rng.random() < 0.2:
                del changed[at + 1 :]
    return bytes(changed)


def _with_mutated_member(content, rng):
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        chosen = rng.choice(archive.namelist())
        for name in archive.namelist():
            member = archive.read(name)
            new.writestr(name, mutated(member, rng) if name == chosen else member)
    return target.getvalue()


def ending(read, path, limited):
    """How reading ends in a process of its own: its code, and whether it took over 1 GiB or was stopped."""
    process = os.fork()
    if process == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        if limited:
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
            resource.setrlimit(resource.RLIMIT_AS, (2 * MEMORY, 2 * MEMORY))
        signal.alarm(20 * SECONDS)
        try:
            read(path)
            code = 0
        except WeightsError:
            code = 1
        except BaseException:
            code = 2
        os._exit(code)
    _, status, used = os.wait4(process, 0)
    code = os.waitstatus_to_exitcode(status)
    return "over 1 GiB" if used.ru_maxrss * 1024 > MEMORY else ENDS.get(code, f"signal {-code}")


def fuzz(seed, files, first, folder):
    """Count how mutated files of a seed end, and list those that end otherwise than they may."""
    ends, faults = Counter(), []
    path = folder / f"mutated-{seed.name}"
    for number in range(first, first + files):
        path.write_bytes(mutated(seed.read_bytes(), random.Random(f"{seed.name} {number}")))
        end = ending(read_directly, path, limited=True)
        if end not in ("arrays", "refused"):
            second = ending(read_arrays, path, limited=False)
            if second == "refused":
                end = f"refused by the trial ({end})"
            else:
                faults.append(f"{seed.name} {number}: {end}, then {second}")
        ends[end] += 1
    return ends, faults


def main():
    """Fuzz every format and say how the files ended; exit code 1 if any ended otherwise than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000, help="of each format")
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seeds", type=Path, help="folder with honest files; default: they are written")
    asked = parser.parse_args()
    faults = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.seeds is None:  # by another process, since with TensorFlow this one would exceed the limits
            writing = multiprocessing.get_context("spawn").Process(target=write_seeds, args=(folder,))
            writing.start()
            writing.join()
        for seed in sorted((asked.seeds or folder).iterdir()):
            ends, wrong = fuzz(seed, asked.files, asked.first, folder)
            faults += wrong
            print(f"{seed.name:18s} " + ", ".join(f"{count} {end}" for end, count in ends.most_common()), flush=True)
    print("\n".join(faults) or "every file ended in arrays or in a WeightsError")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
