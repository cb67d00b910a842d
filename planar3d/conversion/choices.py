"""The user's choice of kernel mappings, for the whole network or by layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from keras import layers

from planar3d.conversion.acs import VARIANTS, ACSConv3D
from planar3d.errors import ConversionError
from planar3d.sections import check_choice, whole
from planar3d.transfer.mappings import MAPPINGS, Tap, map_kernel
from planar3d.wording import listed

# The arguments of `convert` for only some mappings, by their field here.
_TAKEN_BY = {
    "depth": ("kernel_depth", [name for name in MAPPINGS if name != "planar"]),
    "tap": ("tap", ["zero"]),
    "alpha": ("alpha", ["scale"]),
}


def _is_set(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and value == "center")


@dataclass(frozen=True)
class KernelMapping:
    """The mapping of a layer's 2D kernel to 3D.

    Attributes:
        name: a mapping of `map_kernel`, or `"acs"`, `"acs_mean"`, `"acs_soft"`.
        depth: taps along depth; None for the kernel's number of rows, or the number of factors in `alpha`. 1×1 kernels
            stay one slice deep.
        tap: for `"zero"`, the tap with the kernel, as in `map_kernel`.
        alpha: for `"scale"`, the factors of the taps, as in `map_kernel`.
    """

    name: str = "planar"
    depth: int | None = None
    tap: Tap = "center"
    alpha: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_choice("mapping", self.name, (*MAPPINGS, *VARIANTS), ConversionError)
        if self.depth is not None:
            whole("depth", self.depth, 1, ConversionError)
        for field in ("tap", "alpha"):
            value, (_, names) = getattr(self, field), _TAKEN_BY[field]
            if _is_set(value) and self.name not in names:
                raise ConversionError(
                    f"{field}={value!r} is for the mapping {names[0]!r}, not for {self.name!r}; omit it."
                )
        try:
            object.__setattr__(self, "alpha", None if self.alpha is None else tuple(map(float, self.alpha)))
        except (TypeError, ValueError) as error:
            raise ConversionError(f"alpha={self.alpha!r}: a list of factors is needed, one for each tap.") from error

    def taps(self, kernel_size: Sequence[int]) -> int:
        """The depth of a layer's mapped kernel; a `ValueError` if an ACS kernel is not as deep as it has rows."""
        if max(kernel_size) == 1:
            return 1
        if self.name in VARIANTS and self.depth not in (None, kernel_size[0]):
            raise ValueError(
                f"mapping={self.name!r}: its kernels have as many slices as rows ({kernel_size[0]}), not "
                f"{self.depth}; omit the depth, or choose another mapping."
            )
        if self.name == "planar":
            return self.depth or 1
        return self.depth or (len(self.alpha) if self.alpha is not None else kernel_size[0])

    def convolution(self, filters: int, kernel_size: tuple[int, int], **options: Any) -> layers.Layer:
        """The 3D layer for a mapped 2D kernel of this size; options are those of `Conv3D`."""
        taps = self.taps(kernel_size)
        if self.name in VARIANTS:
            return ACSConv3D(filters, kernel_size, variant=self.name, **options)
        return layers.Conv3D(filters, (taps, *kernel_size), **options)

    def apply(self, kernel: np.ndarray, taps: int, axis: int, center: int | None = None) -> np.ndarray:
        """Map a kernel (kh, kw, cin, cout); `center` is the tap that keeps slices in place, None for the middle one."""
        if taps == 1:
            return map_kernel(kernel, axis=axis)
        tap = center if self.tap == "center" and center is not None and self.name == "zero" else self.tap
        return map_kernel(kernel, self.name, taps, axis, tap=tap, alpha=self.alpha)

    def described(self, taps: int) -> str:
        """A short form of the mapping: `planar`, `average 3`."""
        return "planar" if taps == 1 else f"{self.name} {taps}"


PLANAR = KernelMapping()
Spelled = str | KernelMapping
MappingChoice = Spelled | Mapping[str, Spelled] | Callable[[Any], Spelled]


def mappings_of(
    kernels: Mapping[str, Any], choice: MappingChoice, given: Mapping[str, Any]
) -> dict[str, KernelMapping]:
    """The mapping of each layer's kernel, by the layer's name, nested ones as `model/layer`.

    Of a dictionary, the first match applies, or `"planar"` without a match. Depth, tap and alpha are `given` for
    mappings by name. A `ConversionError` tells what has no effect.
    """
    if isinstance(choice, Mapping):
        _check_patterns(choice, list(kernels))
    elif not callable(choice):
        _made("mapping", choice, given)
    chosen = {name: _chosen(name, layer, choice) for name, layer in kernels.items()}
    by_name = [choice, *chosen.values()]
    for field, (argument, names) in _TAKEN_BY.items():
        if _is_set(given[field]) and not any(name in by_name for name in names):
            told = f"mapping={choice!r}" if isinstance(choice, str) else "these mappings"
            raise ConversionError(
                f"{argument}={given[field]!r} has no effect with {told}: it is for {', '.join(map(repr, names))}, "
                f"given by name. Choose one of these, or omit {argument}; a KernelMapping has its own {field}."
            )
    return {name: _made(f"mapping of {name}", each, given) for name, each in chosen.items()}


def _chosen(name: str, layer: Any, choice: MappingChoice) -> Any:
    if isinstance(choice, Mapping):
        pattern = _first_fit(choice, name)
        return "planar" if pattern is None else choice[pattern]
    return choice(layer) if callable(choice) else choice


def _made(where: str, chosen: Any, given: Mapping[str, Any]) -> KernelMapping:
    if isinstance(chosen, KernelMapping):
        return chosen
    if not isinstance(chosen, str):
        raise ConversionError(f"{where}: a name or a KernelMapping is needed; got {chosen!r}.")
    return KernelMapping(chosen, **{field: given[field] for field, (_, names) in _TAKEN_BY.items() if chosen in names})


def _check_patterns(choice: Mapping[str, Spelled], kernels: Sequence[str]) -> None:
    """Refuse patterns without effect, which are mistyped or in the wrong order; only `"*"` may match no layer."""
    for pattern in choice:
        if not isinstance(pattern, str):
            raise ConversionError(f"mapping: {pattern!r} is not a layer name or pattern, such as 'block1_*'.")
    used = {_first_fit(choice, name) for name in kernels}
    for pattern in choice:
        if pattern not in used and set(pattern) != {"*"}:
            near = get_close_matches(pattern.strip("*"), kernels, cutoff=0.4) or kernels
            raise ConversionError(
                f"mapping: the pattern {pattern!r} has no effect: it matches no layer with a kernel, such as "
                f"{listed(near)}, or earlier patterns match first. Correct it, or move it to the front."
            )


def _first_fit(choice: Mapping[str, Spelled], name: str) -> str | None:
    """The first pattern that matches a layer's name, alone or with the networks around it."""
    names = name, name.rpartition("/")[2]
    return next((p for p in choice if any(each == p or fnmatchcase(each, p) for each in names)), None)
