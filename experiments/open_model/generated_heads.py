"""A figure of a dozen generated heads beside real scans: an axial slice of each, some with outlined lesions.

python experiments/open_model/generated_heads.py --maps MAPS --lesions MASKS --real SCAN,MASK … --out OUT.png
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import nibabel as nib
import numpy as np
import typer

from planar3d.cli import main
from planar3d.scans.volume import Scan, read_mask, read_scan
from planar3d.training.synthesis import HeadGenerator, LesionShapes, read_anatomies

ROWS, GENERATED, MM = 3, 4, 215.0  # rows and columns of panels; height of a panel
INCH, DPI, COLOURS = 1.5, 110, 40
ABOVE = 0.62  # of the slices


def run(
    maps: Annotated[Path, typer.Option("--maps", help="Folder of label maps, or of their compact files.")],
    lesions: Annotated[Path, typer.Option("--lesions", help="Folder of lesion masks in MNI space, or a compact file.")],
    real: Annotated[list[str], typer.Option("--real", help="scan,mask; repeatable.")],
    out: Annotated[Path, typer.Option("--out", help="PNG.")],
    first: Annotated[int, typer.Option("--first", help="Number of the first head.")] = 0,
) -> None:
    """Draw generated heads on the left and real scans on the right."""
    generator = HeadGenerator(read_anatomies(maps), LesionShapes.read(lesions))
    made = [generator.generate(seed) for seed in range(first, first + ROWS * GENERATED)]
    scans = [read_scan(given.partition(",")[0]) for given in real]
    shown = [(head.scan, head.mask) for head in made]
    shown += [(scan, read_mask(given.partition(",")[2], scan)) for scan, given in zip(scans, real, strict=True)]
    draw([panel(*pair) for pair in shown], -(-len(shown) // ROWS), out)
    typer.echo("\n".join(str(head.drawn) for head in made))


def panel(scan: Scan, mask: Scan) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Grey levels from 0 to 1 and lesions of the slice with most of them, or of one above the middle; height of a pixel
    over its width, and its width in mm.
    """
    turned, lesions = (
        nib.as_closest_canonical(nib.Nifti1Image(each.voxels.astype(np.float32), each.affine)) for each in (scan, mask)
    )
    grey, marked = turned.get_fdata(), lesions.get_fdata() > 0.5
    areas = marked.sum(axis=(0, 1))
    k = int(areas.argmax()) if areas.any() else int(ABOVE * len(areas))
    spacing = turned.header.get_zooms()
    middle = grey[:, :, k][grey[:, :, k] > np.percentile(grey[:, :, k], 60)]
    white = np.clip(grey[:, :, k] / (2.1 * np.median(middle)), 0, 1)
    return white.T, marked[:, :, k].T, spacing[1] / spacing[0], spacing[0]


def draw(panels: Sequence[tuple[np.ndarray, np.ndarray, float, float]], columns: int, out: Path) -> None:
    """Draw panels row by row, the generated ones on the left, and save with few colours."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from PIL import Image

    figure, axes = plt.subplots(ROWS, columns, figsize=(columns * INCH, ROWS * INCH * 1.12), facecolor="black")
    order = [axes[row, column] for row in range(ROWS) for column in range(GENERATED)]
    order += [axes[row, column] for row in range(ROWS) for column in range(GENERATED, columns)]
    for ax in axes.flat:
        ax.axis("off")
    for number, (ax, (grey, marked, aspect, mm)) in enumerate(zip(order, panels, strict=False)):
        ax.imshow(grey, cmap="gray", vmin=0, vmax=1, origin="lower", aspect=aspect, interpolation="bilinear")
        middle = [np.average(np.arange(n), weights=grey.sum(axis=1 - axis) + 1e-9) for axis, n in enumerate(grey.shape)]
        high, wide = MM / 2 / (mm * aspect), MM / 2 / 1.12 / mm
        ax.set_xlim(middle[1] - wide, middle[1] + wide)
        ax.set_ylim(middle[0] - high, middle[0] + high)
        if marked.any() and number % 2:
            ax.contour(marked, levels=[0.5], colors="red", linewidths=0.5)
    figure.subplots_adjust(0, 0, 1, 1, 0.01, 0.01)
    figure.savefig(out, dpi=DPI, facecolor="black")
    plt.close(figure)
    Image.open(out).convert("RGB").quantize(COLOURS).save(out, optimize=True)


if __name__ == "__main__":
    main(run)
