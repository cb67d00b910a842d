"""Data sets are found by their layout; what is missing is named."""

import gzip
import json

import pytest
from stored_scans import touch

from planar3d.errors import DatasetError, Planar3DError, Planar3DWarning
from planar3d.scans.case import Case
from planar3d.scans.layouts import find_cases, find_layout


@pytest.mark.parametrize("above", ["", "TrainingDataset_MSSEG/", "Unprocessed training dataset/TrainingDataset_MSSEG/"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_msseg_as_first_distributed(tmp_path, above, suffix):
    for patient in ("01016SACH", "07001MOEL"):
        touch(tmp_path, f"{above}{patient}/3DFLAIR.nii{suffix}", f"{above}{patient}/Consensus.nii{suffix}")
    dataset = find_cases(tmp_path)
    assert [(case.id, case.group) for case in dataset.cases] == [("01016SACH", "01"), ("07001MOEL", "07")]
    assert all(case.images["flair"].is_file() and case.labels.is_file() for case in dataset.cases)


@pytest.mark.parametrize(
    ("scan", "mask"), [("3DFLAIR.NII.GZ", "Consensus.NII"), ("3DFlair.Nii", "consensus.nii.gz"), ("3dflair.nii",) * 2]
)
def test_capitals_make_no_difference(tmp_path, scan, mask):
    mask = "Consensus.nii" if mask == scan else mask
    touch(tmp_path, f"01016SACH/{scan}", f"01016SACH/{mask}", f"center_07/patient_03/raw_data/{scan[2:]}")
    (case,) = find_cases(tmp_path).cases
    assert (case.images["flair"], case.labels) == (tmp_path / f"01016SACH/{scan}", tmp_path / f"01016SACH/{mask}")
    touch(tmp_path, f"center_07/patient_03/masks/{mask}")
    (case,) = find_cases(tmp_path / "center_07/..").cases
    assert case.id == "01016SACH"
    for file in (scan, mask):
        (tmp_path / "01016SACH" / file).unlink()
    assert [(case.id, case.group) for case in find_cases(tmp_path).cases] == [("center_07_patient_03", "center_07")]


@pytest.mark.parametrize(
    "names",
    [
        ("01016SACH/3DFLAIR", "01016SACH/Consensus"),
        ("sub-1/anat/sub-1_FLAIR", "derivatives/m/sub-1/anat/sub-1_label-lesion_mask"),
        ("BraTS2021_1/BraTS2021_1_flair", "BraTS2021_1/BraTS2021_1_seg"),
        ("patient1/patient1_2CH_ED", "patient1/patient1_2CH_ED_gt"),
    ],
)
def test_of_a_gzipped_and_an_unzipped_file_of_one_name_and_content_the_gzipped_one_is_taken(tmp_path, names):
    for name in names:
        touch(tmp_path, f"{name}.nii", f"{name}.nii.gz")
        (tmp_path / f"{name}.nii").write_bytes(b"voxels")
        (tmp_path / f"{name}.nii.gz").write_bytes(gzip.compress(b"voxels"))
    (case,) = find_cases(tmp_path).cases
    (scan,) = case.images.values()
    assert [path.relative_to(tmp_path).as_posix() for path in (scan, case.labels)] == [f"{n}.nii.gz" for n in names]
    for name in names:
        (tmp_path / f"{name}.nii").write_bytes(b"others")
        with pytest.raises(DatasetError, match=r"\.nii\.gz and \S*\.nii have the same name, but .* remove one"):
            find_cases(tmp_path)
        (tmp_path / f"{name}.nii").unlink()
    assert find_cases(tmp_path).cases == (case,)


# Scan and mask of a patient in each layout.
LAYOUTS = {
    "first": ("0{0}A/3DFLAIR", "0{0}A/Consensus"),
    "shanoir": ("Center_01/Patient_{0}/Raw_Data/FLAIR", "Center_01/Patient_{0}/Masks/Consensus"),
    "BIDS": ("sub-{0}/anat/sub-{0}_FLAIR", "derivatives/manual/sub-{0}/anat/sub-{0}_label-lesion_mask"),
}


@pytest.mark.parametrize("names", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("ending", [".NII.GZ", ".mgz", ".nii.bz2", ".img"])
def test_no_patient_is_left_out_without_a_word(tmp_path, names, which, ending):
    touch(tmp_path, *(f"{name.format(1)}.nii.gz" for name in names), f"{names[1 - which].format(2)}.nii")
    path = tmp_path / f"{names[which].format(2)}{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if ending == ".NII.GZ":
        path.symlink_to(".git/annex/objects/annexed")
    else:
        path.touch()
    with pytest.raises(DatasetError, match=rf"1 file cannot be used: \S*{path.name}\. {path} is not"):
        find_cases(tmp_path)
    path.unlink()
    touch(tmp_path, f"{names[which].format(2)}.NII")
    assert len(find_cases(tmp_path).cases) == 2


@pytest.mark.parametrize("names", [LAYOUTS["first"], LAYOUTS["shanoir"]])
def test_a_patient_with_a_mask_but_no_scan_is_named(tmp_path, names):
    touch(tmp_path, *(f"{name.format(1)}.nii" for name in names), f"{names[1].format(2)}.nii")
    with pytest.raises(DatasetError, match=r"1 of 2 scans .* has no scan: (02A|Center_01_Patient_2)\."):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    ("names", "alone", "left"),
    [
        (LAYOUTS["BIDS"], "derivatives/manual/sub-2/anat/sub-2_label-lesion_mask.nii", "sub-2_label-lesion_mask.nii"),
        (
            LAYOUTS["BIDS"],
            "derivatives/m/sub-1/anat/sub-1_ses-2_label-lesion_mask.nii",
            "sub-1_ses-2_label-lesion_mask",
        ),
        (("BraTS2021_1/BraTS2021_1_flair", "BraTS2021_1/BraTS2021_1_seg"), "BraTS2021_2/BraTS2021_2_seg.nii", "_2_seg"),
        (("patient1/patient1_2CH_ED", "patient1/patient1_2CH_ED_gt"), "patient1/patient1_4CH_ED_gt.nii", "_4CH_ED_gt"),
        (("CT/1/DICOM_anon/i.dcm", "CT/1/Ground/m.png"), "CT/2/Ground/m.png", "CT/2/Ground"),
    ],
)
def test_a_label_map_without_a_scan_is_left_out_with_a_warning(tmp_path, names, alone, left):
    names = [name.format(1) if "." in name else f"{name.format(1)}.nii" for name in names]
    touch(tmp_path, *names)
    assert len(find_cases(tmp_path).cases) == 1
    touch(tmp_path, alone)
    with pytest.warns(Planar3DWarning, match=rf": 1 label map without a scan is left out: \S*{left}\S*\. If their"):
        assert len(find_cases(tmp_path).cases) == 1
    assert len(find_layout(tmp_path, labelled=False)[1]) == 1
    (tmp_path / names[0]).unlink()
    with pytest.raises(Planar3DError, match=r"no known layout|without FLAIR scans"):
        find_cases(tmp_path)


def test_a_mask_of_two_scans_is_refused(tmp_path):
    touch(tmp_path, "a.nii", "b.nii", "m/m.nii")
    (tmp_path / "scans.csv").write_text("scan,mask\na.nii,m/m.nii\nb.nii,m/../m/m.nii\n")
    with pytest.raises(DatasetError, match=r"scans.csv has the mask .*m/m\.nii more than once"):
        find_cases(tmp_path / "scans.csv")


def test_scans_of_one_patient_may_share_another_image(tmp_path):
    anat = "sub-01/ses-1/anat/sub-01_ses-1"
    scans = [f"{anat}_acq-2D", f"{anat}_acq-3D"]
    touch(tmp_path, f"{anat}_T1w.nii", *(f"{scan}_FLAIR.nii" for scan in scans))
    touch(tmp_path / "derivatives/m", *(f"{scan}_label-lesion_mask.nii" for scan in scans))
    assert [case.images["t1"] for case in find_cases(tmp_path).cases] == [tmp_path / f"{anat}_T1w.nii"] * 2
    touch(tmp_path, "a.nii", "b.nii", "t.nii", "m.nii", "n.nii")
    table = tmp_path / "scans.csv"
    for one, other, twice in (("p", "q", "t"), ("p,t.nii", "p,", "t"), ("p,a.nii", "p,", "a"), ("p,b.nii", "p,", "b")):
        table.write_text(
            f"image:flair,image:t1,labels,patient,image:t2\na.nii,t.nii,m.nii,{one}\nb.nii,t.nii,n.nii,{other}\n"
        )
        with pytest.raises(DatasetError, match=rf"the scan \S*/{twice}\.nii more than once"):
            find_cases(table)


def test_a_closed_folder_is_named(tmp_path, close_folder):
    touch(tmp_path, "01016SACH/3DFLAIR.nii", "01016SACH/Consensus.nii", "01038PAGU/3DFLAIR.nii")
    close_folder(tmp_path / "01038PAGU")
    with pytest.raises(DatasetError, match=r"01038PAGU cannot be opened \(Permission denied\)"):
        find_cases(tmp_path)


def test_a_patient_in_a_folder_that_is_gone_is_not_left_out(tmp_path):
    touch(tmp_path, "01016SACH/3DFLAIR.nii", "01016SACH/Consensus.nii")
    (tmp_path / "01038PAGU").symlink_to(tmp_path / "disk")
    with pytest.raises(DatasetError, match=r"01038PAGU is a link to .*disk, which does not exist"):
        find_cases(tmp_path)


def test_patients_of_one_id_are_named_with_their_folders(tmp_path):
    for above in ("TrainingDataset_MSSEG", "Backup/TrainingDataset_MSSEG"):
        touch(tmp_path / above / "01016SACH", "3DFLAIR.nii", "Consensus.nii")
    with pytest.raises(DatasetError, match=r"01016SACH more than once \(\S*/Backup/\S*nii, \S*nii\);"):
        find_cases(tmp_path)


@pytest.mark.parametrize("above", ["", "Training/"])
def test_msseg_of_the_shanoir_portal_keeps_its_own_names(tmp_path, above):
    patient = tmp_path / above / "Center_07" / "Patient_03"
    touch(patient, "Raw_Data/FLAIR.nii.gz", "Masks/Consensus.nii.gz", "Preprocessed_Data/FLAIR_preprocessed.nii.gz")
    (case,) = find_cases(tmp_path).cases
    assert (case.id, case.group) == ("Center_07_Patient_03", "Center_07")
    assert case.images["flair"] == patient / "Raw_Data/FLAIR.nii.gz"


def test_of_msseg_as_delivered_twice_the_unprocessed_scans_are_taken(tmp_path):
    kinds = ("Unprocessed", "Pre-processed")
    plain, processed = (tmp_path / f"{kind} training dataset/TrainingDataset_MSSEG" for kind in kinds)
    for patient in ("01016SACH", "07001MOEL"):
        touch(plain / patient, "3DFLAIR.nii.gz", "Consensus.nii.gz")
        touch(processed / patient, "FLAIR_preprocessed.nii.gz", "Consensus.nii.gz")
    assert [case.labels.parent.parent for case in find_cases(tmp_path).cases] == [plain, plain]
    (plain / "07001MOEL/3DFLAIR.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"2 of 3 scans .* have no scan: 07001MOEL"):
        find_cases(tmp_path)
    with pytest.raises(DatasetError, match=r"only pre-processed scans .* \(01016SACH/FLAIR_pre.*unprocessed"):
        find_cases(processed)
    touch(tmp_path / "bids/sub-01", "anat/sub-01_FLAIR.nii.gz", "FLAIR_preprocessed.nii.gz")
    touch(tmp_path / "bids/derivatives/m/sub-01/anat", "sub-01_label-lesion_mask.nii.gz")
    assert list(find_cases(tmp_path / "bids").by_id()) == ["sub-01"]


def test_bids_takes_sites_as_groups(tmp_path):
    for subject in ("sub-01", "sub-02"):
        touch(tmp_path, f"{subject}/anat/{subject}_FLAIR.nii.gz")
        touch(tmp_path, f"derivatives/manual/{subject}/anat/{subject}_label-lesion_mask.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tsite\nsub-01\toslo\nsub-02\tbrno\n")
    assert {case.id: case.group for case in find_cases(tmp_path).cases} == {"sub-01": "oslo", "sub-02": "brno"}


def test_bids_with_sessions_keeps_them_apart(tmp_path):
    for session in ("ses-1", "ses-2"):
        touch(tmp_path, f"sub-01/{session}/anat/sub-01_{session}_FLAIR.nii.gz")
        touch(tmp_path, f"derivatives/m/sub-01/{session}/anat/sub-01_{session}_label-lesion_mask.nii.gz")
    cases = find_cases(tmp_path).cases
    assert [case.id for case in cases] == ["sub-01_ses-1", "sub-01_ses-2"]
    assert all(case.id.split("_")[1] in str(case.labels) for case in cases)


def test_bids_takes_lesion_masks_of_people_alone_and_unknown_sites_as_one_group(tmp_path):
    for name in ("sub-01_flair.NII.GZ", "sub-02_FLAIR.nii", "sub-03_FLAIR.nii"):
        subject = name[:6]
        touch(tmp_path, f"{subject}/anat/{name}", f"derivatives/fmriprep/{subject}/anat/{subject}_desc-brain_mask.nii")
        touch(tmp_path, f"derivatives/planar3d/{subject}/anat/{subject}_label-lesion_mask.nii.gz")
        touch(tmp_path, f"derivatives/m/{subject}/anat/{subject}_label-WMH_dseg.nii.gz")
    made = tmp_path / "derivatives/planar3d/dataset_description.json"
    made.write_text('{"Name": "x", "DatasetType": "derivative", "GeneratedBy": [{"Name": "planar3d"}]}')
    (tmp_path / "participants.tsv").write_bytes("participant_id;Site\n01;Århus\n02;n/a\n".encode("latin-1"))
    cases = find_cases(tmp_path).cases
    assert {case.id: case.group for case in cases} == {"sub-01": "Århus", "sub-02": "all", "sub-03": "all"}
    assert [case.labels.parts[-4] for case in cases] == ["m", "m", "m"]
    for folder in ("derivatives/planar3d", "derivatives/m", "derivatives"):
        with pytest.raises(Planar3DError, match=r"type derivative|no known layout"):
            find_cases(tmp_path / folder)


@pytest.mark.parametrize("name", ["a/FLAIR.nii", "sub-02/anat/FLAIR.nii", "sub-02/anat/sub-02_3DFLAIR.nii"])
def test_flair_scans_elsewhere_in_a_bids_data_set_are_named(tmp_path, name):
    touch(tmp_path, "sub-01/anat/sub-01_FLAIR.nii", "derivatives/m/sub-01_label-lesion_mask.nii", name)
    with pytest.raises(DatasetError, match=rf"1 file cannot be used: {name}\. .*does not have the name or place"):
        find_cases(tmp_path)


def test_a_csv_table_is_read_however_it_was_saved(tmp_path):
    touch(tmp_path, "Köpfe/f.NII.GZ", "m.nii", "g.nii", "n.nii")
    table, text = tmp_path / "scans.csv", "Scan;MASK;Group\r\nKöpfe\\f.NII.GZ;m.nii;x\r\n;;\r\n\r\ng.nii;n.nii;\r\n"
    for encoding in ("utf-8", "utf-16", "cp1252"):
        table.write_bytes(text.encode(encoding))
        cases = find_cases(table).cases
        assert [(case.id, case.group) for case in cases] == [("K_pfe_f", "x"), ("g", "all")]
        assert all(case.images["flair"].is_file() and case.labels.is_file() for case in cases)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "Image;Mask\na.nii;m.nii\n",
            r"has the columns Image, Mask \(read with semicolons\); it needs scan and mask",
        ),
        ("", "has no column; it needs"),
        ("scan\n", r"has the column scan \(read with commas\); it needs"),
        ("scan,mask\n", "has no rows"),
        ("scan,mask\na.nii,\n", "line 2: mask is empty"),
        ("scan,mask\na.nii,m.nii\nb.nii,absent.nii\n", "1 of 2 scans .* has no mask: b.*absent.nii"),
        ("scan,mask,id\na.nii,m.nii,1\n./a.nii,n.nii,2\n", "the scan .*a.nii more than once"),
        ("scan,mask,id\na.nii,m.nii,1\nb.nii,n.nii,1\n", "the id 1 more than once"),
        ("scan,mask,id\na.nii,m.nii,e\u0301\nb.nii,n.nii,\u00e9\n", "the id .* more than once"),
        ("scan,mask,id\na.nii,m.nii,p1\nb.nii,n.nii,P1\n", r"the id P1 more than once \(\S*b.nii, \S*a.nii\)"),
        ("# of 2026\nscan,mask\na.nii,m.nii\n", r"has the column # of 2026 .*; it needs scan and mask"),
        ("scan,mask,id\na.nii,m.nii,../1\n", "line 2: “../1” cannot be part of a file name"),
        ("scan,mask\né.nii,m.nii\n", "line 2: the name of é.nii has no letter of a–z and no digit; add the column id"),
        ("scan,mask\n.,m.nii\n", r"line 2: the name of \. has no letter of a–z and no digit; add the column id"),
        ("scan,mask\nlost.nii,m.nii\n", "1 file cannot be used: .*lost.nii is a link to nowhere"),
    ],
)
def test_a_csv_table_that_cannot_be_followed_is_explained(tmp_path, text, sentence):
    touch(tmp_path, "a.nii", "b.nii", "é.nii", "m.nii", "n.nii")
    (tmp_path / "lost.nii").symlink_to("nowhere")
    (tmp_path / "scans.csv").write_text(text)
    with pytest.raises(DatasetError, match=sentence):
        find_cases(tmp_path / "scans.csv")


def test_a_csv_table_names_files_beside_itself(tmp_path):
    touch(tmp_path, "a/f.nii.gz", "a/m.nii.gz", "b/f.nii.gz", "b/m.nii.gz")
    table = tmp_path / "scans.csv"
    table.write_text("scan,mask,group\na/f.nii.gz,a/m.nii.gz,x\nb/f.nii.gz,b/m.nii.gz,y\n")
    assert [(case.id, case.group) for case in find_cases(table).cases] == [("a_f", "x"), ("b_f", "y")]
    table.write_text("scan,group\na/f.nii.gz,x\n")
    with pytest.raises(DatasetError, match="needs scan and mask"):
        find_cases(table)
    table.write_text("scan,mask,group\nabsent.nii.gz,a/m.nii.gz,x\n")
    with pytest.raises(DatasetError, match=r"line 2.*absent.nii.gz does not exist"):
        find_cases(table)


def test_a_csv_table_names_several_images_and_a_label_map(tmp_path):
    touch(tmp_path, "a/f.nii", "a/t.nii", "a/s.nii", "b/f.nii", "b/s.nii")
    table = tmp_path / "cases.csv"
    table.write_text("id;Image:FLAIR;image: T1ce;Labels\nx;a/f.nii;a/t.nii;a/s.nii\ny;b/f.nii;;b/s.nii\n")
    dataset = find_cases(table)
    one, other = dataset.cases
    assert one.images == {"flair": tmp_path / "a/f.nii", "t1ce": tmp_path / "a/t.nii"}
    assert one.labels == tmp_path / "a/s.nii" and other.images == {"flair": tmp_path / "b/f.nii"}
    with pytest.raises(DatasetError, match=r"1 of 2 cases .*: y\. y has no image t1ce; it has flair\."):
        dataset.require(["flair", "t1ce"])
    table.write_text("scan,image:t1ce,labels\na/f.nii,a/t.nii,a/s.nii\nb/f.nii,,b/s.nii\n")
    assert [(case.id, case.patient, [*case.images]) for case in find_cases(table).cases] == [
        ("a_f", "a_f", ["flair", "t1ce"]),
        ("b_f", "b_f", ["flair"]),
    ]


def test_whose_visits_cases_are_is_told_by_subject_name_or_column(tmp_path):
    for ses in ("ses-1", "ses-2"):
        mask = f"derivatives/m/sub-01/{ses}/anat/sub-01_{ses}_label-lesion_mask.nii"
        touch(tmp_path, f"bids/sub-01/{ses}/anat/sub-01_{ses}_FLAIR.nii", f"bids/{mask}", f"{ses}.nii")
    assert {case.id: case.patient for case in find_cases(tmp_path / "bids").cases} == {
        "sub-01_ses-1": "sub-01",
        "sub-01_ses-2": "sub-01",
    }
    touch(tmp_path, "m1.nii", "m2.nii")
    table = tmp_path / "visits.csv"
    table.write_text("scan,mask,patient\nses-1.nii,m1.nii,p7\nses-2.nii,m2.nii,\n")
    one, other = find_cases(table).cases
    assert (one.patient, other.patient) == ("p7", "ses-2")
    table.write_text("scan,mask,Site,Subject ID\nses-1.nii,m1.nii,Basel,7\nses-2.nii,m2.nii,n/a,7\n")
    assert [(case.group, case.patient) for case in find_cases(table).cases] == [("Basel", "7"), ("all", "7")]
    table.write_text("scan,mask,patient\nses-1.nii,m1.nii,p7\nses-2.nii,m2.nii,n/a\n")
    assert all(Case.from_json(case.id, json.loads(json.dumps(case.to_json()))) == case for case in (one, other))
    assert "patient" not in other.to_json()  # folders of runs that are older than patients have none


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("image:t1,id\na.nii,x\n", "it needs scan and mask .*or image:<name> for each image"),
        ("scan,image:flair,mask\na.nii,a.nii,m.nii\n", "scan means image:flair, mask means labels. Keep one of each"),
        ("scan,labels,mask\na.nii,m.nii,m.nii\n", "Keep one of each"),
        ("image:t1,image:t2,labels\n,,m.nii\n", "line 2: image is empty"),
        (
            "image:t1,image:t2,labels\na.nii,b.nii,m.nii\na.nii,absent.nii,m.nii\n",
            "line 3: .*absent.nii does not exist",
        ),
        ("image:t1,image:t2,labels,id\na.nii,b.nii,m.nii,1\nn.nii,b.nii,m.nii,2\n", "the scan .*b.nii more than once"),
    ],
)
def test_a_csv_table_of_several_images_that_cannot_be_followed_is_explained(tmp_path, text, sentence):
    touch(tmp_path, "a.nii", "b.nii", "m.nii", "n.nii")
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises(DatasetError, match=sentence):
        find_cases(tmp_path / "cases.csv")


def test_a_missing_empty_or_unknown_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        find_cases(tmp_path / "absent")
    with pytest.raises(DatasetError, match="is empty"):
        find_cases(tmp_path)
    touch(tmp_path, "something/else.txt")
    with pytest.raises(DatasetError, match=r"no known layout\. Expected: a CSV table with the columns .*, or one of: "):
        find_cases(tmp_path)


def test_a_scan_without_its_mask_is_named(tmp_path):
    touch(tmp_path, "01016SACH/3DFLAIR.nii.gz", "01016SACH/Consensus.nii.gz", "01038PAGU/3DFLAIR.nii.gz")
    with pytest.raises(DatasetError, match=r"1 of 2 scans.*01038PAGU"):
        find_cases(tmp_path)


@pytest.mark.real
def test_the_real_bids_folder(real_data):
    dataset = find_cases(real_data / "data/ms_flair")
    assert dataset.layout == "BIDS" and len(dataset.cases) == 9
    assert {case.group for case in dataset.cases} == {"tabriz"}
