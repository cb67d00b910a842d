"""The planar VGG-16 encoder as a file, with a figure of the mapping (as by the original `generate_weights.py`)."""

from pathlib import Path

from planar3d.errors import WeightsError
from planar3d.extras import check_study_extra
from planar3d.files import require_room, written_beside
from planar3d.locks import locked
from planar3d.networks.vgg16 import PlanarVGG16
from planar3d.progress import Notify
from planar3d.transfer.arrays import read_arrays
from planar3d.transfer.digests import identify
from planar3d.transfer.keras2_layout import write_legacy_h5
from planar3d.transfer.kernel_figure import draw_kernels
from planar3d.transfer.sources import imagenet_vgg16
from planar3d.transfer.transplant import transplant

FILE_NAMES = {"keras": "planar_3d_vgg.weights.h5", "h5": "planar_3d_vgg.h5"}


def write_planar_weights(
    folder: str | Path, source: str = "imagenet", format: str = "keras", notify: Notify = print
) -> list[Path]:
    """Map 2D VGG-16 kernels to planar 3D ones and write them.

    Args:
        folder: of the file and the figure.
        source: `"imagenet"`, or a file of 2D kernels.
        format: `"keras"` for a Keras 3 `.weights.h5`, `"h5"` for the layout of the original release.

    Returns:
        The weights file and the figure of the first kernels before and after.

    Source: Kolarik 2020, eq. 3 and figure 1a.
    """
    check_study_extra()
    if format not in FILE_NAMES:
        raise WeightsError(f"Format {format!r} is unknown; choose one of: {', '.join(FILE_NAMES)}.")
    if source == "imagenet":
        found = imagenet_vgg16()
        arrays, origin = found.arrays, f"ImageNet VGG-16, {found.origin}"
    else:
        arrays = read_arrays(source)
        origin = f"{identify(arrays)}, {source}"
    kernels = arrays.get("block1_conv1/kernel")
    if kernels is None or kernels.ndim != 4:
        raise WeightsError(f"{source} has no 2D kernels of VGG-16; its block1_conv1/kernel must be (3, 3, 3, 64).")
    network = PlanarVGG16((16, 64, 64, 3), weights=None)
    notify(f"{origin}\n{transplant(network, arrays)}")
    path = Path(folder) / FILE_NAMES[format]
    with locked(folder, "writing weights"), written_beside(path) as temporary:
        require_room(path, sum(array.nbytes for array in network.get_weights()))
        if format == "h5":
            write_legacy_h5(temporary, network)
        else:
            network.save_weights(temporary, overwrite=True)
    figure = path.parent / "planar_3d_vgg_kernels.png"
    draw_kernels(kernels, figure)
    return [path, figure]
