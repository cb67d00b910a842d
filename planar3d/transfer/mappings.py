"""Mappings from 2D to 3D kernels: the planar mapping, and inflations for comparison."""

from collections.abc import Callable, Sequence

import numpy as np

from planar3d.sections import check_choice, whole

Tap = int | str


def check_axis(axis: object, error: type[Exception]) -> None:
    """Raise an error unless depth can have this position among the three axes."""
    if not isinstance(axis, int | np.integer) or isinstance(axis, bool) or axis not in (0, 1, 2):
        raise error(f"axis={axis!r}: depth is 0 (before rows), 1 (before columns) or 2 (after columns).")


def map_kernel(
    k2: np.ndarray,
    mapping: str = "planar",
    depth: int = 1,
    axis: int = 0,
    *,
    tap: Tap = "center",
    alpha: Sequence[float] | None = None,
) -> np.ndarray:
    """Turn a 2D convolution kernel into a 3D kernel: repeat it along a new axis, with a factor for each tap.

    >>> map_kernel(np.ones((3, 3, 16, 32), "float32")).shape
    (1, 3, 3, 16, 32)

    Args:
        k2: (kh, kw, cin, cout), floating point.
        mapping: `"planar"`, the kernel as one plane (depth 1); `"zero"`, the kernel at one tap and zeros at the others;
            `"average"`, the kernel times 1/depth at each tap; `"scale"`, the kernel times alpha[t] at tap t;
            `"repeat"`, the kernel at each tap.
        depth: taps along the new axis.
        axis: position of the new axis: 0 before rows, 1 between rows and columns, 2 after columns.
        tap: for `"zero"`, the tap with the kernel; `"center"` is the tap that does not shift slices with 'same'
            padding.
        alpha: for `"scale"`, `depth` positive factors that add up to 1.

    Returns:
        (depth, kh, kw, cin, cout) for axis 0, in the dtype of `k2`.

    Raises:
        ValueError: an unknown mapping, or arguments that do not fit it.

    Source: planar, Kolarik 2020, eq. 3; zero, average and scale, Eshed 2018; repeat, Messaoudi 2023 (DX-Net). Section
    2.2 of Kolarik 2020 discusses zero and repeat.
    """
    k2 = np.asarray(k2)
    if k2.ndim != 4 or not np.issubdtype(k2.dtype, np.floating):
        raise ValueError(f"A 2D kernel is (kh, kw, cin, cout) in floating point; got {k2.shape} of {k2.dtype}.")
    check_choice("mapping", mapping, MAPPINGS, ValueError)
    depth = whole("depth", depth, 1, ValueError)
    check_axis(axis, ValueError)
    if tap != "center" and mapping != "zero":
        raise ValueError(f"tap={tap!r} belongs to mapping='zero', not to {mapping!r}.")
    if alpha is not None and mapping != "scale":
        raise ValueError(f"alpha belongs to mapping='scale', not to {mapping!r}.")
    factors = MAPPINGS[mapping](depth, tap, alpha).astype(k2.dtype)
    return np.stack([factor * k2 for factor in factors], axis)


def _planar(depth: int, tap: Tap, alpha: Sequence[float] | None) -> np.ndarray:
    if depth != 1:
        raise ValueError(
            f"mapping='planar' has depth 1, not {depth}; for deeper kernels choose one of: "
            f"{', '.join(repr(name) for name in MAPPINGS if name != 'planar')}."
        )
    return np.ones(1)


def _zero(depth: int, tap: Tap, alpha: Sequence[float] | None) -> np.ndarray:
    # An even kernel is padded by one more slice at the end than at the start, so its center is the lower middle tap.
    index = (depth - 1) // 2 if tap == "center" else tap
    if isinstance(index, bool) or not isinstance(index, int | np.integer) or not 0 <= index < depth:
        raise ValueError(f"tap={tap!r} is not one of the {depth} taps; use 'center' or an index from 0 to {depth - 1}.")
    return np.eye(depth)[index]


def _scale(depth: int, tap: Tap, alpha: Sequence[float] | None) -> np.ndarray:
    try:
        factors = np.asarray(alpha, float)
    except (TypeError, ValueError):
        factors = np.empty(0)
    if factors.shape != (depth,) or not (factors > 0).all() or not np.isclose(factors.sum(), 1, rtol=0, atol=1e-6):
        raise ValueError(f"alpha={alpha!r}: mapping='scale' needs {depth} positive factors that add up to 1.")
    return factors


# The mappings differ only in the factor of the 2D kernel at each tap.
MAPPINGS: dict[str, Callable[[int, Tap, Sequence[float] | None], np.ndarray]] = {
    "planar": _planar,
    "zero": _zero,
    "average": lambda depth, tap, alpha: np.full(depth, 1 / depth),
    "scale": _scale,
    "repeat": lambda depth, tap, alpha: np.ones(depth),
}
