"""What a training on another machine reads, which sources each variant sees, and how what it finds is scored."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from experiment_modules import modules_of

from planar3d.errors import RunError
from planar3d.inference.prepared_scan import prepare
from planar3d.recipes import MODERN
from planar3d.scans.volume import Scan


@pytest.fixture
def modules():
    """The experiment's modules."""
    with modules_of("open_model", "packed", "heads", "variants", "scoring", "steps") as modules:
        yield modules


@pytest.fixture
def scan():
    """A ball of a head with a bright lesion, thick slices, and the lesion."""
    places = np.indices((60, 60, 18)) - np.array([30, 30, 9])[:, None, None, None]
    voxels = np.where(np.hypot(*places[:2]) < 25, 800.0, 12.0).astype(np.float32)
    voxels += np.abs(np.random.default_rng(0).normal(0, 30, voxels.shape)).astype(np.float32)
    lesions = np.zeros(voxels.shape, np.uint8)
    lesions[28:36, 20:30, 6:10] = 1
    voxels[lesions > 0] = 1300
    header = nib.Nifti1Image(voxels, np.diag([-1.5, -1.5, 6.0, 1.0])).header
    return Scan(voxels, header), Scan(lesions, header)


def test_packed_scans_are_prepared_as_their_files_are(modules, scan, tmp_path):
    packed = modules[0]
    original, lesions = scan
    made = packed.Packed("one", "home-2", Scan(packed.eight_bit(original.voxels), original.header), lesions)
    packed.write_scan(tmp_path / "one.xz", made)
    read = packed.read_packed(tmp_path / "one.xz")
    assert (read.name, read.source) == ("one", "home-2")
    np.testing.assert_array_equal(read.lesions.voxels, lesions.voxels)
    np.testing.assert_array_equal(read.scan.affine, original.affine)
    before, after = (prepare(each, MODERN).voxels.astype(int) for each in (original, read.scan))
    assert np.abs(before - after).max() <= 1 and after.max() > 140


def test_a_variant_is_tested_on_what_it_did_not_see_and_shares_add_up(modules):
    variants = modules[2]
    sources = ("home-1", "home-2", "home-3", "open-ms", "p39", "no-lesions")
    for name, unseen in {"all": set(), "fold-2": {"home-2"}, "without-home": set(sources[:3])}.items():
        variant = variants.Variant.of(name)
        shares = variants.shares_of(variant, 0.4)
        assert sum(shares.values()) == pytest.approx(1) and shares[variants.GENERATED] == 0.4
        assert not unseen & set(shares) and {s for s in sources[:5] if variant.seen(s) == "no"} == unseen
        assert {s for s in sources[:5] if variant.tested(s)} == (unseen or set(sources[:5])) and variant.tested(
            "no-lesions"
        )
        # What the network begins with must not have seen what it is tested on: version 1 has seen all of home.
        assert (variant.start == "imagenet") == bool({s for s in unseen if s.startswith("home")})
    assert sum(variants.shares_of(variants.Variant.of("all"), 0.0).values()) == pytest.approx(1)


def test_crops_are_of_the_stacks_in_the_folders_and_the_same_by_number(modules, scan, tmp_path):
    _, heads, variants, _, _ = modules
    for source in ("p39", variants.GENERATED):
        for number, stack in enumerate(heads.stacks_of(*scan, 6.5) * variants.FEWEST):
            heads.write_stack(tmp_path / source / f"{number}.npy", *stack)
    recipe = MODERN.changed(crop=32, augmentation=("flip",), lesion_share=1.0)
    crops = variants.Crops(tmp_path, {"p39": 0.5, variants.GENERATED: 0.5}, recipe, 2)
    voxels, masks = crops[3]
    assert voxels.shape == masks.shape == (2, 16, 32, 32) and voxels.dtype == np.float32
    assert masks.any() and voxels[masks > 0].mean() > 1.3 * voxels[masks == 0].mean()
    np.testing.assert_array_equal(crops[3][0], voxels)
    assert not np.array_equal(crops[4][0], voxels)
    with modules_of("open_model", "train_steps") as (train_steps,):
        inputs, targets = train_steps.Batches(crops, recipe).batch(np.array([6, 7]))  # the crops of step 3
    np.testing.assert_array_equal(inputs, recipe.preparation.as_input(voxels[..., None]))
    np.testing.assert_array_equal(targets[..., 0], masks)


def test_stacks_cut_short_by_an_interruption_are_written_again(modules, scan, tmp_path, monkeypatch):
    packed = modules[0]
    original, lesions = scan
    made = packed.Packed("one", "home-2", Scan(packed.eight_bit(original.voxels), original.header), lesions)
    packed.write_scan(tmp_path / "scan-one.xz", made)
    (tmp_path / "shapes.npz").touch()
    with modules_of("open_model", "train_steps") as [train_steps]:
        monkeypatch.setattr(train_steps, "read_anatomies", lambda data, kind: ())
        monkeypatch.setattr(train_steps.LesionShapes, "load", lambda path: None)
        drawn = iter(range(1, 9))
        head = SimpleNamespace(load_ml=1.0, scan=original, mask=lesions)
        monkeypatch.setattr(train_steps.HeadGenerator, "generate", lambda self, number: next(drawn) and head)

        def cut_off(folder, head, number):
            (folder / "generated").mkdir()
            (folder / "generated" / f"{number:06d}-2.npy").touch()
            raise KeyboardInterrupt

        with monkeypatch.context() as interrupted:
            interrupted.setattr(train_steps, "write_head", cut_off)
            with pytest.raises(KeyboardInterrupt):
                train_steps.write_stacks(tmp_path, tmp_path / "stacks", 1)
        for _ in range(2):
            train_steps.write_stacks(tmp_path, tmp_path / "stacks", 1)
    assert next(drawn) == 3  # generated twice, not for the third time
    assert (tmp_path / "stacks/generated/000000-0.npy").stat().st_size


def test_a_folder_that_packed_did_not_write_is_refused_at_once(tmp_path):
    with modules_of("open_model", "train_gpu") as [train_gpu], pytest.raises(RunError, match="write the folder with"):
        train_gpu.run(tmp_path / "out", tmp_path, minutes=0.01, variants="version-1", processes=1)
    assert not (tmp_path / "out").exists()


def test_scores_are_of_the_native_grid_at_every_threshold(modules, scan):
    scoring, reference = modules[3], scan[1]
    lesion = reference.voxels > 0
    found = np.where(lesion, 0.6, 0.0).astype(np.float32)
    found[10:14, 30:34, 3:5] = 0.3  # a false one
    rows = {row["threshold"]: row for row in scoring.score(found, lesion, reference.affine)}
    assert rows[128]["dice"] == 1.0 and rows[128]["false_ml"] == 0
    assert rows[64]["marked"] == 2 and rows[64]["confirmed"] == rows[64]["found"] == 1
    assert rows[64]["false_ml"] == pytest.approx(32 * 13.5 / 1000, abs=1e-3) and rows[230]["dice"] == 0


def test_the_rate_rises_and_falls_with_the_clock(modules):
    steps = modules[4]
    rates = [steps.rate_at(done, 2e-4) for done in np.linspace(0, 1, 101)]
    assert rates[0] < 1e-5 and max(rates) == pytest.approx(2e-4, rel=0.01) and rates[-1] == pytest.approx(1e-5)
