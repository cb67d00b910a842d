"""Overfitting one case: whether a system for volumes trains on real input and reproduces its labels.

    KERAS_BACKEND=jax python experiments/overfit_brats.py --data BRATS --out FOLDER --recipe wacker2019-3d --steps 300

A recipe's network is trained on patches around the tumour of the first case (or `--case`), without augmentation. Each
epoch reports the Dice scores of the first patch's regions; at the end the whole case is segmented as by
`planar3d predict`, and its regions are scored on the native grid. An interrupted run resumes after its last epoch.
Without access to ImageNet's weights add `--set encoder_weights=none`, or a file.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from planar3d.cli import main
from planar3d.commands.options import Data, Out, Settings
from planar3d.errors import RunError
from planar3d.files import write_csv
from planar3d.recipes import Recipe, find_recipe


def overfit(
    data: Data,
    out: Out,
    recipe: Annotated[str, typer.Option("--recipe", help="A recipe of images by channel, or its file.")],
    steps: Annotated[int, typer.Option("--steps", help="Of the optimizer, in all.")] = 300,
    epoch_steps: Annotated[int, typer.Option("--epoch-steps", help="Steps from one line to the next.")] = 25,
    crop: Annotated[str, typer.Option("--crop", help="Slices, rows, cols of a patch; the recipe's if left out.")] = "",
    case: Annotated[str, typer.Option("--case", help="Its id; the first if left out.")] = "",
    settings: Settings = None,
) -> None:
    """Train on one case, segment it, and score its regions."""
    from planar3d.evaluation.challenges import score_targets
    from planar3d.inference.segmenter import segment
    from planar3d.scans.layouts import find_cases

    chosen = overfitting(find_recipe(recipe), steps, epoch_steps, crop, settings or [])
    cases = find_cases(data).by_id()
    if case and case not in cases:
        raise RunError(f"--case {case}: {data} has no such case; it has {', '.join(cases)}.")
    learned = cases[case or next(iter(cases))]
    train(learned, chosen, out)
    mask = segment(learned.images, out / "best.weights.h5")
    mask.save(out / f"{learned.id}.nii.gz")
    reference = chosen.targets.read(learned.label_map, mask)
    scores = score_targets(chosen.targets, reference.voxels, mask.voxels, mask.affine)
    columns = ("dice", "hd95_mm")
    rows = [{"target": target, **{name: found[name] for name in columns}} for target, found in scores.items()]
    write_csv(out / "scores.csv", ["target", *columns], rows)
    typer.echo(f"{learned.id}, whole case: {_in_words(scores)}")


def overfitting(recipe: Recipe, steps: int, epoch_steps: int, crop: str, settings: list[str]) -> Recipe:
    """A recipe for overfitting one case: patches around the tumour without augmentation, and the last weights."""
    lengths = [int(length) for length in crop.split(",")] if crop else [length or 0 for length in recipe.window[:3]]
    advance = [
        -(-length // 2) if crop else step or length for step, length in zip(recipe.tiles.step, lengths, strict=True)
    ]
    changes: dict[str, Any] = {
        **{"samples": "patches", "augmentation": "", "foreground_share": 1.0},
        **{"tiles": "patches", "shape": lengths, "step": advance},
        **{"monitor": "last", "patience": 0},
    }
    changed = recipe.changed(**changes).with_settings(settings)
    epochs = max(steps // epoch_steps, 1)
    return changed.changed(patches_per_epoch=epoch_steps * changed.training.batch_size, epochs=epochs)


def train(case: Any, recipe: Recipe, out: Path) -> None:
    """Train on one case, or resume, into `out/best.weights.h5`."""
    from planar3d.inference.prepared_scan import prepare
    from planar3d.scans.case import read_images
    from planar3d.training.fit import fit
    from planar3d.training.gradient_check import guard_precision
    from planar3d.training.initialization import initial_network
    from planar3d.training.trainer import trainer_of

    scans = read_images({name: case.images[name] for name in recipe.preparation.images})
    prepared = prepare(scans, recipe)
    labels = prepared.align(recipe.targets.read(case.label_map, next(iter(scans.values()))))
    samples = recipe.training.samples.samples([(prepared, labels)], recipe)
    numbers, none = recipe.training.samples.split(1, 0, recipe.slices, recipe.tiles)
    network = initial_network(recipe)
    image, targets = samples.batch([0])

    def regions(channels: np.ndarray) -> dict[str, np.ndarray]:
        return recipe.targets.masks(recipe.targets.decode(channels.astype(np.float32), prepared.geometry.axes))

    expected = regions(targets[0])

    def report(line: str) -> None:
        if line.startswith("epoch ") and "batches" not in line:
            found = regions(np.asarray(network.predict_on_batch(image)[0]))
            dice = {name: {"dice": _dice(mask, found[name])} for name, mask in expected.items()}
            line += f"  first patch: {_in_words(dice)}"
        typer.echo(line)

    trained = trainer_of(network)
    guard_precision(trained, recipe, len(numbers), typer.echo)
    typer.echo(f"{recipe.name}, {case.id}, prepared {prepared.voxels.shape}, patches {image.shape[1:]}")
    fit(network, trained, samples, numbers, none, recipe, out, report)


def _dice(expected: np.ndarray, found: np.ndarray) -> float:
    both = np.count_nonzero(expected) + np.count_nonzero(found)
    return 2 * np.count_nonzero(expected & found) / both if both else 1.0


def _in_words(scores: dict[str, dict[str, float]]) -> str:
    return ", ".join(f"{name} {values['dice']:.3f}" for name, values in scores.items())


if __name__ == "__main__":
    main(overfit)
