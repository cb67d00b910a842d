"""The report of a conversion: source, target, shapes, mapping and transferred parameters of each layer."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from planar3d.conversion.place import Step
from planar3d.extras import extra
from planar3d.wording import counted

if TYPE_CHECKING:
    import pandas as pd

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class TransferredLayer:
    """A layer of the 3D network with weights, or with a role in the conversion."""

    source: str  # the 2D layer, nested ones as `model/layer`; empty for a new layer
    source_type: str
    target: str  # the 3D layer
    target_type: str
    source_shapes: Shapes  # of their weights
    target_shapes: Shapes
    mapping: str  # origin of the weights: a mapping and its taps, `copied`, or empty
    parameters: int  # of the 3D layer
    transferred: int  # of these, the number derived from the 2D layer's

    @classmethod
    def of(cls, source: Any, step: Step, prefix: str) -> "TransferredLayer":
        """The row of a 3D layer, from its 2D layer (None for a new one) and the networks around it."""
        weights = getattr(step.operation, "weights", [])
        parameters = sum(prod(weight.shape) for weight in weights)
        is_new = source is None
        return cls(
            source="" if is_new else f"{prefix}{source.name}",
            source_type="" if is_new else type(source).__name__,
            target=f"{prefix}{step.operation.name}",
            target_type=type(step.operation).__name__,
            source_shapes=_shapes(getattr(source, "weights", [])),
            target_shapes=_shapes(weights),
            mapping=step.mapping,
            parameters=parameters,
            transferred=0 if is_new or step.arrays is None else parameters,
        )


@dataclass(frozen=True)
class TransferReport:
    """All layers of a conversion, in the order of the network."""

    source: str  # the 2D network's name
    target: str  # the 3D network's name
    rows: tuple[TransferredLayer, ...]  # one for each layer of the 3D network

    @property
    def parameters(self) -> int:
        """Number of parameters of the 3D network."""
        return sum(row.parameters for row in self.rows)

    @property
    def share(self) -> float:
        """The share of the 3D network's parameters derived from the 2D network; 1 if it has none."""
        return sum(row.transferred for row in self.rows) / self.parameters if self.parameters else 1.0

    def to_frame(self) -> "pd.DataFrame":
        """A data frame with one row per layer."""
        with extra("study"):
            import pandas as pd
        return pd.DataFrame([{**asdict(row), "share": _share(row)} for row in self.rows])

    def to_json(self) -> dict[str, Any]:
        """The networks, the share, and the rows of layers with weights, as plain lists and numbers."""
        return {
            "source": self.source,
            "target": self.target,
            "parameters": self.parameters,
            "share": self.share,
            "layers": [asdict(row) for row in self.rows if row.parameters],
        }

    def __str__(self) -> str:
        columns = [("source", "target", "shapes", "mapping", "transferred")]
        for row in self.rows:
            if row.parameters:
                shapes = f"{_listed(row.source_shapes[:1])} → {_listed(row.target_shapes[:1])}"
                part = f"{row.transferred:,} of {row.parameters:,}"
                names = _named(row.source, row.source_type), _named(row.target, row.target_type)
                columns.append((*names, shapes, row.mapping, part))
        widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
        lines = ["  ".join(f"{cell:{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in columns]
        others = sum(not row.parameters for row in self.rows)
        total = f"{self.share:.1%} of {self.parameters:,} parameters transferred"
        total += f"; {counted(others, 'layer')} without weights."
        return "\n".join([f"{self.source} → {self.target}", *lines, total])


def _shapes(weights: Sequence[Any]) -> Shapes:
    return tuple(tuple(weight.shape) for weight in weights)


def _share(row: TransferredLayer) -> float:
    return row.transferred / row.parameters if row.parameters else 1.0


def _named(name: str, kind: str) -> str:
    return f"{name} ({kind})" if name else "—"


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join("×".join(map(str, shape)) for shape in shapes) or "—"
