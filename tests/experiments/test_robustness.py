"""Changed scans keep their lesions in place, and what a change costs is told beside the scans as they are."""

import narrow_encoder
import nibabel as nib
import numpy as np
import pytest
from experiment_modules import modules_of
from msseg import write_msseg
from scipy import ndimage

from planar3d.errors import RunError
from planar3d.recipes import MODERN
from planar3d.scans.layouts import find_cases
from planar3d.scans.volume import Scan
from planar3d.study.reproduce import folds_for
from planar3d.study.run_folder import start_run
from planar3d.training.initialization import initial_network


@pytest.fixture(scope="module")
def robustness():
    """The experiment's module."""
    with modules_of("open_model", "robustness") as (module,):
        yield module


@pytest.fixture(scope="module")
def scan():
    """A brain with a bright lesion within skull and scalp, of pixels of 1 mm, and the lesion."""
    rows, cols = np.indices((180, 170)) - 88
    mm = np.hypot(rows, cols)
    head = np.select([mm < 60, mm < 68, mm < 78], [1000.0, 100.0, 2500.0], 10.0)
    voxels = np.repeat(head[..., None].astype(np.float32), 12, axis=2)
    lesions = np.zeros(voxels.shape, np.uint8)
    lesions[90:102, 60:70, 4:8] = 1
    voxels[lesions > 0] = 1500
    return Scan(voxels, nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 6.5, 1.0])).header), lesions


@pytest.fixture(scope="module")
def every_change(robustness, scan):
    """The scan and its lesions after each change."""
    return {name: robustness.changed_scan(name, *scan) for name in robustness.CHANGES}


def test_every_change_leaves_lesions_where_they_are_brighter_than_what_is_around_them(robustness, scan, every_change):
    scan, lesions = scan
    for name, (changed, reference) in every_change.items():
        assert changed.voxels.shape == reference.shape
        # Where in space the lesions are, and how large.
        for mask, affine in ((reference, changed.affine), (lesions, scan.affine)):
            middle = nib.affines.apply_affine(affine, np.argwhere(mask).mean(axis=0))
            np.testing.assert_allclose(middle, [-95.5, -64.5, 5.5 * 6.5], atol=0.8)
        volumes = [float(m.sum()) * np.prod(s.spacing) for m, s in ((reference, changed), (lesions, scan))]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.15)
        near, far = (ndimage.binary_dilation(reference, iterations=n) for n in (1, 3))
        assert np.median(changed.voxels[reference > 0]) > 1.2 * np.median(changed.voxels[far & ~near])
        again, _ = robustness.changed_scan(name, scan, lesions)
        np.testing.assert_array_equal(changed.voxels, again.voxels)


def test_changes_do_what_they_are_called(scan, every_change):
    scan, _ = scan
    changed = {name: found for name, (found, _) in every_change.items()}
    np.testing.assert_array_equal(changed["as-it-is"].voxels, scan.voxels)
    assert not (changed["extracted"].voxels > 2000).any() and (changed["extracted"].voxels == 1000).sum() > 100_000
    shown = (changed[name].voxels[:, :, 9] > 0 for name in ("extracted-tight", "extracted", "extracted-wide"))
    radii = [np.sqrt(np.count_nonzero(brain) / np.pi) for brain in shown]
    np.testing.assert_allclose(np.subtract(radii, radii[1]), [-2, 0, 5], atol=0.7)
    air, brain = scan.voxels == 10, scan.voxels == 1000
    for name, share in (("noise-8", 0.08), ("noise-15", 0.15)):
        assert changed[name].voxels[brain].std() == pytest.approx(1000 * share, rel=0.05)
        assert changed[name].voxels[air].mean() == pytest.approx(1000 * share * np.sqrt(np.pi / 2), rel=0.05)
    assert changed["power-0.7"].voxels[brain].mean() == pytest.approx(1000**0.7, rel=1e-3)
    field = changed["field"].voxels[brain] / 1000
    assert 0.66 < field.min() < 0.8 or 1.25 < field.max() < 1.5
    assert changed["coarse"].spacing == pytest.approx((1.5, 1.5, 6.5), rel=0.02)


def test_every_scan_is_scored_with_every_change(robustness, tmp_path, capsys, untraced):
    dataset = find_cases(write_msseg(tmp_path / "data", ids=("01A", "01B", "01C")))
    tiny = {"size": 32, "crop": 32, "decoder_filters": (4, 4), "bridge_filters": 4, "crops_per_epoch": 2, "epochs": 1}
    recipe = MODERN.changed(encoder=narrow_encoder.NAME, encoder_weights="none", precision="float32", **tiny)
    study = start_run(tmp_path / "run", dataset, recipe, folds_for(dataset, "3"))
    network = initial_network(recipe)
    for number in (1, 2, 3):
        study.fold(number).mkdir(parents=True)
        network.save_weights(study.fold(number) / "best.weights.h5")
    robustness.run(study.folder, tmp_path / "scores.csv", "keras", "noise-8")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[-2:]] == ["| unaltered", "| noise, 8 % of the head's median"]
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 1 + 3 * 2
    with pytest.raises(RunError, match="'noise' is unknown; choose from: as-it-is, extracted"):
        robustness.run(study.folder, tmp_path / "scores.csv", "keras", "noise")
    with pytest.raises(RunError, match="--engine='openvino-int8' is unknown; choose one of: 'keras', 'openvino'"):
        robustness.run(study.folder, tmp_path / "scores.csv", "openvino-int8", "noise-8")


def test_costs_are_told_beside_the_scans_as_they_are(robustness):
    scores = {"sensitivity": "0.5", "precision": "0.5", "lesion_f1": "0.4"}
    rows = [
        {"scan": scan, "fold": "1", "changed": changed, "dice": dice, **scores}
        for changed, dices in (("as-it-is", ("0.6", "0.8")), ("coarse", ("0.5", "0.8")))
        for scan, dice in zip("ab", dices, strict=True)
    ]
    assert robustness.markdown(rows)[2:] == [
        "| unaltered | 0.700 ± 0.141 |  |  | 0.500 | 0.500 | 0.400 |",
        "| pixels of 1.5 mm | 0.650 ± 0.212 | -0.050 | 1 of 2 | 0.500 | 0.500 | 0.400 |",
    ]
