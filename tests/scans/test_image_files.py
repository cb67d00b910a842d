"""Image files are known by their suffix in any capitals; nothing in a folder is passed over but what is hidden."""

import errno
import os
from pathlib import Path

import pytest

from planar3d.scans.image_files import by_stem, files_within, is_flair, is_nifti, stem, suffix, why_unusable


@pytest.mark.parametrize("name", ["3DFLAIR.nii", "3DFLAIR.nii.gz", "3DFLAIR.NII.GZ", "3DFLAIR.Nii", "3DFLAIR.nii.GZ"])
def test_a_nifti_name_is_known_in_any_capitals(name):
    path = Path("a.b") / name
    assert is_nifti(path) and is_flair(path) and stem(path) == "3DFLAIR" and why_unusable(path) == ""


@pytest.mark.parametrize("ending", [".mgz", ".MGH", ".img", ".HDR", ".nrrd", ".mha", ".mnc", ".HEAD", ".par"])
def test_images_of_other_formats_are_known_and_get_advice(tmp_path, ending):
    path = tmp_path / f"3DFLAIR{ending}"
    path.write_bytes(bytes(range(256)))  # which no format begins with
    assert is_flair(path) and not is_nifti(path) and stem(path) == "3DFLAIR" and suffix(path) == ending.lower()
    assert str(path) in why_unusable(path) and "onvert" in why_unusable(path)


@pytest.mark.parametrize(
    ("ending", "start"), [(".nii.bz2", b"BZh9"), (".NII.XZ", b"\xfd7zXZ\0"), (".nii.zip", b"PK\x03\x04")]
)
def test_images_packed_otherwise_are_known_and_get_advice(tmp_path, ending, start):
    path = tmp_path / f"FLAIR{ending}"
    path.write_bytes(start)
    assert is_flair(path) and not is_nifti(path) and stem(path) == "FLAIR" and "Unpack it first" in why_unusable(path)


@pytest.mark.parametrize(
    "name",
    [
        *("FLAIR.txt", "FLAIR.json", "FLAIR", "T1.nii", "T1_to_FLAIR.nii.gz", "3DT1_in_3DFLAIR.nii"),
        *("a_FLAIR_mask.NII.GZ", "a_FLAIR_dseg.nii", "FLAIR-mask.nii", "FLAIR_mask2.nii", "mask_FLAIR.nii"),
        *("FLAIR_lesions.nii", "FLAIR_WMH.nii", "FLAIR_brainmask.nii", "a_space-FLAIR_T1w.nii"),
        *("ples_lpa_mFLAIR.nii", "bples_lga_0.3_rmFLAIR.nii", "T1_filled_lpa_mFLAIR.nii"),  # of LST
        *("space-flair_seg-lst.nii.gz", "space-flair_desc-annotated_seg-lst.nii.gz"),  # of LST-AI
        *("FLAIR_sub.nii.gz", "P1_FLAIR-subtraction.nii", "FLAIR_MIP.nii", "FLAIR_v1_v2_diff.nii"),
        *("t1_tirm_tra_dark-fluid.nii.gz", "t2_tirm_tra_dark-fluid_mask.nii.gz", "darkfield.nii", "t2_spc_sag.nii"),
        "t2_stir_dark-fluid.nii",
    ],
)
def test_other_files_masks_and_other_contrasts_are_no_flair_images(name):
    assert not is_flair(Path(name))


@pytest.mark.parametrize(
    "name",
    [
        *("mFLAIR.nii", "FLAIR_brain.nii", "masked_FLAIR.nii", "FLAIR_to_T1.nii", "space-FLAIR_FLAIR.nii"),
        *("MS_lesion_FLAIR.nii", "subject_2_FLAIR.nii", "tomo_flair.nii", "sub-a_FLAIR.nii", "ms_sub_1_flair.nii"),
        *("5_t2_tirm_tra_dark-fluid.nii.gz", "T2_SPACE_DarkFluid_sag.nii", "t2_spc_da-fl_sag_p2_iso.nii.gz"),  # Siemens
        *("3_dark_fluid_tra.nii", "P1_T1_FLAIR.nii"),  # as in DICOM headers, but T1 may be a visit
    ],
)
def test_processed_scans_are_flair_images(name):
    assert is_flair(Path(name))


def test_a_link_without_its_target_is_told_from_a_file_that_is_not_there(tmp_path):
    link = tmp_path / "a_FLAIR.nii.gz"
    link.symlink_to(".git/annex/objects/MD5E-s1--0")
    assert str(link) in why_unusable(link) and "annex get" in why_unusable(link)
    link.unlink()
    link.symlink_to(link)
    assert "is a link to" in why_unusable(link)
    assert why_unusable(tmp_path / "absent.nii") == ""
    os.mkfifo(tmp_path / "pipe_FLAIR.nii")
    assert "pipe_FLAIR.nii is a folder or device, not a .nii" in why_unusable(tmp_path / "pipe_FLAIR.nii")


def test_all_files_are_found_once_through_links_and_none_that_is_hidden(tmp_path):
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    for path in ("b/1.nii", "b/._1.nii", "b/.git/2.nii", "derivatives/3.nii", "lost+found/4.nii", ".5.nii"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    elsewhere.mkdir()
    (elsewhere / "6.nii").touch()
    (folder / "a").symlink_to(folder / "b")
    (folder / "b/back").symlink_to(folder)
    (folder / "linked").symlink_to(elsewhere)
    (folder / "lost.nii").symlink_to("nowhere")
    found, closed = files_within(folder, leave={"derivatives"})
    assert [path.relative_to(folder).as_posix() for path in found] == ["b/1.nii", "linked/6.nii", "lost.nii"]
    assert closed == {}


def test_a_closed_folder_is_named(tmp_path, close_folder):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.nii").touch()
    close_folder(tmp_path / "closed")
    found, closed = files_within(tmp_path)
    assert found == [tmp_path / "a.nii"]
    assert "closed cannot be opened (Permission denied)" in closed[tmp_path / "closed"]


def test_a_folder_that_cannot_be_reached_is_named(tmp_path, monkeypatch, close_folder):
    """Its scans had been left out without a word, as of a file server that lost it."""
    stat, lost = os.stat, tmp_path / "lost"

    def reach(place, **how):
        if place == lost:
            raise OSError(errno.ESTALE, "Stale file handle")
        return stat(place, **how)

    lost.mkdir()
    (tmp_path / "a.nii").touch()
    close_folder(lost)
    monkeypatch.setattr(os, "stat", reach)
    found, closed = files_within(tmp_path)
    assert found == [tmp_path / "a.nii"] and list(closed) == [lost]


def test_a_link_to_a_folder_that_is_gone_is_named(tmp_path):
    for name, target in (("01016SACH", "disk/01016SACH"), ("derivatives", "disk"), ("README", ".git/annex/objects/k")):
        (tmp_path / name).symlink_to(target)
    found, closed = files_within(tmp_path, leave={"derivatives"})
    assert found == [tmp_path / "README"] and list(closed) == [tmp_path / "01016SACH"]
    assert "01016SACH is a link to disk/01016SACH, which does not exist" in closed[tmp_path / "01016SACH"]


def test_files_that_differ_in_their_suffix_stand_together_gzipped_nifti_first():
    names = ["d/a.nii", "d/a.mgz", "d/a.NII.GZ", "d/b.img", "d/b.hdr", "e/a.nii"]
    assert [[path.as_posix() for path in alike] for alike in by_stem(map(Path, names))] == [
        ["d/a.NII.GZ", "d/a.nii", "d/a.mgz"],
        ["d/b.img", "d/b.hdr"],
        ["e/a.nii"],
    ]
