"""The planar VGG-16 encoder as a file, with a figure of the mapping (as by the original `generate_weights.py`)."""

from pathlib import Path

import numpy as np

from planar3d.disk import require_room
from planar3d.errors import WeightsError
from planar3d.evaluation.canvas import canvas, default_style, save
from planar3d.extras import check_study_extra
from planar3d.files import written_beside
from planar3d.locks import locked
from planar3d.progress import Notify, tell
from planar3d.sections import check_choice
from planar3d.transfer.keras2_layout import write_legacy_h5
from planar3d.transfer.mappings import map_kernel
from planar3d.transfer.rehearsal import read_arrays

_COUNT = 6  # kernels in the figure
_CHANNELS = ("red", "green", "blue")
FILE_NAMES = {"keras": "planar_3d_vgg.weights.h5", "h5": "planar_3d_vgg.h5"}


def write_planar_weights(
    folder: str | Path, source: str = "imagenet", format: str = "keras", notify: Notify = tell
) -> list[Path]:
    """Map 2D VGG-16 kernels to planar 3D ones and write them.

    Args:
        folder: of the file and the figure.
        source: `"imagenet"`, or a file of all 2D kernels, under names of Keras or torch.
        format: `"keras"` for a Keras 3 `.weights.h5`, `"h5"` for the layout of the original release.

    Returns:
        The weights file and the figure of the first kernels before and after.

    Raises:
        WeightsError: the source cannot be read, or is not a whole VGG-16 in 2D.

    Source: Kolarik 2020, eq. 3 and figure 1a.
    """
    check_study_extra()
    check_choice("format", format, FILE_NAMES, WeightsError)
    # Importing TensorFlow takes seconds.
    from planar3d.networks.encoder_weights import VGG16_SOURCE, fill_encoder
    from planar3d.networks.vgg16 import PlanarVGG16

    origin = VGG16_SOURCE.origin(source)
    if source != "imagenet" and any(array.ndim == 5 for array in read_arrays(source).values()):
        raise WeightsError(f"{source} has planar kernels already; name a file of 2D kernels.")
    network = PlanarVGG16((16, 64, 64, 3), weights=None)
    notify(f"{origin}\n{fill_encoder(network, source)}")
    path, figure = Path(folder, FILE_NAMES[format]), Path(folder, "planar_3d_vgg_kernels.png")
    with locked(folder, "writing weights"):
        with written_beside(path) as temporary:
            require_room(path, sum(array.nbytes for array in network.get_weights()))
            if format == "h5":
                write_legacy_h5(temporary, network)
            else:
                network.save_weights(temporary, overwrite=True)
        draw_kernels(np.asarray(network.get_layer("block1_conv1").kernel)[0], figure)
    return [path, figure]


@default_style()
def draw_kernels(kernels2d: np.ndarray, path: str | Path) -> None:
    """Draw the first kernels of a convolution, channel by channel, with their planar 3D counterparts.

    Each row is a kernel: its channels as grey squares, then the same values as slabs one slice deep. All share one grey
    scale.

    Args:
        kernels2d: (kh, kw, 3, cout) of RGB, as block1_conv1's.

    Source: Kolarik 2020, eq. 3 and figure 1a.
    """
    kernels2d = kernels2d[..., :_COUNT]
    kernels3d = map_kernel(kernels2d)
    low, high = float(kernels2d.min()), float(kernels2d.max())
    figure = canvas(2.1 * 2 * len(_CHANNELS), 1.5 * _COUNT + 0.8)
    figure.set_layout_engine("constrained")
    before, after = figure.subfigures(1, 2, squeeze=False)[0]
    before.suptitle(f"2D  {kernels2d.shape[0]}×{kernels2d.shape[1]}")
    after.suptitle("planar 3D  " + "×".join(map(str, kernels3d.shape[:3])))
    flat = before.subplots(_COUNT, len(_CHANNELS))
    slabs = after.subplots(_COUNT, len(_CHANNELS), subplot_kw={"projection": "3d"})
    for (kernel, channel), axes in np.ndenumerate(flat):
        axes.imshow(kernels2d[:, :, channel, kernel], cmap="gray", vmin=low, vmax=high)
        axes.set(xticks=[], yticks=[])
        _draw_slab(slabs[kernel, channel], (kernels3d[..., channel, kernel] - low) / max(high - low, 1e-12))
    for axes, name in zip(flat[0], _CHANNELS, strict=True):
        axes.set_title(name)
    for kernel, axes in enumerate(flat[:, 0]):
        axes.set_ylabel(f"kernel {kernel}")
    save(figure, path)


def _draw_slab(axes, greys: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    """Voxels (depth, rows, cols) with depth to the back, rows downwards and columns to the right."""
    # matplotlib's axes are x to the right, y to the back, z upwards.
    voxels = greys.transpose(2, 0, 1)[:, :, ::-1]
    colours = np.repeat(voxels[..., np.newaxis], 3, axis=-1)
    # Shading would darken the greys, which must match those of the 2D kernel.
    axes.voxels(np.ones(voxels.shape, bool), facecolors=colours, edgecolors="0.5", linewidth=0.4, shade=False)
    axes.set_box_aspect(voxels.shape)
    axes.view_init(elev=18, azim=-65)
    axes.set_axis_off()
