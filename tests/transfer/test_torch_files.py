"""Torch's files give the tensors that were saved, and never run or inflate what else they hold."""

import json
import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from types import ModuleType

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from planar3d.errors import WeightsError
from planar3d.transfer.array_files import read_directly
from planar3d.transfer.rehearsal import read_arrays
from planar3d.transfer.torch_files import TORCH_READERS


def read(path):
    return TORCH_READERS[path.suffix](path)


@pytest.fixture
def state(torch):
    return {"conv.weight": torch.randn(4, 3, 3, 3), "bn.num_batches_tracked": torch.tensor(7)}


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_safetensors_come_back_as_saved_and_half_precision_as_float32(torch, state, half, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    state["half"] = torch.randn(5).to(getattr(torch, half))
    safetensors.save_file(state, tmp_path / "a.safetensors")
    found = read(tmp_path / "a.safetensors")
    assert found.keys() == state.keys() and found["half"].dtype == np.float32
    for name, tensor in state.items():
        assert_array_equal(found[name], tensor.float() if name == "half" else tensor)


def test_bfloat16_is_read_where_no_library_of_networks_is_loaded(tmp_path):
    pytest.importorskip("safetensors")
    header = json.dumps({"half": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\x80\x3f\x00\x40")
    assert_array_equal(read_arrays(path)["half"], np.float32([1, 2]))  # another process reads it first


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nest", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
def test_state_dictionaries_of_torch_come_back_as_saved(torch, state, zipped, nest, tmp_path):
    state["half"] = torch.randn(5).bfloat16()
    torch.save(nest(state), tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found = read(tmp_path / "a.pth")
    assert found.keys() == state.keys()
    assert_array_equal(found["conv.weight"], state["conv.weight"])
    assert_array_equal(found["half"], state["half"].float())


@pytest.mark.parametrize("name", ["a.bin", "a.ckpt", "a.pth.tar"])
def test_a_checkpoint_s_only_state_dictionary_is_found_under_any_key_and_suffix(torch, state, name, tmp_path):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))]).state_dict()
    beside = {"loss": torch.tensor(0.4), "rng": torch.get_rng_state(), "optimizer": optimizer}
    torch.save({"epoch": 3, "model_state_dict": state, **beside}, tmp_path / name)
    assert read_arrays(tmp_path / name).keys() == state.keys()


def test_a_state_dictionary_in_a_checkpoint_in_another_is_found(torch, state, tmp_path):
    torch.save({"checkpoint": {"state_dict": state}, "args": {"model": "resnet18"}}, tmp_path / "a.pth")
    assert list(read(tmp_path / "a.pth")) == list(state)


def test_of_a_file_without_tensors_its_entries_are_named(torch, tmp_path):
    torch.save({"epoch": 3, "nested": {"in": {"in": {}}}}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"it has: epoch, nested\. Save only"):
        read(tmp_path / "a.pth")


def test_of_several_state_dictionaries_none_is_chosen(torch, state, tmp_path):
    torch.save({"student": state, "teacher": state}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="has 2 state dictionaries: student, teacher"):
        read(tmp_path / "a.pth")


def test_torchscript_is_refused_with_the_way_to_save_its_weights(torch, tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"a TorchScript program.*torch\.jit\.load\(file\)\.state_dict\(\)"):
        read(tmp_path / "a.pt")


def test_a_page_instead_of_the_file_is_not_called_a_pickle(torch, tmp_path):
    (tmp_path / "a.pth").write_text("<html>404</html>")
    with pytest.raises(WeightsError, match=r"a\.pth is not a file that torch\.save wrote"):
        read(tmp_path / "a.pth")


def test_complex_numbers_are_refused_instead_of_losing_a_part(torch, tmp_path):
    torch.save({"a": torch.ones(3, dtype=torch.complex64)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="a is not a plain dense tensor"):
        read(tmp_path / "a.pth")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "C64"])
def test_types_of_safetensors_without_a_meaning_of_their_own_are_named(dtype, tmp_path):
    pytest.importorskip("safetensors")
    header = json.dumps({"a": {"dtype": dtype, "shape": [1], "data_offsets": [0, 8 if dtype == "C64" else 1]}})
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(8 if dtype == "C64" else 1))
    with pytest.raises(WeightsError, match=f"a has {dtype} values. Save the weights as dense float32 tensors"):
        read(path)


class Harmful:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("write", ["torch", "pickle"])
def test_a_pickle_is_not_run(torch, write, tmp_path):
    path, trace = tmp_path / "a.pth", tmp_path / "trace"
    content = {"conv.weight": torch.ones(1), "more": Harmful(str(trace))}
    if write == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(WeightsError, match="has more than tensors"):
        read(path)
    assert not trace.exists()


def test_a_whole_pickled_network_is_refused(torch, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"a\.pt has more than tensors.*state_dict"):
        read(tmp_path / "a.pt")


class Overlong:
    """A pickled tensor that has more values than torch can count."""

    def __init__(self, torch):
        self.parts = torch.ones(1)._typed_storage(), 0, (10**30,), (1,), False, OrderedDict()
        self.make = torch._utils._rebuild_tensor_v2

    def __reduce__(self):
        return self.make, self.parts


def test_of_what_torch_says_of_a_damaged_file_the_places_in_its_code_are_left_out(torch, tmp_path):
    torch.save({"a": Overlong(torch)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth cannot be read as weights \(TypeError: set_.*\)\. It is damaged"):
        read_directly(tmp_path / "a.pth")


def test_a_number_repeated_along_axes_cannot_fill_the_memory(torch, tmp_path):
    torch.save({"a": torch.ones(1).expand(10**6, 10**6)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="declares 4,000,000,000,000 bytes"):
        read(tmp_path / "a.pth")


def test_an_archive_that_inflates_is_refused(torch, state, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a/data/0", bytes(300 * 2**20))
    with pytest.raises(WeightsError, match="a/data/0 declares"):
        read(tmp_path / "a.pth")


def test_sparse_tensors_are_refused(torch, tmp_path):
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="a is not a plain dense tensor"):
        read(tmp_path / "a.pth")


@pytest.mark.parametrize(("suffix", "package"), [(".pth", "torch"), (".safetensors", "safetensors"), (".onnx", "onnx")])
def test_a_package_that_is_missing_or_damaged_is_named(suffix, package, tmp_path, monkeypatch):
    (tmp_path / f"a{suffix}").write_bytes(b"any")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(WeightsError, match=rf"{suffix}: .* not installed.* pip install 'planar3d\[{package}\]'"):
        read_directly(tmp_path / f"a{suffix}")
    monkeypatch.setitem(sys.modules, package, ModuleType(package))
    with pytest.raises(WeightsError, match=rf"{suffix}: .* too old or damaged.* pip install 'planar3d\[{package}\]'"):
        read_directly(tmp_path / f"a{suffix}")
