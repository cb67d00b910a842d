"""A limit on the memory that a weights file may declare."""

from dataclasses import dataclass
from pathlib import Path

from planar3d.errors import WeightsError

# Trained weights hardly compress (less than twofold), so a file that declares twenty times its size is not valid.
_EXPANSION = 20
_ALWAYS_ALLOWED = 256 * 2**20


@dataclass
class SizeBudget:
    """The bytes that a file may still declare: twenty times its size in total, and at least 256 MiB."""

    path: Path
    taken: int = 0

    def __post_init__(self) -> None:
        self.limit = max(_ALWAYS_ALLOWED, _EXPANSION * self.path.stat().st_size)

    def take(self, nbytes: int, name: str) -> None:
        """Count the bytes declared by `name`; a `WeightsError` if they exceed the limit."""
        self.taken += nbytes
        if self.taken > self.limit:
            raise WeightsError(
                f"{self.path}: {name} declares {nbytes:,} bytes, far more than the file can hold "
                f"({self.path.stat().st_size:,} bytes on disk). It is damaged or meant to exhaust the memory; "
                "get it again from its source."
            )
