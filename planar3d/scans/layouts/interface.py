"""Interface of layouts: from a folder's files to its cases."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from planar3d.scans.case import Case, LabelSet
from planar3d.scans.folds import Fold


class Layout(ABC):
    """How a data set names its files and folders."""

    name: str  # of the layout
    expected: str  # its files, for the error message about an unknown layout

    @abstractmethod
    def find(self, folder: Path, files: Sequence[Path], labelled: bool) -> list[Case]:
        """The cases of a folder; none if it has another layout.

        Args:
            folder: of the data set, or a table.
            files: all files in it and its subfolders, except derivatives.
            labelled: whether cases without public labels, as in a test set, are excluded if others exist. If a label
                map is missing, its case has the expected path. A label map without a scan is a case without images,
                unless a missing scan cannot be meant.

        Raises:
            DatasetError: the folder has the layout, but cannot be understood.
        """

    def label_set(self, folder: Path, cases: Sequence[Case]) -> LabelSet | None:
        """The meaning of the labels of these cases, if the layout defines it; a `DatasetError` if it is ambiguous."""
        return None

    def split(self, folder: Path, cases: Sequence[Case]) -> Fold | None:
        """The data set's own split into training, validation and test, if it has one."""
        return None
