"""A run folder as cross-validation leaves it, small."""

import csv
import json
from functools import partial

import nibabel as nib
import numpy as np
import pytest

from planar3d.evaluation.scores import MEASURES, score_scan
from planar3d.files import write_json


@pytest.fixture
def make_run(write_run, tmp_path):
    """Write a run of three folds on small heads to the test's folder; return its folder."""
    return partial(write_run, tmp_path)


@pytest.fixture(scope="session")
def write_run():
    """Write a run of three folds on small heads to a folder; return its own."""
    return _write_run


def _write_run(folder, groups=("01", "07", "08"), phantom=False, size=256, count=3, prefix="scan"):
    rng = np.random.default_rng(0)
    run, data = folder / "run", folder / "data"
    data.mkdir()
    scans, tests = {}, [[] for _ in range(count)]
    for number in range(count):
        for place, group in enumerate(groups):
            name = f"{prefix}{place}{number}"
            scans[name] = _write_scan(data, name, rng) | {"group": group}
            tests[number].append(name)
    folds = [
        {"train": others[:-1], "validation": others[-1:], "test": test}
        for test, others in ((test, [s for s in scans if s not in test]) for test in tests)
    ]
    about = {"folder": str(data), "layout": "table", "phantom": phantom}
    write_json(run / "folds.json", {"data": about, "scans": scans, "folds": folds})
    write_json(run / "recipe.json", {"name": "paper", "size": size, "threshold": 16.0, "frozen": ["encoder"]})
    write_json(run / "environment.json", {"planar3d": "0.1.0", "encoder_weights": "ImageNet VGG-16"})
    for number, test in enumerate(tests, start=1):
        _write_fold(run / f"fold-{number}", number, test, scans, rng)
    return run


def _write_scan(data, name, rng):
    head = (100 + 20 * rng.standard_normal((20, 24, 12))).astype(np.float32)
    mask = np.zeros(head.shape, np.uint8)
    mask[8:12, 8:16, 4:8] = 1
    paths = {"scan": data / f"{name}.nii.gz", "mask": data / f"{name}_mask.nii.gz"}
    for path, voxels in zip(paths.values(), (head, mask), strict=True):
        nib.save(nib.Nifti1Image(voxels, np.diag([-1, -1, 2, 1])), path)
    return {key: str(path) for key, path in paths.items()}


def _write_fold(folder, number, test, scans, rng):
    (folder / "predictions").mkdir(parents=True)
    with (folder / "history.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["epoch", "learning_rate", "loss", "dice", "val_loss", "val_dice", "seconds"])
        writer.writerows(
            [epoch, 5e-5, 1 / epoch, 1 - 1 / epoch, 1.1 / epoch, 0.9 - 0.9 / epoch, ""] for epoch in range(1, 6)
        )
    rows = []
    for name in test:
        reference = nib.load(scans[name]["mask"])
        mask = np.asarray(reference.dataobj)
        predicted = np.roll(mask, rng.integers(0, 3), axis=0)
        nib.save(nib.Nifti1Image(predicted, reference.affine), folder / "predictions" / f"{name}_mask.nii.gz")
        for grid, spacing in (("prepared", (1, 1, 1)), ("native", (1, 1, 2))):
            about = {"scan": name, "group": scans[name]["group"], "fold": number, "grid": grid}
            rows.append(about | score_scan(mask, predicted, spacing))
    with (folder / "scores.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["scan", "group", "fold", "grid", *MEASURES])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="session")
def change_json():
    """Change a JSON file by a function of its content."""

    def change(path, function):
        content = json.loads(path.read_text())
        function(content)
        path.write_text(json.dumps(content))

    return change
