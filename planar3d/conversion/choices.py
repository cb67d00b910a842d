"""What a user can choose: how kernels are mapped, for the network or by layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from planar3d.conversion.acs import VARIANTS
from planar3d.errors import ConversionError
from planar3d.transfer.mappings import MAPPINGS, Tap, map_kernel


@dataclass(frozen=True)
class KernelMapping:
    """How a layer's 2D kernel becomes a 3D one.

    Attributes:
        name: of `map_kernel`'s mappings, or `"acs"`, `"acs_mean"`, `"acs_soft"`.
        depth: taps along depth; None takes as many as the kernel has rows, or as there are factors in `alpha`. Kernels
            of 1×1 stay one deep, for they look at no neighbours.
        tap: for `"zero"`, the tap that holds the kernel, as in `map_kernel`.
        alpha: for `"scale"`, the factors of the taps, as in `map_kernel`.
    """

    name: str = "planar"
    depth: int | None = None
    tap: Tap = "center"
    alpha: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.name not in (*MAPPINGS, *VARIANTS):
            known = ", ".join(map(repr, (*MAPPINGS, *VARIANTS)))
            raise ConversionError(f"mapping={self.name!r} is unknown; choose one of: {known}.")

    def taps(self, kernel_size: Sequence[int]) -> int:
        """How deep the kernel of a layer becomes."""
        if max(kernel_size) == 1:
            return 1
        if self.name == "planar":
            return self.depth or 1
        return self.depth or (len(self.alpha) if self.alpha is not None else kernel_size[0])

    def apply(self, kernel: np.ndarray, taps: int, axis: int, center: int | None = None) -> np.ndarray:
        """Map a kernel (kh, kw, cin, cout).

        Args:
            kernel: of the 2D layer.
            taps: how deep it becomes.
            axis: as in `map_kernel`.
            center: the tap that leaves slices in place; None where it is the middle one.
        """
        if taps == 1:
            return map_kernel(kernel, axis=axis)
        tap = center if self.tap == "center" and center is not None and self.name == "zero" else self.tap
        return map_kernel(kernel, self.name, taps, axis, tap=tap, alpha=self.alpha)

    def described(self, taps: int) -> str:
        """The mapping in a word or two: `planar`, `average 3`."""
        return "planar" if taps == 1 else f"{self.name} {taps}"


Spelled = str | KernelMapping
MappingChoice = Spelled | Mapping[str, Spelled] | Callable[[Any], Spelled]


def mapping_of(layer: Any, choice: MappingChoice, default: KernelMapping) -> KernelMapping:
    """The mapping of a layer's kernel.

    Args:
        layer: of the 2D network.
        choice: a mapping; a dictionary of them by layer name or pattern (`"block1_*"`), the first that fits counting
            and `"planar"` where none does; or a function of the layer.
        default: gives depth, tap and alpha to mappings that are spelled as a name.
    """
    if callable(choice):
        choice = choice(layer)
    elif isinstance(choice, Mapping):
        choice = next((value for pattern, value in choice.items() if fnmatchcase(layer.name, pattern)), "planar")
    if isinstance(choice, KernelMapping):
        return choice
    if not isinstance(choice, str):
        raise ConversionError(f"mapping of {layer.name}: a name or a KernelMapping is needed; got {choice!r}.")
    return KernelMapping(
        choice,
        None if choice == "planar" else default.depth,
        default.tap if choice == "zero" else "center",
        default.alpha if choice == "scale" else None,
    )
