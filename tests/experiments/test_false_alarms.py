"""What is marked where there is nothing is counted, and what is found of few lesions."""

import numpy as np
import pytest
from experiment_modules import modules_of

from planar3d.errors import RunError
from planar3d.files import read_rows, write_csv
from planar3d.scans.nifti_header import header_with
from planar3d.scans.phantom import make_head
from planar3d.scans.phantom_scanner import CENTERS
from planar3d.scans.volume import Scan


@pytest.fixture
def false_alarms():
    """The experiment's module."""
    with modules_of("open_model", "false_alarms") as (module,):
        yield module


def masks(*boxes):
    voxels = np.zeros((20, 20, 10), np.uint8)
    for box in boxes:
        voxels[box] = 1
    return Scan(voxels, header_with(np.diag([2.0, 2.0, 5.0, 1.0]), voxels.shape))


def test_maps_from_the_fifteenth_on_are_for_tests(false_alarms, tmp_path):
    for number in range(20):
        (tmp_path / f"map_{number:02d}.npz").touch()
    assert [path.stem for path in false_alarms.test_maps(tmp_path)] == [f"map_{n}" for n in range(14, 20)]


def test_too_few_maps_and_unknown_kinds_are_refused(false_alarms, tmp_path):
    (tmp_path / "map.npz").touch()
    with pytest.raises(RunError, match="has 1 label maps, but the first 14 are for training"):
        false_alarms.test_maps(tmp_path)
    with pytest.raises(RunError, match="--kinds='thick' is unknown; choose one of: 'none', 'few'"):
        false_alarms.run(tmp_path, tmp_path, tmp_path / "out.csv", kinds="none,thick")


def test_pieces_that_are_no_lesion_are_counted_and_volumes_told(false_alarms):
    lesion, other, alarm = np.s_[2:5, 2:5, 2:4], np.s_[10:13, 10:13, 2:4], np.s_[2:4, 14:16, 7:8]
    row = false_alarms.marked(masks(lesion, other), masks(lesion, alarm))
    assert row["lesions_ml"] == pytest.approx(0.72) and row["marked_ml"] == pytest.approx(0.44)
    assert (row["lesions"], row["found"], row["pieces"], row["false_pieces"]) == (2, 1, 2, 1)
    none = false_alarms.marked(masks(), masks(alarm))
    assert (none["lesions"], none["false_pieces"], none["marked_ml"]) == (0, 1, 0.08)


def test_the_table_has_median_and_largest_volume_and_the_share_found(false_alarms, tmp_path):
    lesion, alarm = np.s_[2:5, 2:5, 2:4], np.s_[2:4, 14:16, 7:8]
    rows = []
    for number, found in enumerate((masks(), masks(alarm), masks(lesion))):
        about = {"model": "m", "rule": "own", "head": str(number), "cut": "none", "voxel_mm": "2.00x2.00x5.00"}
        rows.append(about | {"kind": "none"} | false_alarms.marked(masks(), found))
        rows.append(about | {"kind": "few"} | false_alarms.marked(masks(lesion), found))
    write_csv(tmp_path / "f.csv", false_alarms.COLUMNS, rows)
    *_, none, few = false_alarms.markdown(read_rows(tmp_path / "f.csv"))
    assert none.split(" | ")[3:5] == ["0.08 ml", "0.36 ml"]
    assert few.split(" | ")[5:7] == ["0.33 of 3", "0.3"]


def test_a_phantom_of_no_load_has_no_lesions(false_alarms):
    scan, mask = make_head(CENTERS[1], 0.0, 8.0, np.random.default_rng(0)).values()
    lesions = make_head(CENTERS[1], 1.0, 8.0, np.random.default_rng(0))["Consensus"]
    assert not mask.voxels.any() and lesions.voxels.any()
    assert scan.voxels.max() > 1000
