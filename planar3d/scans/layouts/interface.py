"""What all layouts share: a folder's files in, its cases out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from planar3d.scans.case import Case, LabelSet
from planar3d.scans.folds import Fold


class Layout(ABC):
    """How a data set names its files and lays them into folders."""

    name: str  # of the layout
    expected: str  # its files, for the sentence about a folder of unknown layout

    @abstractmethod
    def find(self, folder: Path, files: Sequence[Path], labelled: bool) -> list[Case]:
        """The cases of a folder; none if it has another layout.

        Args:
            folder: of the data set, or a table.
            files: all that lie in it and its subfolders, but for derivatives.
            labelled: whether cases that nobody marks, as those of a test set, are left out beside others. Where a
                label map is missing, its case has the path where it should be.

        Raises:
            DatasetError: the folder has the layout, but cannot be understood.
        """

    def label_set(self, folder: Path, cases: Sequence[Case]) -> LabelSet | None:
        """What the labels of these cases mean, if the layout says so; a `DatasetError` if it says so unclearly."""
        return None

    def split(self, folder: Path, cases: Sequence[Case]) -> Fold | None:
        """What trains, validates and tests in the data set's own split, if it has one."""
        return None
