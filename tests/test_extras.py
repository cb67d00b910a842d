"""Missing packages of extras are told in a sentence, before anything needs them."""

import pytest

from planar3d.errors import Planar3DError
from planar3d.extras import check_extra, is_installed


def test_a_folder_named_like_a_package_is_no_package(tmp_path, monkeypatch):
    """In the folder of an export to onnx and openvino, prediction took these folders for the packages."""
    (tmp_path / "an_export").mkdir()
    (tmp_path / "a_package").mkdir()
    (tmp_path / "a_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert is_installed("a_package") and not is_installed("a_package", "an_export")
    with pytest.raises(Planar3DError, match=r"an_export, which is not installed.*planar3d\[openvino\]"):
        check_extra("openvino", "a_package", "an_export")


@pytest.mark.parametrize(("extra", "package"), [("openvino", "openvino"), ("litert", "ai-edge-litert")])
def test_a_version_below_the_bound_is_named_with_the_bound(tmp_path, monkeypatch, extra, package):
    """OpenVINO 2023.3 ended in a traceback when it was used."""
    imported = package.replace("-", "_")
    about = tmp_path / f"{imported}-0.3.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.3.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Planar3DError, match=rf"needs? {package}>=[\d.]+, but version 0\.3\.0 is installed"):
        check_extra(extra, imported)


def test_a_package_that_is_damaged_or_too_old_is_not_called_missing(tmp_path, monkeypatch):
    """With Jinja2 2, a missing MarkupSafe was named, which was there; after the training whose report needed it."""
    (tmp_path / "a_damaged_package.py").write_text("from os import no_such_name")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Planar3DError, match=r"cannot import name 'no_such_name' .* too old or damaged") as told:
        check_extra("study", "a_damaged_package")
    assert "is not installed" not in str(told.value) and "pip install 'planar3d[study]'" in str(told.value)
