"""Weights files made to do harm, by what they try, and the sentence that each is refused by.

    python tests/security/crafted.py

prints how each ends, with the memory and the time that it took of the process that reads it.
"""

import io
import json
import marshal
import pickle
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from base64 import b64encode
from pathlib import Path

import h5py
import numpy as np

KERNEL = np.ones((3, 3, 3, 4), np.float32)
LAYER = "layers/conv2d/vars"


class Mark:
    """Unpickling it makes the file that would show that code ran."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def mark_of(path):
    """Where code in a crafted file would leave its mark."""
    return path.with_name(f"{path.name}-ran")


def lambda_layer(path):
    """A Lambda layer as Keras stores it, whose function would leave the mark."""
    code = compile(f"open({str(mark_of(path))!r}, 'w')", "lambda", "eval")
    function = {"class_name": "__lambda__", "config": {"code": b64encode(marshal.dumps(code)).decode()}}
    layer = {"class_name": "Lambda", "config": {"name": "trap", "function": function}}
    return json.dumps({"class_name": "Functional", "config": {"layers": [layer]}})


def hdf5(target, fill=lambda file: None):
    """An honest `.weights.h5` with one layer, changed by `fill`."""
    with h5py.File(target, "w") as file:
        group = file.create_group(LAYER)
        group.attrs["name"] = "block1_conv1"
        group["0"] = KERNEL
        fill(file)


def archive(path, members, compression=zipfile.ZIP_DEFLATED):
    """A zip file of these (name or info, content) members."""
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as file:
        for member, content in members:
            file.writestr(member, content)


def keras(path, *members, config="{}", compression=zipfile.ZIP_DEFLATED):
    """An honest `.keras` with further members."""
    weights = io.BytesIO()
    hdf5(weights)
    honest = [("config.json", config), ("model.weights.h5", weights.getvalue())]
    archive(path, [*honest, *members], compression)


def npy(shape="(3,)", descr="'<f4'", version=1, length=None, body=bytes(12)):
    """The bytes of an `.npy` with this header."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    size = (len(header) if length is None else length).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes((version, 0)) + size + header + body


def npz(path, content, name="block1_conv1/kernel.npy"):
    """An `.npz` of one array."""
    archive(path, [(name, content)])


def link_member(path):
    """A member that unpacking would make a symbolic link to a system file."""
    info = zipfile.ZipInfo("assets/link")
    info.external_attr = 0o120777 << 16
    keras(path, (info, "/etc/passwd"))


def inflating_chunk(file):
    """A chunk of 256 KiB whose stored bytes inflate to 1.5 GiB."""
    packed = file[LAYER].create_dataset("1", (2**16,), "<f4", chunks=(2**16,), compression="gzip")
    squeeze = zlib.compressobj(9)
    zeros = squeeze.compress(bytes(2**24)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    again = squeeze.compress(bytes(2**24)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    packed.id.write_direct_chunk((0,), zeros + again * 95 + squeeze.flush())


def deep_groups(file):
    """Groups inside each other, 5,000 deep, for parsers that call themselves."""
    group = file.create_group("deep").id
    for _ in range(5_000):
        group = h5py.h5g.create(group, b"g")


def one_array_often(file):
    """One data set of 4 MB under 4,000 names."""
    file[LAYER]["1"] = np.zeros(2**20, np.float32)
    for number in range(2, 4000):
        file[f"{LAYER}/{number}"] = file[LAYER]["1"]


def one_layer_often(file):
    """One layer of 128 MB named 10,000 times."""
    file["a/b"] = np.zeros(2**25, np.float32)
    file["a"].attrs["weight_names"] = np.array(["b"], "S1")
    file.attrs["layer_names"] = np.array(["a"] * 10_000, "S1")


def references(file):
    """References to objects instead of numbers."""
    made = file[LAYER].create_dataset("1", (3,), h5py.ref_dtype)
    made[:] = [file.ref] * 3


def ragged(file):
    """Arrays of any length instead of numbers."""
    made = file[LAYER].create_dataset("1", (2,), h5py.vlen_dtype(np.float32))
    made[0] = np.ones(5)


def onnx(path, dims=(4, 3, 3, 3), graph=b"", **fields):
    """An ONNX file of one convolution, whose kernel has these dims and fields, and more bytes in its graph."""
    from onnx import TensorProto, helper

    tensor = TensorProto(name="c.weight", data_type=fields.pop("data_type", TensorProto.FLOAT), dims=dims, **fields)
    made = helper.make_graph([helper.make_node("Conv", ["x", "c.weight"], ["y"])], "g", [], [], [tensor])
    # Protobuf joins a message that comes in two parts.
    path.write_bytes(helper.make_model(made).SerializeToString() + part(7, graph))


def part(field, content):
    """A field of bytes as protobuf stores it."""
    size, number = b"", len(content)
    while number > 127:
        size, number = size + bytes((number & 127 | 128,)), number >> 7
    return bytes((field << 3 | 2,)) + size + bytes((number,)) + content


def nested_graphs(levels):
    """Graphs inside the attributes of nodes inside graphs."""
    graph = b""
    for _ in range(levels):
        graph = part(1, part(5, part(6, graph)))
    return graph


def outside(path):
    """ONNX data in a file elsewhere."""
    from onnx import StringStringEntryProto, TensorProto

    places = [StringStringEntryProto(key="location", value="../../../../etc/passwd")]
    onnx(path, data_location=TensorProto.EXTERNAL, external_data=places)


BOMB = bytes(2**28 + 1)  # a byte more than any file may declare
ATTACKS = {
    # name of the file: how it is made, and the sentence
    "lambda.keras": (lambda p: keras(p, config=lambda_layer(p)), "contains Python code"),
    "pickle.keras": (lambda p: archive(p, [("model.weights.h5", pickle.dumps(Mark(mark_of(p))))]), "cannot be read"),
    "climbs.keras": (lambda p: keras(p, ("../../climbed", "x")), "points outside"),
    "absolute.keras": (lambda p: keras(p, ("/tmp/climbed", "x")), "points outside"),
    "drive.keras": (lambda p: keras(p, ("C:\\climbed", "x")), "points outside"),
    "link.keras": (link_member, "is a link"),
    "bomb.keras": (lambda p: archive(p, [("model.weights.h5", BOMB)]), "declares 268,435,457 bytes"),
    "config-bomb.keras": (lambda p: keras(p, config=f"[{'[],' * 2**24}[]]"), "cannot be read"),
    "deep-config.keras": (lambda p: keras(p, config="[" * 10**6), "cannot be read"),
    "nested.keras": (lambda p: (keras(p), archive(p, [("model.weights.h5", p.read_bytes())])), "cannot be read"),
    "twice.keras": (lambda p: keras(p, ("model.weights.h5", b"another")), "appears twice"),
    "lzma.keras": (lambda p: keras(p, compression=zipfile.ZIP_LZMA), "has a compression that"),
    "lambda.h5": (lambda p: hdf5(p, lambda f: f.attrs.update(model_config=lambda_layer(p))), "contains Python code"),
    "chunk-bomb.h5": (lambda p: hdf5(p, inflating_chunk), "cannot be read"),
    "deep.h5": (lambda p: hdf5(p, deep_groups), "cannot be read"),
    "aliases.h5": (lambda p: hdf5(p, one_array_often), "cannot be read"),
    "repeated.h5": (lambda p: hdf5(p, one_layer_often), "cannot be read"),
    "references.h5": (lambda p: hdf5(p, references), "instead of numbers"),
    "ragged.h5": (lambda p: hdf5(p, ragged), "instead of numbers"),
    "filter.h5": (
        lambda p: hdf5(p, lambda f: f[LAYER].create_dataset("1", data=KERNEL, chunks=True, compression="lzf")),
        "HDF5 filters",
    ),
    "fields.npz": (lambda p: npz(p, npy(descr="[('a', 'O'), ('b', '<f4')]")), "pickled Python objects"),
    "raw-pickle.npz": (lambda p: p.write_bytes(pickle.dumps(Mark(mark_of(p)))), "an unknown format"),
    "code.npz": (lambda p: npz(p, npy(shape=f"open({str(mark_of(p))!r}, 'w')")), "cannot be read"),
    "empty-items.npz": (lambda p: npz(p, npy("(1000000000000,)", "'|V0'")), "instead of numbers"),
    "negative.npz": (lambda p: npz(p, npy("(-3,)")), "instead of numbers"),
    "long-header.npz": (lambda p: npz(p, npy(version=2, length=2**30)), "cannot be read"),
    "climbs.npz": (lambda p: npz(p, npy(), "../climbed.npy"), "points outside"),
    "bomb.npz": (lambda p: npz(p, BOMB), "declares 268,435,457 bytes"),
    "outside.onnx": (outside, "stored in another file"),
    "gigantic.onnx": (lambda p: onnx(p, (2**20, 2**20, 3, 3)), "far more than the file can hold"),
    "negative.onnx": (lambda p: onnx(p, (-4, 3, 3, 3)), "an impossible shape"),
    "axes.onnx": (lambda p: onnx(p, (2**40,) * 10**6), "an impossible shape"),
    "text.onnx": (lambda p: onnx(p, (1, 1, 1), data_type=8, string_data=[b"a"]), "instead of numbers"),
    "deep.onnx": (lambda p: onnx(p, graph=nested_graphs(300)), "cannot be read"),
    "nodes.onnx": (lambda p: onnx(p, graph=b"\n\0" * 2**23), "cannot be read"),
}
# What only the trial in another process stops, by its limits of time and memory.
NEED_TRIAL = ("config-bomb.keras", "chunk-bomb.h5", "aliases.h5", "repeated.h5", "deep.h5", "nodes.onnx")


def main():
    """Make each file, read it in a process of its own, and print how that ended."""
    code = (
        "import sys, resource, time; from planar3d.errors import WeightsError\n"
        "from planar3d.transfer.rehearsal import read_arrays\n"
        "try: print('arrays', list(read_arrays(sys.argv[1])))\n"
        "except WeightsError as error: print(str(error).replace(sys.argv[1], 'FILE')[:90])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    chosen = sys.argv[1:] or ATTACKS
    with tempfile.TemporaryDirectory() as name:
        for attack in chosen:
            make, _ = ATTACKS[attack]
            path = Path(name, attack)
            make(path)
            began = time.monotonic()
            done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
            seconds = time.monotonic() - began
            trial = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
            outcome, memory = [*done.stdout.splitlines(), f"code {done.returncode}", "0"][:2]
            ran = ", CODE RAN" * mark_of(path).exists()
            print(
                f"| {attack} | {path.stat().st_size:,} | {outcome}{ran} | {memory} MB | {seconds:.1f} s |", flush=True
            )
            path.unlink()
    print(f"no process took more than {trial} MB")


if __name__ == "__main__":
    main()
