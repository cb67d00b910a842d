"""What the tests share: the folder of real scans and weights, and small scans made on the spot."""

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As the command line has it: what is bit for bit equal is so by oneDNN, which TensorFlow leaves off without AVX-512.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@pytest.fixture
def real_data() -> Path:
    """The folder that holds data/ and weights/; the test is skipped without it."""
    folder = os.environ.get("PLANAR3D_TEST_DATA")
    if not folder or not Path(folder, "data").is_dir():
        pytest.skip("PLANAR3D_TEST_DATA names no folder with data/ and weights/")
    return Path(folder)


@pytest.fixture
def write_nifti(tmp_path):
    """Write voxels as a NIfTI file in the test's folder, and return its path."""

    def write(voxels, name="scan.nii.gz", affine=None, **header):
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) if affine is None else affine
        content = nib.Nifti1Image(np.asarray(voxels), affine).to_bytes()
        # nibabel would mend the header on saving, so fields are changed behind its back.
        changed = nib.Nifti1Header(content[:348])
        for field, value in header.items():
            changed[field] = value
        content = changed.binaryblock + content[348:]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


@pytest.fixture
def close_folder(monkeypatch):
    """Make a folder one that cannot be opened; root may open every one, so the refusal is made here."""

    def close(folder):
        listdir = os.listdir

        def refuse(place):
            if Path(place) == folder:
                raise PermissionError(13, "Permission denied")
            return listdir(place)

        monkeypatch.setattr(os, "listdir", refuse)

    return close


@pytest.fixture
def gradient_scan(write_nifti):
    """A small scan without symmetry, and its path."""
    rng = np.random.default_rng(0)
    voxels = (np.arange(6 * 7 * 8).reshape(6, 7, 8) + 50 * rng.random((6, 7, 8))).astype(np.float32)
    return write_nifti(voxels), voxels


@pytest.fixture
def untraced():
    """Operation by operation: tracing a network takes longer than a few steps of it."""
    tensorflow = pytest.importorskip("tensorflow")
    tensorflow.config.run_functions_eagerly(True)
    yield
    tensorflow.config.run_functions_eagerly(False)
