"""Optional packages, installed by extras."""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module, metadata

from planar3d.errors import Planar3DError

# By extra, the start of the sentence that ends with the missing package.
_NEEDS = {
    "study": "Figures, reports and the phantom need",
    "dicom": "DICOM needs",
    "itk": "MetaImage and NRRD files need",
    "challenges": "Files of CHAOS and CAMUS need",
    "notebook": "Display in notebooks needs",
    "openvino": "Computing with OpenVINO needs",
    "onnx": "The format onnx needs",
    "litert": "The format litert needs",
    "cluster": "--cluster needs",
    "safetensors": "Weights in safetensors format need",
    "torch": "Weights in PyTorch's own format (not .safetensors) need",
}


def is_installed(*packages: str) -> bool:
    """Whether all packages can be imported; a folder of the same name, such as an export to `onnx`, does not count."""
    found = [importlib.util.find_spec(package) for package in packages]
    return all(spec is not None and spec.origin is not None for spec in found)


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Turn a failing import inside the block into a `Planar3DError` that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise Planar3DError(
            f"{_NEEDS[name]} {error.name}, which is not installed. Install it with: pip install 'planar3d[{name}]'"
        ) from None
    except ImportError as error:
        raise Planar3DError(f"{_NEEDS[name]} packages, of which one {unusable(error, f'planar3d[{name}]')}") from None


def unusable(error: ImportError, required: str) -> str:
    """The end of a sentence about a package that cannot be imported, and what pip can do about it."""
    return (
        f"cannot be imported ({error}): it is missing, too old or damaged. Install the required versions with: "
        f"pip install '{required}'; if the error remains, reinstall the package with --force-reinstall."
    )


def check_extra(name: str, *packages: str) -> None:
    """Raise the error of a missing, damaged or outdated extra now, before long work that needs it at the end."""
    _check_versions(name, packages)
    with extra(name):
        for package in packages:
            if not is_installed(package):
                raise ModuleNotFoundError(name=package)
            import_module(package)


def _check_versions(name: str, packages: Sequence[str]) -> None:
    """Raise the error of a package outside the versions of its extra; without metadata, any version is taken."""
    from packaging.requirements import Requirement

    with suppress(metadata.PackageNotFoundError):
        for needed in map(Requirement, metadata.requires("planar3d") or ()):
            if needed.name.replace("-", "_") in packages and needed.marker and needed.marker.evaluate({"extra": name}):
                found = metadata.version(needed.name)
                if not needed.specifier.contains(found, prereleases=True):
                    raise Planar3DError(
                        f"{_NEEDS[name]} {needed.name}{needed.specifier}, but version {found} is installed. Install "
                        f"the required version with: pip install 'planar3d[{name}]'"
                    )


def check_study_extra() -> None:
    """Raise the error of the extra `study` now if packages for reports are missing."""
    check_extra("study", "jinja2", "matplotlib")
