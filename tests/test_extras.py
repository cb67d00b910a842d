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
