"""The published model is in the checkout, loads by its name, and segments a real scan."""

import pytest
from experiment_modules import modules_of

from planar3d.evaluation.scores import score_scan
from planar3d.inference.segmenter import segment
from planar3d.networks.weights_file import Model, read_recipe
from planar3d.scans.volume import read_mask, read_scan


def test_it_says_what_it_is_and_how_to_prepare_a_scan():
    card, recipe = Model.open("ms-flair-open").card, read_recipe("ms-flair-open")
    assert card is not None and card["licence"] == "CC BY 4.0" and "VGG" in str(card["attribution"])
    assert Model.open("ms-flair-open").describe()["whole_head"] is None
    assert recipe is not None and (recipe.name, recipe.grey_levels) == ("modern", "median")
    assert recipe.preparation.name == "axial-slices"


@pytest.mark.parametrize("change", ["as-it-is", "standardized"])
def test_it_finds_the_lesions_of_a_patient(real_data, change):
    """One it was trained on: this shows that file, recipe and way fit together, not what the model is worth."""
    folder = real_data / "data/ms_flair"
    scan = read_scan(folder / "sub-105074/anat/sub-105074_FLAIR.nii.gz")
    (path,) = (folder / "derivatives/manual/sub-105074").rglob("*.nii.gz")
    lesions = read_mask(path, scan).voxels
    with modules_of("open_model", "robustness") as (robustness,):
        changed, _ = robustness.changed_scan(change, scan, lesions)
    mask = segment(changed, "ms-flair-open", engine="keras")
    scores = score_scan(lesions, mask.voxels, scan.spacing)
    assert scores["dice"] > 0.7
