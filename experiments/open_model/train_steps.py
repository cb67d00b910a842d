"""Train one variant of `train_gpu.py` for a number of steps instead of minutes, on any backend, also on a CPU.

    python experiments/open_model/packed.py --data DATA --imagenet vgg16_imagenet_conv.npz --out .dev
    python experiments/open_model/train_steps.py --data .dev --variant without-open-ms --out runs/without-open-ms

OUT gets the stacks of slices, then `best.weights.h5` and `history.csv`. An interrupted run continues where it stopped.
Unlike `train_gpu.py`, it keeps the last weights, not their exponential average. It starts from version 1, which was
trained on the home site alone, so it is for the variants that leave out another site.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from heads import write_head, write_scan
from packed import read_anatomies, read_packed
from variants import Crops, Variant, shares_of

from planar3d.cli import main
from planar3d.recipes import MODERN, Recipe
from planar3d.training.synthesis import HeadGenerator, LesionShapes
from planar3d.transfer.published_models import find_model

EPOCH, WARM_UP = 50, 10  # steps


class Batches:
    """Crops by number, as the inputs and targets of the network."""

    def __init__(self, crops: Crops, recipe: Recipe) -> None:
        self.crops, self.recipe = crops, recipe
        crops.look()

    def batch(self, numbers: Sequence[int] | np.ndarray) -> tuple[Any, np.ndarray]:
        """Inputs (crops, depth, rows, cols, channels), and targets (…, 1)."""
        voxels, masks = self.crops.crops(map(int, numbers))
        return self.recipe.preparation.as_input(voxels[..., None]), self.recipe.targets.encode(masks)


def run(
    out: Annotated[Path, typer.Option("--out", help="Folder of stacks and training.")],
    data: Annotated[Path, typer.Option("--data", help="Folder that packed.py wrote.")] = Path(".dev"),
    variant: Annotated[str, typer.Option("--variant", help="A variant of train_gpu.py.")] = "without-open-ms",
    start: Annotated[str, typer.Option("--start", help="Initial model or weights file.")] = "ms-flair-open-1",
    steps: Annotated[int, typer.Option("--steps", help="Training steps, a multiple of 50.")] = 350,
    heads: Annotated[int, typer.Option("--heads", help="Heads generated before training starts.")] = 60,
    synthetic: Annotated[float, typer.Option("--synthetic", help="Share of generated crops.")] = 0.4,
    batch: Annotated[int, typer.Option("--batch", help="Crops per step.")] = 4,
    crop: Annotated[int, typer.Option("--crop", help="Rows and columns of a crop.")] = 128,
    seed: Annotated[int, typer.Option("--seed", help="Seed of crops.")] = 0,
) -> None:
    """Write the stacks that are missing, and train."""
    trained, weights = Variant.of(variant), find_model(start)
    write_stacks(data, out / "stacks", heads)
    plain = tuple(name for name in MODERN.training.samples.augmentation if name != "extraction")  # type: ignore[attr-defined]
    recipe = MODERN.changed(
        seed=seed,
        batch_size=batch,
        crop=crop,
        augmentation=plain,
        crops_per_epoch=EPOCH * batch,
        epochs=steps // EPOCH,
        learning_rate=trained.rate,
        warmup_steps=WARM_UP,
        encoder_weights="none",
    )

    from planar3d.training.fit import fit
    from planar3d.training.initialization import initial_network
    from planar3d.training.trainer import trainer_of
    from planar3d.transfer.transplant import load_weights

    network = initial_network(recipe)
    load_weights(network, weights, strict=True)
    samples = Batches(Crops(out / "stacks", shares_of(trained, synthetic), recipe, batch), recipe)
    numbers = np.arange(EPOCH * batch)
    fit(network, trainer_of(network), samples, numbers, numbers[:0], recipe, out, typer.echo)


def write_stacks(data: Path, folder: Path, heads: int) -> None:
    """Write the training stacks of real scans, and of generated heads by number, unless they exist."""
    written = folder / "written"  # a file for each scan and head whose stacks are all there
    written.mkdir(parents=True, exist_ok=True)
    for path in sorted(data.glob("scan-*.xz")):
        if not (written / path.stem).exists():
            write_scan(folder, read_packed(path))
            (written / path.stem).touch()
    generator = HeadGenerator(read_anatomies(data, "train"), LesionShapes.load(data / "shapes.npz"))
    for number in range(heads):
        if not (written / f"{number:06d}").exists():
            head = generator.generate(number)
            write_head(folder, head, number)
            (written / f"{number:06d}").touch()
            typer.echo(f"head {number + 1} of {heads}: {head.load_ml:.1f} ml")


if __name__ == "__main__":
    main(run)
