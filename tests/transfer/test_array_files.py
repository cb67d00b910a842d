"""Weight files are told by their content; damaged and hostile ones are refused by name."""

import io
import json
import subprocess
import zipfile

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from planar3d.errors import WeightsError
from planar3d.transfer import guards
from planar3d.transfer.array_files import read_directly
from planar3d.transfer.rehearsal import read_arrays

WRITERS = {
    "weights.h5": lambda network, path: network.save_weights(path),
    "keras": lambda network, path: network.save(path),
    "h5": lambda network, path: network.save(path),
    "npz": lambda network, path: np.savez(path, **{w.path: np.asarray(w) for w in network.weights}),
}


@pytest.fixture(params=WRITERS)
def file(request, tmp_path, flat_network):
    path = tmp_path / f"tiny.{request.param}"
    WRITERS[request.param](flat_network, path)
    return path


def test_every_format_holds_the_same_arrays(file, values):
    found = read_arrays(file)
    assert sorted(found) == sorted(values)
    for name, array in values.items():
        assert_array_equal(found[name], array)


def test_the_content_tells_the_format_not_the_name(file, values):
    renamed = file.with_name("renamed.bin")
    file.rename(renamed)
    assert sorted(read_arrays(renamed)) == sorted(values)


@pytest.mark.parametrize("kept", [4, 100, 0.5, 0.9])
def test_a_damaged_file_is_an_error_that_names_it_and_the_formats(file, kept):
    content = file.read_bytes()
    file.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(WeightsError, match=rf"{file.name} .*\.weights\.h5, \.keras, \.npz, \.onnx"):
        read_directly(file)


@pytest.mark.parametrize("name", ["notes.txt", "empty.h5", "random.onnx"])
def test_a_file_of_no_known_format_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes({"notes.txt": b"weights", "empty.h5": b"", "random.onnx": bytes(range(256))}[name])
    with pytest.raises(WeightsError, match=rf"(?i){name} .*supported.*: \.h5 of Keras 2 or 3"):
        read_directly(path)


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere\.h5 does not exist"):
        read_arrays(tmp_path / "nowhere.h5")


def test_a_file_without_weights_is_refused(tmp_path):
    h5py.File(tmp_path / "hollow.h5", "w").close()
    with pytest.raises(WeightsError, match=r"hollow\.h5 has no weights"):
        read_directly(tmp_path / "hollow.h5")


class Trap:
    """Unpickling it raises the alarm."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


def test_an_archive_of_torch_with_another_suffix_is_refused_with_what_to_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.weights", "w") as archive:
        archive.writestr("a/data.pkl", b"any")
    with pytest.raises(WeightsError, match=r"it has: a/data\.pkl\. If torch\.save wrote it, rename it to end in \.pth"):
        read_directly(tmp_path / "a.weights")


def test_pickled_objects_are_refused_and_not_unpickled(tmp_path):
    np.savez(tmp_path / "trap.npz", **{"block1_conv1/kernel": np.array([Trap()], dtype=object)})
    with pytest.raises(WeightsError, match=r"trap\.npz: block1_conv1/kernel\.npy has pickled Python objects"):
        read_directly(tmp_path / "trap.npz")
    assert not Trap.sprung


def test_an_npz_array_that_declares_more_than_it_holds_is_refused(tmp_path):
    header = io.BytesIO()
    declared = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
    np.lib.format.write_array_header_1_0(header, declared)
    with zipfile.ZipFile(tmp_path / "claims.npz", "w") as archive:
        archive.writestr("block1_conv1/kernel.npy", header.getvalue())
    with pytest.raises(WeightsError, match=r"claims\.npz: block1_conv1/kernel\.npy declares"):
        read_directly(tmp_path / "claims.npz")


@pytest.mark.parametrize("member", ["model.weights.h5", "config.json", "block1_conv1/kernel.npy"])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, member):
    monkeypatch.setattr(guards, "_ALWAYS_ALLOWED", 1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        if member == "config.json":
            archive.writestr("model.weights.h5", b"")
        archive.writestr(member, bytes(1 << 24))
    assert (tmp_path / "bomb.zip").stat().st_size < 1 << 15
    with pytest.raises(WeightsError, match=rf"bomb\.zip: {member} declares 16,777,216 bytes"):
        read_directly(tmp_path / "bomb.zip")


@pytest.mark.parametrize("member", ["../escaped.txt", "/escaped.txt", "assets/../../escaped.txt", "..\\escaped.txt"])
def test_an_archive_whose_paths_leave_it_is_refused(tmp_path, flat_network, member):
    path = tmp_path / "inner" / "climbs.keras"
    path.parent.mkdir()
    flat_network.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, b"out")
    with pytest.raises(WeightsError, match=r"climbs\.keras: its member .* points outside"):
        read_directly(path)
    assert not list(tmp_path.rglob("escaped.txt"))


@pytest.mark.parametrize("kind", ["external", "soft"])
@pytest.mark.parametrize("layout", ["h5", "keras"])
def test_links_are_refused_wherever_they_lie(tmp_path, flat_network, values, kind, layout):
    elsewhere = tmp_path / "elsewhere.h5"
    with h5py.File(elsewhere, "w") as file:
        file["secret"] = values["block1_conv1/kernel"]
    path = tmp_path / "linked.weights.h5"
    flat_network.save_weights(path)
    with h5py.File(path, "a") as file:
        variables = file["layers/conv2d/vars"]
        del variables["0"]
        variables["0"] = h5py.ExternalLink(elsewhere, "/secret") if kind == "external" else h5py.SoftLink("/layers")
    if layout == "keras":
        archive = tmp_path / "linked.keras"
        with zipfile.ZipFile(archive, "w") as zipped:
            zipped.write(path, "model.weights.h5")
            zipped.writestr("config.json", json.dumps({"config": {}}))
        path = archive
    with pytest.raises(WeightsError, match=r"layers/conv2d/vars/0 is a link"):
        read_directly(path)


def test_a_linked_layer_of_a_released_file_is_refused(tmp_path, released_file):
    path = released_file()
    with h5py.File(path, "a") as file:
        del file["block1_conv1"]
        file["block1_conv1"] = h5py.ExternalLink("/etc/hostname", "/")
    with pytest.raises(WeightsError, match="block1_conv1 is a link to /etc/hostname"):
        read_directly(path)


@pytest.mark.parametrize("kind", ["external", "virtual"])
def test_data_stored_in_another_file_are_refused(tmp_path, flat_network, kind):
    path, outside = tmp_path / "foreign.weights.h5", tmp_path / "outside.raw"
    outside.write_bytes(bytes(4 * 108))
    flat_network.save_weights(path)
    with h5py.File(path, "a") as file:
        variables = file["layers/conv2d/vars"]
        del variables["0"]
        if kind == "external":
            variables.create_dataset("0", (3, 3, 3, 4), "<f4", external=str(outside))
        else:
            layout = h5py.VirtualLayout((3, 3, 3, 4), "<f4")
            layout[:] = h5py.VirtualSource(str(outside), "x", (3, 3, 3, 4))
            variables.create_virtual_dataset("0", layout)
    with pytest.raises(WeightsError, match=r"foreign\.weights\.h5: layers/conv2d/vars/0 is stored in another file"):
        read_directly(path)


def test_an_hdf5_array_far_larger_than_its_file_is_refused(tmp_path, flat_network):
    path = tmp_path / "huge.weights.h5"
    flat_network.save_weights(path)
    with h5py.File(path, "a") as file:
        file["layers/conv2d/vars"].create_dataset("2", (1 << 40,), "<f4", chunks=(1 << 20,))
    with pytest.raises(WeightsError, match=r"huge\.weights\.h5: layers/conv2d/vars/2 declares 4,398,046,511,104 bytes"):
        read_directly(path)


def test_a_group_that_contains_itself_is_read_once(tmp_path, flat_network, values):
    path = tmp_path / "loop.weights.h5"
    flat_network.save_weights(path)
    with h5py.File(path, "a") as file:
        file["layers/again"] = file["layers"]
    assert set(read_arrays(path)) == set(values)


@pytest.mark.parametrize(("value", "says"), [("a sentence", "instead of numbers"), (h5py.Empty("f4"), "has no values")])
def test_text_or_nothing_in_place_of_numbers_is_refused(tmp_path, flat_network, value, says):
    path = tmp_path / "text.weights.h5"
    flat_network.save_weights(path)
    with h5py.File(path, "a") as file:
        file["layers/conv2d/vars/2"] = value
    with pytest.raises(WeightsError, match=rf"text\.weights\.h5: layers/conv2d/vars/2.*{says}"):
        read_directly(path)


def test_an_interrupt_during_a_rehearsal_leaves_no_process(tmp_path, monkeypatch):
    started = []

    def interrupted(process, *how):
        started.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "_communicate", interrupted)
    monkeypatch.setattr(subprocess.Popen, "_wait", _patient(subprocess.Popen._wait))
    np.savez(tmp_path / "new.npz", a=np.ones(3))
    with pytest.raises(KeyboardInterrupt):
        read_arrays(tmp_path / "new.npz")
    assert started[0].returncode is not None


def _patient(wait):
    """Popen's wait without the quarter of a second in which the process would have to end by Ctrl+C."""

    def wait_long(process, timeout):
        if timeout is not None:
            raise subprocess.TimeoutExpired("", timeout)
        return wait(process, timeout)

    return wait_long
