"""A known file is told by its content, and one that is fetched has its digest."""

import functools
import hashlib
import http.server
import threading
from pathlib import Path

import pytest

from planar3d.errors import WeightsError
from planar3d.files import temporary_folder
from planar3d.networks.encoder_weights import fill_flat, known_source
from planar3d.transfer import known_files as module
from planar3d.transfer.digests import file_sha256
from planar3d.transfer.known_files import INPUTS, KnownFile, fetch_known, known_files, recognize
from planar3d.transfer.torch_names import torch_names

CONTENT = b"the published arrays"
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A table of one file, `tiny.pth`, on a server of this machine; sets its digest, gives the folder served."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "tiny.pth").write_bytes(CONTENT)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    monkeypatch.setattr(handler.func, "log_message", lambda *_: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("PLANAR3D_OFFLINE", raising=False)
    url = f"http://127.0.0.1:{server.server_address[1]}/tiny.pth"

    def table(digest=f"sha256:{SHA256}", url=url):
        known = KnownFile("resnet34", "a publisher", "CC BY 4.0", "imagenet", digest, url)
        monkeypatch.setattr(module, "known_files", lambda: {"tiny.pth": known})

    table()
    yield folder, table
    server.shutdown()
    server.server_close()


def test_every_line_of_the_table_is_complete():
    digests = [known.digest for known in known_files().values()]
    assert len(set(digests)) == len(digests)
    for name, known in known_files().items():
        algorithm, _, digits = known.digest.partition(":")
        assert algorithm in ("sha256", "md5") and set(digits) <= set("0123456789abcdef")
        assert len(digits) == {"sha256": 64, "md5": 32}[algorithm] or (len(digits) == 8 and f"-{digits}." in name)
        assert known.input in INPUTS and known.licence and torch_names(known.network)
        assert known.url is None or (known.url.startswith("https://") and known.url.endswith(f"/{name}"))


@pytest.mark.parametrize("digest", [f"sha256:{SHA256}", f"md5:{MD5}", f"sha256:{SHA256[:8]}"])
def test_a_known_file_is_recognized_whatever_its_name_and_fetched_once(served, digest, tmp_path):
    folder, table = served
    table(digest)
    other = tmp_path / "renamed.bin"
    other.write_bytes(CONTENT)
    assert recognize(other, file_sha256(other)).origin == "a publisher"
    other.write_bytes(CONTENT + b"!")
    assert recognize(other, file_sha256(other)) is None
    got = fetch_known("tiny.pth", tmp_path / "cache")
    assert got == tmp_path / "cache" / "tiny.pth" and got.read_bytes() == CONTENT
    (folder / "tiny.pth").unlink()
    assert fetch_known("tiny.pth", tmp_path / "cache") == got


def test_what_another_process_downloaded_meanwhile_is_not_downloaded_again(served, tmp_path):
    (tmp_path / "tiny.pth").write_bytes(CONTENT)  # after this process looked for it, and before it got the lock
    module.download("http://127.0.0.1:9/tiny.pth", tmp_path / "tiny.pth", f"sha256:{SHA256}")
    with pytest.raises(WeightsError, match="could not be downloaded"):
        module.download("http://127.0.0.1:9/tiny.pth", tmp_path / "tiny.pth", f"sha256:{'0' * 64}")


@pytest.mark.parametrize("digest", [f"sha256:{SHA256}", f"sha256:{SHA256[:8]}"])
def test_a_download_of_another_digest_is_refused_and_not_kept(served, digest, tmp_path):
    folder, table = served
    table(digest)
    (folder / "tiny.pth").write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"tiny\.pth could not be downloaded"):
        fetch_known("tiny.pth", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_download_left_is_removed_by_the_next(served, tmp_path):
    with temporary_folder(tmp_path) as left:
        name = Path(left).name
    (tmp_path / name).mkdir()
    (tmp_path / name / "part").write_bytes(CONTENT[:2])
    got = fetch_known("tiny.pth", tmp_path)
    assert name not in {each.name for each in tmp_path.iterdir()} and got.read_bytes() == CONTENT


def test_a_file_of_the_users_that_is_another_is_left_alone(served, tmp_path):
    (tmp_path / "tiny.pth").write_bytes(b"the user's")
    with pytest.raises(WeightsError, match=r"tiny\.pth is not a publisher"):
        fetch_known("tiny.pth", tmp_path)
    assert (tmp_path / "tiny.pth").read_bytes() == b"the user's"


def test_what_cannot_be_fetched_is_an_error_that_says_why(served, tmp_path, monkeypatch):
    folder, table = served
    with pytest.raises(WeightsError, match=r"large\.pth is not a known weights file; choose one of: tiny\.pth"):
        fetch_known("large.pth", tmp_path)
    (folder / "tiny.pth").unlink()
    with pytest.raises(WeightsError, match="could not be downloaded"):
        fetch_known("tiny.pth", tmp_path)
    monkeypatch.setenv("PLANAR3D_OFFLINE", "1")
    with pytest.raises(WeightsError, match="PLANAR3D_OFFLINE disables the download"):
        fetch_known("tiny.pth", tmp_path)
    table(url=None)
    with pytest.raises(WeightsError, match="planar3d cannot download it; it comes from a publisher"):
        fetch_known("tiny.pth", tmp_path)


@pytest.mark.real
def test_the_real_file_is_recognized(real_data):
    file = real_data / "weights/efficientnet_lite0_imagenet_keras_layout.npz"
    known = recognize(file, file_sha256(file))
    assert known.network == "efficientnet_lite0" and known.licence == "Apache-2.0"


def test_an_encoder_without_its_imagenet_weights_says_how_to_go_on(monkeypatch, tmp_path):
    monkeypatch.setenv("PLANAR3D_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = (
        lambda: known_source("ResNet-34", "resnet34-b627a593.pth").origin("imagenet"),
        lambda: fill_flat(None, "imagenet", "resnet34-b627a593.pth"),
    )
    for call in calls:
        with pytest.raises(
            WeightsError,
            match=r"disables the download of .*\.pth\. Do one of these: .*copy resnet34-b627a593\.pth into",
        ):
            call()
