"""Cross-validation: prepare every scan, then train, predict and score each round (Kolarik 2020, section 4)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from planar3d.errors import RunError
from planar3d.evaluation.scores import score_scan
from planar3d.files import read_json, remove_temporaries, write_csv, write_json
from planar3d.inference.lesion_mask import lesion_mask
from planar3d.inference.predictor import predictor
from planar3d.inference.prepared_scan import native_mask, predict_prepared
from planar3d.locks import locked
from planar3d.networks.card_content import training_card
from planar3d.networks.model_card import write_card
from planar3d.networks.weights_file import load_network
from planar3d.progress import Ticker
from planar3d.recipe_formats import written_fields
from planar3d.recipes import Recipe
from planar3d.scans.prepare import Prepared, load_prepared, prepare, save_prepared
from planar3d.scans.volume import read_mask, read_scan
from planar3d.study.run_folder import Run
from planar3d.training.crops import CropSamples
from planar3d.training.features import (
    FeatureSamples,
    check_cacheable,
    compute_features,
    decoder_of,
    encoder_of,
)
from planar3d.training.fit import build_network, fit, guard_precision, layers_named, make_deterministic
from planar3d.training.initialization import scale_to_unit_variance
from planar3d.training.samples import ScanSamples, epoch_order, training_and_validation
from planar3d.training.trainer import trainer_of

Notify = Callable[[str], None]
# What a prepared scan depends on; a run folder keeps one recipe, so this only guards a copied `prepared/`.
PREPARATION_FIELDS = (
    "grid",
    "size",
    "pixel_mm",
    "slice_mm",
    "spline_order",
    "grey_levels",
    "raw_values",
    "resampling",
)


def prepare_scans(run: Run, notify: Notify, assume_affine: bool = False) -> None:
    """Prepare every scan of the run that is not prepared yet; one that another process is at is waited for.

    Raises:
        ScanError: a scan or mask that cannot be used; those before it stay prepared.
        RunError: prepared scans made by another recipe.
    """
    made_by = run.folder / "prepared" / "recipe.json"
    fields = _preparation(vars(run.recipe))
    with locked(made_by.parent, "preparing", wait=notify):
        if not made_by.is_file():
            write_json(made_by, fields)
        elif (found := _preparation(written_fields(read_json(made_by)))) != fields:
            raise RunError(f"{made_by.parent} was prepared with {found}, now {fields} is asked. Use another --out.")
    for number, (scan_id, case) in enumerate(run.cases.items(), start=1):
        folder = run.prepared(scan_id)
        done = folder / "geometry.json"
        if done.is_file():
            continue
        with locked(folder, f"preparing {scan_id}", wait=notify):
            if done.is_file():
                continue
            scan = read_scan(case.images["flair"], assume_affine)
            mask = read_mask(case.label_map, scan, assume_affine)
            prepared = prepare(scan, run.recipe)
            save_prepared(folder, prepared, prepared.align(mask))
        notify(f"prepared {scan_id}  {number}/{len(run.cases)}")


def _preparation(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fields[name] for name in PREPARATION_FIELDS}


def run_rounds(run: Run, rounds: Sequence[int], notify: Notify, assume_affine: bool = False) -> None:
    """Train, predict and score the rounds, each from where it stopped."""
    prepare_scans(run, notify, assume_affine)
    for number in rounds:
        run_fold(run, number, notify)


def run_fold(run: Run, number: int, notify: Notify) -> None:
    """Train one round, then predict and score its test scans; what is done is not done again.

    Raises:
        RunError: another process is at this round.
    """
    fold, folder = run.folds[number - 1], run.fold(number)
    if (folder / "scores.csv").is_file():
        notify(f"round {number}/{len(run.folds)} is done, see {folder}")
        return
    with _held(run, number):
        notify(f"round {number}/{len(run.folds)} tests {', '.join(fold.test)}")
        _train(run, number, notify)
        _score(run, number, notify)


def train_fold(run: Run, number: int, notify: Notify) -> keras.Model:
    """Train one round and return the network with its best weights.

    Raises:
        RunError: another process is at this round.
    """
    with _held(run, number):
        network = _train(run, number, notify)
        network.load_weights(run.fold(number) / "best.weights.h5")
        return network


@contextmanager
def _held(run: Run, number: int) -> Iterator[None]:
    """Hold the folder of a round for this process alone, free of what a killed one left."""
    folder = run.fold(number)
    with locked(folder, f"round {number}"):
        remove_temporaries(folder / "backup", folder / "predictions")
        yield


def _train(run: Run, number: int, notify: Notify) -> keras.Model:
    make_deterministic()
    keras.backend.clear_session()
    recipe, fold, folder = run.recipe, run.folds[number - 1], run.fold(number)
    network = build_network(recipe)
    scans = (*fold.train, *fold.validation)
    training, validation = training_and_validation(len(fold.train), len(fold.validation), recipe.size, recipe)
    samples = _samples(run, number, None, scans, notify)
    if recipe.unit_variance:
        first = epoch_order(training, 0, recipe)[: recipe.batch_size]
        inputs, _ = samples.batch(first)
        scale_to_unit_variance(network, layers_named(network, recipe, "unit_variance"), inputs)
    trained, encoder = _parts(network, recipe)
    trained = trainer_of(trained)
    guard_precision(trained, recipe, len(training), notify)
    if encoder is not None:
        samples = _samples(run, number, encoder, scans, notify)
    data = read_json(run.folder / "folds.json")["data"]
    card = training_card(recipe, data, fold, number, len(run.folds))
    fit(network, trained, samples, training, validation, recipe, folder, notify, card)
    write_card(folder / "best.weights.h5")
    return network


def _score(run: Run, number: int, notify: Notify) -> None:
    """Segment the test scans of a round as `planar3d predict` does, in float32, and score them on both grids."""
    fold, folder = run.folds[number - 1], run.fold(number)
    network, recipe = load_network(folder / "best.weights.h5", run.recipe)
    predict = predictor(network, recipe, precision="float32")
    notify(f"predicting {predict.description}")
    rows = []
    for scan_id in fold.test:
        prepared, reference = _open(run, scan_id)
        probabilities = predict_prepared(predict, prepared, recipe, Ticker(notify, f"{scan_id}, windows"))
        mask = lesion_mask(probabilities, recipe, prepared.geometry.axes)
        native = native_mask(probabilities, prepared, recipe)
        native.save(folder / "predictions" / f"{scan_id}_mask.nii.gz")
        case = run.cases[scan_id]
        native_reference = read_mask(case.label_map, native, assume_affine=True)
        about = {"scan": scan_id, "group": case.group, "round": number}
        on_prepared = score_scan(np.asarray(reference), mask, prepared.geometry.axes)
        on_native = score_scan(native_reference.voxels, native.voxels, native.affine)
        rows += [{**about, "grid": "prepared", **on_prepared}, {**about, "grid": "native", **on_native}]
        notify(
            f"{scan_id}  Dice {on_prepared['dice']:.3f} ({on_native['dice']:.3f} native)  "
            f"sensitivity {on_prepared['sensitivity']:.3f}  highest probability {probabilities.max():.2f}"
        )
    write_csv(folder / "scores.csv", list(rows[0]), rows)


def _parts(network: keras.Model, recipe: Recipe) -> tuple[keras.Model, keras.Model | None]:
    """What sees the samples, and the encoder whose features are cached, if they are."""
    if recipe.cached_features == "none":
        return network, None
    check_cacheable(recipe)
    return decoder_of(network, recipe), encoder_of(network, recipe)


def _samples(
    run: Run, number: int, encoder: keras.Model | None, scans: Sequence[str], notify: Notify
) -> ScanSamples | CropSamples:
    recipe, opened = run.recipe, [_open(run, scan) for scan in scans]
    if recipe.sampling == "crops":
        stacks = [(p.voxels[stack], mask[stack]) for p, mask in opened for stack in p.stacks(recipe)]
        return CropSamples([v for v, _ in stacks], [m for _, m in stacks], recipe)
    voxels = [prepared.voxels for prepared, _ in opened]
    masks = [mask for _, mask in opened]
    if encoder is None:
        return ScanSamples(voxels, masks, recipe, recipe.window_borders)
    folders = [run.features(scan, number) for scan in scans]
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        notify(f"computing the encoder's features of {len(missing)} scan{'s' * (len(missing) != 1)}")
    features = [compute_features(encoder, v, folder, recipe, notify) for v, folder in zip(voxels, folders, strict=True)]
    return FeatureSamples(features, voxels, masks, recipe, recipe.window_borders)


def _open(run: Run, scan: str) -> tuple[Prepared, np.ndarray]:
    prepared, mask = load_prepared(run.prepared(scan))
    if mask is None:
        raise RunError(f"{run.prepared(scan)} has no mask.npy; prepare the scans of the run again.")
    return prepared, mask
