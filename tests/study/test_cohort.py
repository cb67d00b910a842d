"""Many scans get names of their own."""

from pathlib import Path

import pytest

from planar3d.errors import ScanError
from planar3d.study.cohort import find_scans, name_outputs


def test_scans_of_one_name_are_told_apart_by_their_folders():
    scans = [Path("/d/01A/3DFLAIR.nii.gz"), Path("/d/01B/3DFLAIR.nii")]
    assert list(name_outputs(scans)) == ["01A_3DFLAIR", "01B_3DFLAIR"]
    assert list(name_outputs(scans[:1])) == ["3DFLAIR"]
    with pytest.raises(ScanError, match="given twice"):
        name_outputs([scans[0], scans[0]])


def test_a_folder_without_scans_is_refused(tmp_path):
    (tmp_path / "T1.nii.gz").touch()
    with pytest.raises(ScanError, match="FLAIR in its name"):
        find_scans([tmp_path])
