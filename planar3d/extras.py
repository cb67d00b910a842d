"""Packages that only some users need, and that an extra of the installation brings."""

import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from planar3d.errors import Planar3DError


@contextmanager
def extra(name: str, needs: str) -> Iterator[None]:
    """Turn an import that fails inside the block into a sentence that says what to install.

    Args:
        name: of the extra.
        needs: the sentence's beginning, to which the missing package is added.

    Raises:
        Planar3DError: a package could not be imported.
    """
    try:
        yield
    except ImportError as error:
        raise Planar3DError(
            f"{needs} {error.name}, which is not installed. Install it with: pip install 'planar3d[{name}]'"
        ) from None


def study_extra() -> AbstractContextManager[None]:
    """The extra that figures, reports and the phantom need."""
    return extra("study", "Figures, reports and the phantom need")


def check_extra(needed: AbstractContextManager[None], *packages: str) -> None:
    """Raise the error of an extra now, before work that would miss one of its packages at its end."""
    with needed:
        for package in packages:
            if importlib.util.find_spec(package) is None:
                raise ModuleNotFoundError(name=package)


def check_study_extra() -> None:
    """Raise the error of `study_extra` now if that extra is missing."""
    check_extra(study_extra(), "jinja2", "matplotlib")


def dicom_extra() -> AbstractContextManager[None]:
    """The extra that DICOM series need."""
    return extra("dicom", "DICOM needs")


def challenges_extra() -> AbstractContextManager[None]:
    """The extra that files of CHAOS and CAMUS need."""
    return extra("challenges", "Files of CHAOS and CAMUS need")


def itk_extra() -> AbstractContextManager[None]:
    """The extra that MetaImage and NRRD files need."""
    return extra("itk", "MetaImage and NRRD files need")
