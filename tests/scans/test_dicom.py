"""Of DICOM files it is told which series they are, and which of these are FLAIR scans; strange bytes do no harm."""

import sys

import pytest

pytest.importorskip("pydicom", reason="needs the extra dicom")
pytest.importorskip("dcm2niix", reason="needs the extra dicom")

from dicom_series import OBLIQUE, SAGITTAL, T1_TIMES, VOXELS, change, find_series, in_world, write_series

from planar3d.errors import Planar3DError, ScanError
from planar3d.scans.dicom import choose_flair, names_flair
from planar3d.scans.dicom_conversion import read_dicom_series
from planar3d.scans.dicom_headers import is_dicom


@pytest.mark.parametrize(
    ("flair", "texts", "inversion", "echo"),
    [
        (True, ["t2_tirm_tra_dark-fluid_FS"], 2500, 120),
        (True, ["Schädel t2_space_dark_fluid_sag_p2_iso"], 0, 400),
        (True, ["t2_spc_da-fl_sag"], 1800, 390),
        (True, ["AX", "t2_tirm_tra_dark-fluid"], 2500, 90),
        (True, ["Ax T2 FLAIR"], 2250, 120),
        (True, ["Sag CUBE FLAIR"], 0, 0),
        (True, ["FLAIR_SENSE"], 2800, 125),
        (True, ["T2W_FLAIR"], 0, 140),
        (True, ["3D_VISTA FLAIR SAG"], 1650, 300),
        (True, ["Tête axiale FLAIR longTR"], 0, 0),
        (True, ["tra", "", "FLUID_ATTENUATED"], 0, 0),
        (True, ["t2_tirm_tra"], 2500, 120),
        (True, ["série 4"], 2400, 110),
        (False, ["Ax T1 FLAIR"], 860, 24),
        (False, ["FLAIR"], 860, 24),
        (False, ["t1_tirm_tra_dark-fluid"], 0, 0),
        (False, ["t2_tirm_cor"], 160, 60),
        (False, ["STIR cor"], 0, 60),
        (False, ["t2_spc_dir_sag"], 3000, 300),
        (False, ["MP2RAGE INV2"], 2500, 3),
        (False, ["t1_mprage_sag"], 1100, 2.5),
        (False, ["Ax T2 PROPELLER"], 0, 100),
        (False, ["localizer", "FLAIR"], 0, 0),
        (False, ["FLAIR_loc"], 0, 0),
        (False, ["FLAIR_SUB"], 2500, 120),
        (False, ["t2_tirm_tra_dark-fluid subtraction"], 2500, 120),
        (False, ["FLAIR tra", "", "DERIVED PRIMARY M SUB"], 2500, 120),
        (False, ["FLAIR - difference of visits"], 0, 0),
        (False, ["FLAIR sag", "DERIVED PRIMARY PROJECTION IMAGE MIP"], 1650, 300),
        (True, ["sub-01 FLAIR"], 0, 0),
        (True, ["study_sub_01_FLAIR"], 0, 0),
        (True, ["FLAIR subject 4"], 0, 0),
    ],
)
def test_flair_is_told_by_its_name_and_its_times(flair, texts, inversion, echo):
    assert names_flair(texts, inversion, echo) is flair


def test_of_several_series_the_original_flair_ones_are_chosen(tmp_path):
    derived = ["DERIVED", "SECONDARY", "MPR"]
    write_series(tmp_path / "a", VOXELS, OBLIQUE, "t1_se_tra", 2, **T1_TIMES)
    write_series(tmp_path / "a", VOXELS, OBLIQUE, "t2_tirm_tra_dark-fluid", 7, name="f{instance}")
    write_series(tmp_path / "b", VOXELS, SAGITTAL, "Sag CUBE FLAIR", 9, "ge")
    write_series(tmp_path / "b", VOXELS, OBLIQUE, "FLAIR MPR", 10, name="m{instance}", ImageType=derived)
    # GE names the whole session in ProtocolName.
    write_series(tmp_path / "c", VOXELS, OBLIQUE, "Ax T2", 4, "ge", ProtocolName="MS FLAIR", InversionTime=None)
    series = find_series(p for p in tmp_path.rglob("*") if p.is_file())
    chosen, note = choose_flair(series, tmp_path)
    assert [one.number for one in series] == [2, 4, 7, 9, 10]
    assert [(one.number, one.label) for one in chosen] == [(7, "7_t2_tirm_tra_dark-fluid"), (9, "9_Sag_CUBE_FLAIR")]
    assert not note
    with pytest.raises(
        ScanError, match=r"no series with the name or times of a FLAIR.*2 “t1_se_tra” \(MR, 9 files\); 4 “Ax T2”"
    ):
        choose_flair([series[0], series[1]], tmp_path)
    alone, note = choose_flair([series[0]], tmp_path)
    assert alone == [series[0]] and "t1_se_tra" in note and "only MR series" in note


def test_headers_name_no_files_and_no_control_characters_pass(tmp_path):
    evil = "FLAIR/../../x\x1b[2J" + "long" * 99
    write_series(tmp_path / "in", VOXELS, OBLIQUE, evil, ProtocolName="../../../%s;rm", PatientID="../x")
    (series,), _ = choose_flair(find_series(tmp_path.rglob("*.dcm")), tmp_path)
    assert (
        "\x1b" not in str(series)
        and len(series.label) < 80
        and "/" not in series.label
        and ".." not in series.label.split("_")[0]
    )
    assert (in_world(read_dicom_series(series), VOXELS, OBLIQUE) == VOXELS).all()
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_damaged_and_deflated_files_are_named(tmp_path):
    files = write_series(tmp_path, VOXELS, OBLIQUE)
    of_series = b"IS\x02\x005 "  # its number
    assert of_series in files[3].read_bytes()
    files[3].write_bytes(files[3].read_bytes().replace(of_series, b"IS\x02\x00xy"))
    with pytest.raises(ScanError, match=r"0004\.dcm is damaged or cannot be read"):
        find_series(files)
    change([files[0]], lambda k, dataset: setattr(dataset.file_meta, "TransferSyntaxUID", "1.2.840.10008.1.2.1.99"))
    with pytest.raises(ScanError, match=r"0001\.dcm is a deflated DICOM file"):
        find_series(files)


def test_files_are_known_by_their_beginning(tmp_path):
    (file,) = write_series(tmp_path, VOXELS, OBLIQUE, only=[0], name="IM{instance}")
    assert is_dicom(file)
    (tmp_path / "text").write_text("a report, no image")
    (tmp_path / "empty").touch()
    assert not is_dicom(tmp_path / "text") and not is_dicom(tmp_path / "empty")


def test_without_its_packages_dicom_asks_for_the_extra(tmp_path, monkeypatch):
    files = write_series(tmp_path, VOXELS, OBLIQUE)
    series = find_series(files)[0]
    monkeypatch.setitem(sys.modules, "dcm2niix", None)
    with pytest.raises(Planar3DError, match=r"dcm2niix.*pip install 'planar3d\[dicom\]'"):
        read_dicom_series(series)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(Planar3DError, match=r"pydicom.*pip install 'planar3d\[dicom\]'"):
        find_series(files)
