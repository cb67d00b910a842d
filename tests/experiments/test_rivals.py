"""Masks of other programs are written whole or not at all, since one that exists counts as done."""

from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from experiment_modules import modules_of


def test_a_mask_whose_writing_is_cut_off_does_not_count_as_done(tmp_path, monkeypatch):
    case = SimpleNamespace(images={"flair": tmp_path / "sub-1_FLAIR.nii.gz"})

    def run(words, log):
        nib.MGHImage(np.full((4, 5, 6), 99, np.int32), np.eye(4)).to_filename(words[4] / "seg.mgz")
        return {}

    def cut_off(image, path):
        Path(path).write_bytes(b"half")
        raise OSError("cut off")

    with modules_of("rivals", "samseg") as [samseg]:
        monkeypatch.setattr(samseg, "TABLE", tmp_path / "samseg.csv")
        monkeypatch.setattr(samseg, "find_cases", lambda data: SimpleNamespace(by_id=lambda: {"sub-1": case}))
        monkeypatch.setattr(samseg, "measured", run)
        monkeypatch.setattr(samseg.nib, "save", cut_off)
        with pytest.raises(OSError, match="cut off"):
            samseg.run(tmp_path, tmp_path / "run_samseg", tmp_path / "out", "sub-1", 1)
    assert [path.name for path in (tmp_path / "out/samseg").iterdir()] == ["sub-1"]
