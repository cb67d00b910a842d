"""BraTS data sets of every year are found by the names of their files, and their labels are told by the values."""

import nibabel as nib
import numpy as np
import pytest

from planar3d.errors import DatasetError, ScanError
from planar3d.scans.case import read_images
from planar3d.scans.inputs import find_inputs, outputs_of, read_input_images
from planar3d.scans.layouts import find_cases
from planar3d.scans.targets import Regions
from planar3d.scans.volume import read_labels

OLD, NEW = ("flair", "t1", "t1ce", "t2", "seg"), ("t2f", "t1n", "t1c", "t2w", "seg")
YEARS = {
    "2017": ("Brats17TrainingData/{grade}/Brats17_2013_{n}_1", "_", OLD, ".nii.gz", 4),
    "2018": ("MICCAI_BraTS_2018_Data_Training/{grade}/Brats18_CBICA_AAB_{n}", "_", OLD, ".nii.gz", 4),
    "2019": ("{grade}/BraTS19_TCIA01_13{n}_1", "_", OLD, ".nii.gz", 4),
    "2020": ("MICCAI_BraTS2020_TrainingData/BraTS20_Training_00{n}", "_", OLD, ".nii", 4),
    "2021": ("BraTS2021_0000{n}", "_", OLD, ".nii.gz", 4),
    "2023": ("ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData/BraTS-GLI-0000{n}-000", "-", NEW, ".nii.gz", 3),
}
SHAPE = (5, 6, 4)


def _save(path, voxels, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([-1.0, -1, 1, 1]) if affine is None else affine), path)


def _write(folder, year, numbers=(1, 2), seg=True):
    place, mark, names, ending, enhancing = YEARS[year]
    for n in numbers:
        case = folder / place.format(n=n, grade=("HGG", "LGG")[n % 2])
        for value, name in enumerate(names):
            voxels = np.full(SHAPE, 10 * value, np.int16)
            voxels[0, 0, 0] = n
            if name == "seg":
                voxels = np.zeros(SHAPE, np.int16)
                voxels[1:3, 2, :3] = 1, 2, enhancing
            if seg or name != "seg":
                _save(case / f"{case.name}{mark}{name}{ending}", voxels)
    return folder


def test_targets_with_other_labels_under_a_region_s_name_are_refused(tmp_path):
    dataset = find_cases(_write(tmp_path, "2023"))
    of_decathlon = Regions(regions=("WT=1+2+3", "TC=2+3", "ET=3"), order=(1, 2, 3))
    with pytest.raises(DatasetError, match=r"TC is label 1, 3 in .*, but 2, 3 in the targets"):
        dataset.require_meaning(of_decathlon.scored)
    # The enhancing tumour of earlier years is a label that these maps do not have.
    dataset.require_meaning(Regions().scored)


@pytest.mark.parametrize("year", YEARS)
def test_every_year_s_names_mean_the_same_images(tmp_path, year):
    dataset = find_cases(_write(tmp_path, year))
    enhancing = YEARS[year][-1]
    assert dataset.layout == "BraTS" and len(dataset.cases) == 2
    assert dataset.labels.values == {"WT": (1, 2, enhancing), "TC": (1, enhancing), "ET": (enhancing,)}
    assert dataset.labels.order == (2, 1, enhancing)
    graded = "{grade}" in YEARS[year][0]
    assert [case.group for case in dataset.cases] == (["LGG", "HGG"] if graded else ["all", "all"])
    for case in dataset.cases:
        scans = read_images(case.images)
        assert {name: scan.voxels[1, 1, 1] for name, scan in scans.items()} == {
            "flair": 0,
            "t1": 10,
            "t1ce": 20,
            "t2": 30,
        }
        assert np.unique(read_labels(case.labels, scans["t1"]).voxels).tolist() == [0, 1, 2, enhancing]


def test_labels_are_told_by_their_values_and_not_by_the_names(tmp_path):
    _write(tmp_path, "2023")
    for path in tmp_path.rglob("*-seg.nii.gz"):
        voxels = np.asarray(nib.load(path).dataobj)
        _save(path, np.where(voxels == 3, 0 if "00001" in path.name else 4, voxels))
    assert find_cases(tmp_path).labels.values["ET"] == (4,)
    for path in tmp_path.rglob("*-seg.nii.gz"):
        _save(path, np.zeros(SHAPE, np.uint8))
    assert find_cases(tmp_path).labels.values["ET"] == (3,)  # nobody has one: by the names


@pytest.mark.parametrize("values", [(1, 2, 3, 4), (1, 2, 4), (2,)])
def test_visits_after_treatment_have_a_resection_cavity(tmp_path, values):
    for visit in ("00005-100", "00005-101", "00006-000"):
        for name in NEW[:-1]:
            _save(tmp_path / f"BraTS-GLI-{visit}/BraTS-GLI-{visit}-{name}.nii.gz", np.ones(SHAPE, np.int16))
        labels = np.zeros(SHAPE, np.uint8)
        labels[0, 0, : len(values)] = values if visit != "00006-000" else (1, 2, 3, 3)[: len(values)]
        _save(tmp_path / f"BraTS-GLI-{visit}/BraTS-GLI-{visit}-seg.nii.gz", labels)
    dataset = find_cases(tmp_path)
    assert dataset.labels.values == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,), "RC": (4,)}
    assert [case.patient for case in dataset.cases] == ["BraTS-GLI-00005", "BraTS-GLI-00005", "BraTS-GLI-00006"]
    # A recipe can name them so: what is encoded comes back.
    regions = tuple(f"{name}={'+'.join(map(str, its))}" for name, its in dataset.labels.values.items())
    targets = Regions(regions=regions, order=dataset.labels.order)
    every = np.arange(5)
    np.testing.assert_array_equal(targets.assign(targets.encode(every)[None, None])[0, 0], every)


def test_what_labels_of_children_mean_is_left_open(tmp_path):
    for name in NEW:
        _save(tmp_path / f"BraTS-PED-00001-000/BraTS-PED-00001-000-{name}.nii.gz", np.full(SHAPE, 4, np.int16))
    assert find_cases(tmp_path).labels is None


@pytest.mark.parametrize(("values", "found"), [((3, 4), "0, 3, 4"), ((7,), "0, 7")])
def test_labels_of_no_year_are_refused(tmp_path, values, found):
    _write(tmp_path, "2021", (1,))
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[0, 0, : len(values)] = values
    _save(next(tmp_path.rglob("*_seg.nii.gz")), voxels)
    with pytest.raises(DatasetError, match=rf"_seg.nii.gz has the labels {found}; BraTS has 0, 1, 2, 4"):
        find_cases(tmp_path)


def test_the_one_misnamed_label_map_of_2020_is_its_case_s(tmp_path):
    _write(tmp_path, "2020", (1,))
    case = tmp_path / "MICCAI_BraTS2020_TrainingData/BraTS20_Training_001"
    other = case.rename(case.with_name("BraTS20_Training_355"))
    for path in other.iterdir():
        path.rename(other / path.name.replace("001", "355").replace("BraTS20_Training_355_seg", "W39_1998.09.19_Segm"))
    (found,) = find_cases(tmp_path).cases
    assert found.id == "BraTS20_Training_355" and found.labels == other / "W39_1998.09.19_Segm.nii"


def test_a_case_without_its_label_map_is_named_but_validation_sets_are_left_out_of_training(tmp_path):
    _write(tmp_path / "train", "2021")
    for n in (1, 3):
        for name in OLD[:-1]:
            path = tmp_path / f"BraTS2020_ValidationData/BraTS20_Validation_00{n}/BraTS20_Validation_00{n}_{name}.nii"
            _save(path, np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE))
    assert [case.id for case in find_cases(tmp_path).cases] == ["BraTS2021_00001", "BraTS2021_00002"]
    names = [item.name for item in find_inputs([tmp_path], ["t1", "t2"])]
    assert names == ["BraTS20_Validation_001", "BraTS20_Validation_003", "BraTS2021_00001", "BraTS2021_00002"]
    (tmp_path / "train/BraTS2021_00001/BraTS2021_00001_seg.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"1 of 2 scans .* has no mask: BraTS2021_00001\. .*_00001_seg.nii.gz"):
        find_cases(tmp_path)
    with pytest.raises(DatasetError, match=r"2 of 2 scans .* have no mask"):
        find_cases(tmp_path / "BraTS2020_ValidationData")


def test_two_naming_schemes_are_not_mixed(tmp_path):
    _write(tmp_path, "2021", (1,))
    _write(tmp_path, "2023", (1,))
    with pytest.raises(DatasetError, match=r"until 2022 \(BraTS2021_0.* and from 2023 on \(BraTS-GLI-0"):
        find_cases(tmp_path)
    _save(tmp_path / "BraTS2021_00001/BraTS2021_00001-t2f.nii.gz", np.zeros(SHAPE, np.int16))
    with pytest.raises(DatasetError, match=r"has BraTS2021_00001-t2f.nii.gz and BraTS2021_00001_flair.nii.gz, both"):
        find_cases(tmp_path)


def test_one_case_in_two_places_is_refused(tmp_path):
    for place in ("a", "b"):
        _write(tmp_path / place, "2021", (1,))
    with pytest.raises(DatasetError, match="the id BraTS2021_00001 more than once"):
        find_cases(tmp_path)
    with pytest.raises(ScanError, match="would have masks with the same name"):
        find_inputs([tmp_path], ["t1", "t2"])


def test_a_missing_contrast_is_refused_only_where_it_is_needed(tmp_path):
    _write(tmp_path, "2021")
    (tmp_path / "BraTS2021_00002/BraTS2021_00002_t1ce.nii.gz").unlink()
    dataset = find_cases(tmp_path)
    dataset.require(("flair", "t2"))
    with pytest.raises(DatasetError, match=r"1 of 2 cases .*: BraTS2021_00002\. .*no image t1ce; it has flair, t1, t2"):
        dataset.require(("flair", "t1ce"))
    whole, lacking = find_inputs([tmp_path], ["t1ce", "flair"])
    assert list(read_input_images(whole)) == ["t1ce", "flair"] == [path.name[16:-7] for path in whole.files]
    assert lacking.problem == "BraTS2021_00002 has no image t1ce; it has flair, t1, t2."
    with pytest.raises(ScanError, match="no image t1ce"):
        find_inputs([tmp_path / "BraTS2021_00002"], ["t1ce", "flair"])


def test_one_finder_gives_one_image_by_the_name_of_its_file_or_else_by_the_layout(tmp_path):
    _write(tmp_path / "old", "2021", (1,))
    _write(tmp_path / "new", "2023", (1,))
    (old,), (new,) = find_inputs([tmp_path / "old"]), find_inputs([tmp_path / "new"])
    assert old.name == "BraTS2021_00001_flair" and not old.images
    assert new.name == "BraTS-GLI-00001-000" and new.path.name == "BraTS-GLI-00001-000-t2f.nii.gz"
    assert outputs_of(new, tmp_path).mask.name == "BraTS-GLI-00001-000_mask.nii.gz"
    for item in (old, new):
        assert list(read_input_images(item)) == ["flair"]


@pytest.mark.real
def test_the_real_case(real_data):
    folder = real_data / "data/brats"
    dataset = find_cases(folder)
    (case,) = dataset.cases
    assert (case.id, list(case.images)) == ("BraTS2021_00006", ["flair", "t1", "t1ce", "t2"])
    assert dataset.labels.values["ET"] == (4,)
    for place in (folder, folder / "BraTS2021_00006"):
        (item,) = find_inputs([place], ["flair", "t1ce", "t2"])
        assert item.name == "BraTS2021_00006"
    scans = read_input_images(item)
    assert {scan.voxels.shape for scan in scans.values()} == {(240, 240, 155)}
    labels = read_labels(case.labels, scans["flair"])
    assert np.unique(labels.voxels).tolist() == [0, 1, 2, 4]
