"""The comparison of encoders does each planned run once, and its page says what its tables hold."""

import csv
import json

import narrow_encoder
import pytest
from experiment_modules import EXPERIMENTS, modules_of
from msseg import write_msseg

from planar3d.errors import RunError

TINY = (
    *("size=32", "decoder_filters=4,4", "bridge_filters=4", "epochs=1", "precision=float32"),
    f"encoder={narrow_encoder.NAME}",
)
SCORES = {"dice": 0.5, "sensitivity": 0.5, "precision": 0.5, "lesion_f1": 0.5, "dice_at_128": 0.6}
CONDITIONS = {
    "steps": 304,
    "best_val_dice": 0.4,
    "last_val_dice": 0.3,
    "train_seconds": 60,
    "peak_gib": 3,
    "versions": "v",
}


@pytest.fixture
def experiment():
    """The experiment's modules, by name."""
    with modules_of("transfer", "outcomes", "train", "run", "summarize") as modules:
        yield {module.__name__: module for module in modules}


def _result(arm="imagenet-frozen", seed=0, fold=1, scan="a", settings="", collapsed="no", **scores):
    about = {"arm": arm, "seed": seed, "fold": fold, "scan": scan, "settings": settings, "collapsed": collapsed}
    return {k: str(v) for k, v in {**about, **SCORES, **CONDITIONS, **scores}.items()}


def _curve(arm, seed, fold, settings=""):
    losses = {"loss": 1.0, "dice": 0.2, "val_loss": 1.1, "val_dice": 0.1, "seconds": 1}
    return {"arm": arm, "seed": seed, "fold": fold, "settings": settings, "epoch": 1, "steps": 38, **losses}


def test_comparisons_are_whole_before_the_next_fold_or_seed_begins(experiment):
    outcomes = experiment["outcomes"]
    planned = outcomes.in_order(list(outcomes.ARMS), outcomes.SEEDS, outcomes.FOLDS)
    assert len(set(planned)) == len(planned) == 54
    arms = len(outcomes.ARMS)
    groups = [planned[start : start + arms] for start in range(0, len(planned), arms)]
    assert all([one.arm for one in group] == list(outcomes.ARMS) for group in groups)
    assert [(g[0].seed, g[0].fold) for g in groups] == [(s, f) for s in (0, 1, 2) for f in (1, 2, 3)]


def test_the_arms_differ_in_their_encoders_alone(experiment):
    outcomes, train = experiment["outcomes"], experiment["train"]
    assert {path.stem for path in (EXPERIMENTS / "transfer" / "recipes").iterdir()} == set(outcomes.ARMS)
    about_encoders = ("name", "encoder_weights", "encoder_depth", "frozen", "unit_variance", "cached_features")
    common = set()
    for arm in outcomes.ARMS:
        recipe = train.arm_recipe(outcomes.Planned(arm, 2, 1), ["size=64"])
        assert (recipe.name, recipe.seed, recipe.size) == (arm, 2, 64)
        common.add(json.dumps({k: v for k, v in recipe.leaves().items() if k.rpartition(".")[2] not in about_encoders}))
    assert len(common) == 1


def test_a_run_has_collapsed_if_it_marks_nothing(experiment):
    has_collapsed = experiment["outcomes"].has_collapsed
    assert has_collapsed(16 / 256, 16, 5) and has_collapsed(0.9, 16, 0)
    assert not has_collapsed(17 / 256, 16, 5)


def test_a_run_s_rows_are_added_once(experiment, tmp_path):
    outcomes = experiment["outcomes"]
    path = tmp_path / "curves.csv"
    outcomes.add_rows(path, outcomes.CURVE_COLUMNS, [_curve("random-frozen", 0, 1), _curve("random-frozen", 0, 2)])
    outcomes.add_rows(path, outcomes.CURVE_COLUMNS, [_curve("random-frozen", 0, 1) | {"loss": 7}])
    outcomes.add_rows(path, outcomes.CURVE_COLUMNS, [_curve("random-frozen", 0, 1, "size=32")])
    rows = outcomes.read_rows(path)
    assert sorted((r["fold"], r["settings"], r["loss"]) for r in rows) == [
        *(("1", "", "7"), ("1", "size=32", "1.0"), ("2", "", "1.0"))
    ]


def test_what_is_done_is_not_done_again_and_what_was_stopped_goes_on(experiment, tmp_path):
    outcomes, train, run = (experiment[name] for name in ("outcomes", "train", "run"))
    planned = outcomes.in_order(["imagenet-frozen", "random-frozen"], [0], [1, 2])
    out, results, started = tmp_path / "runs", tmp_path / "results", []

    def start(one, seconds):
        started.append(one)
        if len(started) == 3:
            return False
        if len(started) == 5:
            return True  # it failed: there is no outcome
        row = {"arm": one.arm, "seed": one.seed, "fold": one.fold, "settings": ""}
        path = train.outcome_file(out, one)
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"results": [row | {"scan": s} for s in "ab"], "curves": [row | {"epoch": 1}]}))
        return True

    assert run.run_all(planned, out, results, [], start) == []
    assert started == planned[:3]
    assert len(outcomes.read_rows(results / "results.csv")) == 4
    assert run.run_all(planned, out, results, [], start) == [planned[3]]
    assert started == [*planned[:3], planned[2], planned[3]]
    assert run.run_all(planned, out, results, [], start) == []
    assert started[-1] == planned[3]
    # The table alone says what is done, not the run folder.
    assert run.run_all(planned, tmp_path / "elsewhere", results, [], start) == []
    assert len(started) == 6
    assert len(outcomes.read_rows(results / "results.csv")) == 8
    assert len(outcomes.read_rows(results / "curves.csv")) == 4


def test_no_run_begins_after_the_deadline(experiment, tmp_path):
    run, outcomes = experiment["run"], experiment["outcomes"]
    planned = outcomes.in_order(["random-frozen"], [0], [1])
    assert run.run_all(planned, tmp_path, tmp_path, [], lambda one, seconds: pytest.fail("began"), deadline=0.0) == []


def test_outcomes_of_other_settings_are_refused(experiment, tmp_path):
    train, one = experiment["train"], experiment["outcomes"].Planned("random-frozen", 0, 1)
    path = train.outcome_file(tmp_path, one)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"results": [{"settings": "size=32"}], "curves": []}))
    assert train.read_outcome(tmp_path, one, ["size=32"])
    with pytest.raises(RunError, match="size=32"):
        train.read_outcome(tmp_path, one, [])


def test_a_run_gives_scores_of_its_test_scans_and_its_curve(experiment, tmp_path, untraced):
    train, outcomes = experiment["train"], experiment["outcomes"]
    data = write_msseg(tmp_path / "data", ids=("01A", "01B", "01C"))
    one = outcomes.Planned("random-scaled", 1, 2)
    outcome = train.outcome(data, tmp_path / "runs", one, TINY)
    assert [row["scan"] for row in outcome["results"]] == ["01B"]
    row = outcome["results"][0]
    assert set(row) == set(outcomes.RESULT_COLUMNS)
    assert 0 <= row["dice"] <= 1 and 0 < row["largest_probability"] <= 1
    # One scan trains: three windows in batches of two.
    assert row["steps"] == 2 and row["best_epoch"] == 1 and row["peak_gib"] > 0
    assert [set(r) for r in outcome["curves"]] == [set(outcomes.CURVE_COLUMNS)]
    assert outcome["curves"][0]["val_dice"] == row["best_val_dice"] == row["last_val_dice"]
    folder = train.run_folder(tmp_path / "runs", one)
    assert not list(folder.rglob("features"))
    # Other arms find the scans prepared.
    assert (folder / "prepared").resolve() == (tmp_path / "runs/prepared-32").resolve()


def test_means_are_over_scans_and_deviations_over_scans_and_whole_seeds(experiment):
    summarize = experiment["summarize"]
    rows = [
        _result(seed=seed, fold=fold, scan=f"scan{fold}", dice=0.1 * fold + 0.2 * seed)
        for seed in (0, 1)
        for fold in (1, 2, 3)
    ]
    scans = summarize.over_scans(rows, "dice")
    assert (scans.mean, scans.sd) == (pytest.approx(0.3), pytest.approx(0.1))
    seeds = summarize.over_seeds([*rows, _result(seed=2, fold=1, dice=0.9)], "dice")
    assert (seeds.mean, seeds.count) == (pytest.approx(0.3), 2)
    assert seeds.sd == pytest.approx(0.2 / 2**0.5)


def test_a_scan_in_which_no_lesion_was_found_has_lesion_f1_0(experiment):
    over_scans = experiment["summarize"].over_scans
    rows = [_result(scan="a", lesion_f1="nan", precision="nan"), _result(scan="b", lesion_f1=0.8, precision=0.8)]
    assert over_scans(rows, "lesion_f1").mean == pytest.approx(0.4)
    assert over_scans(rows, "precision").mean == pytest.approx(0.8)


def test_the_section_counts_collapsed_runs_and_compares_what_both_arms_have(experiment):
    section = experiment["summarize"].section
    rows = [_result(seed=s, scan=scan, dice=d) for s in (0, 1) for scan, d in (("a", 0.4), ("b", 0.6))]
    lost = {"collapsed": "yes", "dice": 0, "dice_at_128": 0, "last_val_dice": 0.001}
    rows += [_result("random-frozen", 0, 1, s, **lost) for s in ("a", "b")]
    rows += [_result("random-scaled", 2, 1, "a", dice=0.9)]
    text = section(rows)
    assert text.startswith("4 of 54 planned runs")
    lines = {line.split(" | ")[0].lstrip("| "): line.split(" | ") for line in text.splitlines() if " | " in line}
    assert lines["ImageNet, planar, frozen"][1:3] == ["2 of 9", "0.500 ± 0.141"]
    heads = lines["Encoder"]
    frozen = dict(zip(heads, lines["random, frozen"], strict=True))
    assert (frozen["collapsed"], frozen["failed"]) == ("1", "1")
    assert lines["random, trained"][1:4] == ["0 of 9", "–", "–"]
    assert "- Collapsed runs: random, frozen: 1 of 1." in text
    assert "- Runs that ended at a validation Dice below 0.01: random, frozen: 1 of 1." in text
    # Seed 0 alone is in both; that of the scaled encoder is in no run of the first arm.
    assert "over 1 common run, mean ± sd over scans: -0.500 ± 0.141 at 16 (lower in 2 of 2 scans)" in text
    assert "unit variance, frozen: Dice difference" not in text


def test_a_page_keeps_what_a_person_wrote(experiment, tmp_path):
    summarize = experiment["summarize"]
    with_section = summarize.with_section
    first = with_section("# Results\n\nSaid.\n", "one")
    assert first.startswith("# Results\n\nSaid.\n\n## Transfer against scratch\n")
    judged = first + "\nThe claim holds.\n\n## Recipe modern\n"
    second = with_section(judged, "two")
    assert second == judged.replace("\none\n", "\ntwo\n")
    with (tmp_path / "results.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(_result()))
        writer.writeheader()
        writer.writerow(_result())
    experiment["outcomes"].add_rows(
        tmp_path / "curves.csv",
        experiment["outcomes"].CURVE_COLUMNS,
        [_curve("random-frozen", s, 1) for s in range(6)],
    )
    for _ in range(2):
        summarize.summarize_transfer(tmp_path, tmp_path / "docs.md", "")
    assert (tmp_path / "docs.md").read_text().count("1 of 54 planned runs") == 1
    assert (tmp_path / "curves.png").stat().st_size > 1000
