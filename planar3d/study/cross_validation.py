"""Cross-validation: train, predict and score each fold on the prepared scans (Kolarik 2020, section 4)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import keras
import numpy as np

from planar3d.environment import machine
from planar3d.errors import RunError
from planar3d.evaluation.challenges import score_targets
from planar3d.files import read_rows, remove_temporaries, write_csv
from planar3d.inference.segmenter import Segmenter
from planar3d.locks import Claim, locked
from planar3d.networks.model_card import training_card, write_card
from planar3d.progress import Notify, Ticker, tell
from planar3d.scans.preparation.prepared import Prepared, load_prepared
from planar3d.study import sources
from planar3d.study.cluster import require_all, run_tasks
from planar3d.study.preparing import prepare_scans
from planar3d.study.results import LESION, expected_scores, require_own_weights
from planar3d.study.run_folder import Run
from planar3d.training.backends import forgetting_gradients, make_deterministic
from planar3d.training.checkpoint import BEST_WEIGHTS
from planar3d.training.devices import choose_devices
from planar3d.training.features import FeatureSamples, compute_features, decoder_of, encoder_of
from planar3d.training.fit import fit
from planar3d.training.gradient_check import guard_precision
from planar3d.training.initialization import initial_network, layers_named, scale_to_unit_variance
from planar3d.training.precision import computed_precision
from planar3d.training.samples import ScanSamples
from planar3d.training.trainer import trainer_of
from planar3d.transfer.digests import file_sha256
from planar3d.wording import counted, score_text


def run_folds(
    run: Run,
    folds: Sequence[int],
    notify: Notify,
    assume_affine: bool = False,
    cluster: str | None = None,
    devices: str | None = None,
) -> None:
    """Train, predict and score the folds, resuming each, on the workers of a cluster if given."""
    prepare_scans(run, notify, assume_affine, cluster)
    sources.require_distinct(run)
    if cluster:
        there = partial(run_fold, run, notify=tell, wait=tell, devices=devices)
        require_all(run_tasks(cluster, there, folds, "fold", notify))
        return
    for number in folds:
        run_fold(run, number, notify, devices=devices)


def run_fold(run: Run, number: int, notify: Notify, wait: Notify | None = None, devices: str | None = None) -> None:
    """Train one fold, then predict and score its test scans; finished parts are skipped.

    Args:
        number: from 1.
        wait: gets a message when waiting for another process at this fold; if None, that is an error.
        devices: as in `choose_devices`.
    """
    if not _is_scored(run, number):
        with _held(run, number, wait) as claim:
            if not _is_scored(run, number):  # by another process since
                notify(f"fold {number}/{len(run.folds)} tests {', '.join(run.folds[number - 1].test)}")
                _train(run, number, notify, devices, claim)
                _score(run, number, notify, claim)
                return
    notify(f"fold {number}/{len(run.folds)} is done, see {run.fold(number)}")


def _is_scored(run: Run, number: int) -> bool:
    """Whether a fold has all of its scores: an edited table may lack some."""
    rows = read_rows(run.fold(number) / "scores.csv")
    scored = {(row.get("scan"), row.get("grid"), row.get("target") or LESION) for row in rows}
    return bool(scored) and scored.issuperset(expected_scores(run, number))


def train_fold(run: Run, number: int, notify: Notify, devices: str | None = None) -> keras.Model:
    """Train one fold as `run_fold` does, and return the network with its best weights."""
    sources.require_distinct(run)
    with _held(run, number) as claim:
        network = _train(run, number, notify, devices, claim)
        network.load_weights(run.fold(number) / BEST_WEIGHTS)
        return network


@contextmanager
def _held(run: Run, number: int, wait: Notify | None = None) -> Iterator[Claim]:
    """Lock the folder of a fold for this process, and remove leftovers of a killed one."""
    folder = run.fold(number)
    with locked(folder, f"fold {number}", wait) as claim:
        remove_temporaries(folder / "backup", folder / "predictions")
        yield claim


@forgetting_gradients()
def _train(run: Run, number: int, notify: Notify, devices: str | None, claim: Claim) -> keras.Model:
    require_own_weights(run, number)
    make_deterministic()
    keras.backend.clear_session()
    recipe, fold, folder = run.recipe, run.folds[number - 1], run.fold(number)
    chosen = choose_devices(devices, recipe)
    with chosen.scope():
        network = initial_network(recipe)
    sources.require_same_weights(run.folder / "environment.json", recipe)  # once they are read: earlier folds take days
    scans = (*fold.train, *fold.validation)
    sampling = recipe.training.samples
    training, validation = sampling.split(len(fold.train), len(fold.validation), recipe.slices, recipe.tiles)
    samples = sampling.samples([_open(run, scan) for scan in scans], recipe)
    if recipe.training.unit_variance:
        first = sampling.order(training, 0, recipe.training.seed)[: recipe.training.batch_size]
        inputs, _ = samples.batch(first)
        notify("scaling initial weights to unit variance")
        scale_to_unit_variance(network, layers_named(network, recipe, "unit_variance"), inputs)
    cached = sampling.cached_features != "none"  # of an encoder that is frozen, as was checked when the run was started
    trained = trainer_of(decoder_of(network, recipe) if cached else network)
    guard_precision(trained, recipe, len(training), notify)
    if cached:
        assert isinstance(samples, ScanSamples)  # only these allow cached features
        folders = [run.features(scan, number) for scan in scans]
        if missing := [folder for folder in folders if not folder.is_dir()]:
            notify(f"computing the encoder's features of {counted(missing, 'scan')}")
        encoder, pairs = encoder_of(network, recipe), zip(samples.voxels, folders, strict=True)
        samples = FeatureSamples([compute_features(encoder, *pair, recipe, notify) for pair in pairs], samples)
    card = training_card(recipe, run.data, fold, number, len(run.folds))
    # Folds trained on other machines may differ in these.
    card["training"] = {"precision": computed_precision(recipe.training.precision), "machine": machine()}
    numbers = training, validation
    fit(network, trained, samples, *numbers, recipe, folder, notify, card, devices=chosen, check=claim.require)
    write_card(folder / BEST_WEIGHTS)
    return network


def _score(run: Run, number: int, notify: Notify, claim: Claim) -> None:
    """Segment the test scans of a fold as `planar3d predict` does, in float32, and score them on both grids."""
    fold, folder = run.folds[number - 1], run.fold(number)
    recipe, segmenter = run.recipe, Segmenter(folder / BEST_WEIGHTS, run.recipe, precision="float32")
    segmenter.load()
    notify(f"predicting {segmenter.description}")
    rows = []
    for scan_id in fold.test:
        prepared, reference = _open(run, scan_id)
        probabilities = segmenter.predict([prepared], Ticker(notify, f"{scan_id}, windows"))
        found, native = probabilities.labels(), probabilities.mask()
        claim.require()
        native.save(run.predicted(scan_id, number))
        case = run.cases[scan_id]
        sources.require_unchanged(run, scan_id)  # training may have taken days
        native_reference = recipe.targets.read(case.label_map, native, assume_affine=True)
        about = {"scan": scan_id, "group": case.group, "fold": number}
        made = {sources.MASK_SHA256: file_sha256(run.predicted(scan_id, number))}
        on_prepared = score_targets(recipe.targets, np.asarray(reference), found, prepared.geometry.axes, case.group)
        on_native = score_targets(recipe.targets, native_reference.voxels, native.voxels, native.affine, case.group)
        for grid, scores in (("prepared", on_prepared), ("native", on_native)):
            rows += [{**about, "grid": grid, "target": target, **values, **made} for target, values in scores.items()]
        for target, values in on_prepared.items():
            if np.isnan([*values.values()]).all():  # references of the case's group never have the target
                continue
            name = scan_id if len(on_prepared) == 1 else f"{scan_id}  {target}"
            shown = values["dice"], on_native[target]["dice"], values["sensitivity"]
            dice, native_dice, sensitivity = map(score_text, shown)
            notify(
                f"{name}  Dice {dice} ({native_dice} native)  sensitivity {sensitivity}  "
                f"highest probability {probabilities.values.max():.2f}"
            )
    claim.require()
    write_csv(folder / "scores.csv", list(rows[0]), rows)


def _open(run: Run, scan: str) -> tuple[Prepared, np.ndarray]:
    folder = run.prepared(scan)
    prepared, mask = load_prepared(folder)
    if mask is None:
        raise RunError(f"{folder} has no mask.npy. Delete {folder} to create it again.")
    sources.require_as_prepared(folder, {sources.VOXELS: prepared.voxels, sources.ALIGNED: mask})
    return prepared, mask
