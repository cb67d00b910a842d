"""A figure of a few kernels before and after the planar mapping, as in the original release."""

from pathlib import Path

import numpy as np

from planar3d.errors import WeightsError
from planar3d.extras import extra
from planar3d.files import written_beside
from planar3d.transfer.mappings import map_kernel

_COUNT = 6  # kernels
_CHANNELS = ("red", "green", "blue")


def draw_kernels(kernels2d: np.ndarray, path: str | Path) -> Path:
    """Draw the first kernels of a convolution, channel by channel, with their planar 3D counterparts.

    Each row is a kernel: its channels as grey squares, then the same values as slabs one slice deep. All share one grey
    scale.

    Args:
        kernels2d: (kh, kw, cin, cout), such as block1_conv1's (3, 3, 3, 64); at most the first three inputs are drawn.

    Raises:
        WeightsError: the kernels are not 2D.

    Source: Kolarik 2020, eq. 3 and figure 1a.
    """
    if np.ndim(kernels2d) != 4:
        raise WeightsError(f"The figure shows 2D kernels (kh, kw, cin, cout) before and after; got {kernels2d.shape}.")
    with extra("study"):
        from matplotlib.figure import Figure

    kernels3d = map_kernel(kernels2d)
    count = min(_COUNT, kernels2d.shape[-1])
    channels = min(len(_CHANNELS), kernels2d.shape[2])
    low, high = float(kernels2d[:, :, :channels, :count].min()), float(kernels2d[:, :, :channels, :count].max())
    figure = Figure(figsize=(2.1 * 2 * channels, 1.5 * count + 0.8), layout="constrained")
    before, after = figure.subfigures(1, 2, squeeze=False)[0]
    before.suptitle(f"2D  {kernels2d.shape[0]}×{kernels2d.shape[1]}")
    after.suptitle("planar 3D  " + "×".join(map(str, kernels3d.shape[:3])))
    flat = before.subplots(count, channels, squeeze=False)
    slabs = after.subplots(count, channels, squeeze=False, subplot_kw={"projection": "3d"})
    for kernel in range(count):
        for channel in range(channels):
            axes = flat[kernel, channel]
            axes.imshow(kernels2d[:, :, channel, kernel], cmap="gray", vmin=low, vmax=high)
            axes.set(xticks=[], yticks=[])
            _draw_slab(slabs[kernel, channel], (kernels3d[..., channel, kernel] - low) / max(high - low, 1e-12))
    for channel, name in zip(range(channels), _CHANNELS, strict=False):
        flat[0, channel].set_title(name if kernels2d.shape[2] == len(_CHANNELS) else f"input {channel}")
    for kernel in range(count):
        flat[kernel, 0].set_ylabel(f"kernel {kernel}")
    path = Path(path)
    with written_beside(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path


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
