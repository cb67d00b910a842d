"""The report of a conversion, layer by layer, and a converted network as a file, with a card that has the report."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

import planar3d
from planar3d.conversion.place import Step
from planar3d.disk import require_room
from planar3d.errors import ConversionError, path_of
from planar3d.extras import extra
from planar3d.files import write_json, written_together
from planar3d.locks import alone_with
from planar3d.transfer.digests import digest_of_all, file_sha256
from planar3d.wording import counted

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".keras", ".weights.h5")
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
        shares = [row.transferred / row.parameters if row.parameters else 1.0 for row in self.rows]
        return pd.DataFrame(map(asdict, self.rows)).assign(share=shares)

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


def save_converted(model3d: keras.Model, path: str | Path, *, provenance: str, licence: str) -> Path:
    """Write a converted network, and its card as `<name>.card.json` next to it.

    Args:
        model3d: as `convert` returned it.
        path: `.keras` for the whole network, `.weights.h5` for its weights.
        provenance: origin of the 2D weights, in words.
        licence: licence of the 2D weights, which also applies to the converted weights.

    Returns:
        The card's path. The card has provenance and licence, the digests of the file and of its arrays, the versions of
        the packages, and the transfer report.

    Raises:
        ConversionError: the suffix is wrong, provenance or licence is missing, or the network was not converted.
    """
    path = path_of(path, "The file to write", ConversionError)
    suffix = next((ending for ending in SUFFIXES if path.name.endswith(ending)), None)
    report = getattr(model3d, "transfer_report", None)
    if suffix is None:
        raise ConversionError(f"{path}: a converted network is saved as {' or '.join(SUFFIXES)}.")
    if not isinstance(report, TransferReport):
        raise ConversionError(
            f"{getattr(model3d, 'name', model3d)} has no transfer report: it was not made by convert in this session."
        )
    if not all(isinstance(text, str) and text.strip() for text in (provenance, licence)):
        raise ConversionError("Name the source (provenance) and the licence of the 2D weights.")
    arrays = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model3d.weights}
    card = path.with_name(path.name.removesuffix(suffix) + ".card.json")
    with alone_with(path, card):
        require_room(path, sum(array.nbytes for array in arrays.values()))
        with written_together(path.parent, (path, card), path, card) as folder:
            (model3d.save if suffix == ".keras" else model3d.save_weights)(written := folder / path.name)
            content = {
                "name": model3d.name,
                "provenance": provenance,
                "licence": licence,
                "file": path.name,
                "sha256": file_sha256(written),
                "weights_sha256": digest_of_all(arrays),
                "versions": {"planar3d": planar3d.__version__, "keras": version("keras")},
                "transfer": report.to_json(),
            }
            write_json(folder / card.name, content)
    return card


def _shapes(weights: Sequence[Any]) -> Shapes:
    return tuple(tuple(weight.shape) for weight in weights)


def _named(name: str, kind: str) -> str:
    return f"{name} ({kind})" if name else "—"


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join("×".join(map(str, shape)) for shape in shapes) or "—"
