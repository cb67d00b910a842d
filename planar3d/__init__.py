"""planar3d: planar 3D transfer learning in Keras 3 (Kolarik et al. 2020).

The public names are loaded when first used, so that `import planar3d` is instant and loads no TensorFlow.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# The public names by their module.
_HOME = {
    name: module
    for module, names in {
        "networks.planar_resunet": "PlanarResUNet",
        "networks.vgg16": "PlanarVGG16",
        "networks.albunet": "AlbuNet",
        "networks.efficient_embedding": "EfficientEmbedding",
        "networks.ds_net": "DSNet",
        "networks.omnia_net": "OmniaNet",
        "networks.dx_net": "DXNet",
        "networks.registry": "build_network list_networks",
        "networks.weights_file": "load_network Model",
        "transfer.mappings": "map_kernel",
        "transfer.transplant": "transplant load_weights",
        "transfer.torch_weights": "load_torch",
        "transfer.known_files": "fetch_known",
        "conversion.convert": "convert",
        "conversion.skip_levels": "features",
        "conversion.saved_model": "save_converted",
        "conversion.choices": "KernelMapping",
        "networks.resnet": "ResNet18 ResNet34 ResNet50",
        "networks.efficientnet": "EfficientNet EfficientNetLite0",
        "recipes": "Recipe PAPER RELEASED MODERN DEMO",
        "scans.volume": "Scan read_scan",
        "scans.prepare": "prepare",
        "scans.windows": "cut_windows compose threshold",
        "scans.datasets": "find_cases",
        "scans.folds": "msseg_folds group_folds",
        "scans.phantom": "write_phantom",
        "inference.predictor": "predictor predict_volume",
        "inference.prepared_scan": "predict_prepared native_mask",
        "inference.segment": "segment segment_case",
        "inference.segmenter": "Segmenter",
        "inference.export": "export_network",
        "study.notebook": "show",
        "evaluation.scores": "score_scan",
    }.items()
    for name in names.split()
}
_ALIASES = {"load_released": "load_weights"}

__all__ = ["__version__", *_HOME, *_ALIASES]


def __getattr__(name: str) -> Any:
    name_at_home = _ALIASES.get(name, name)
    if name_at_home not in _HOME:
        raise AttributeError(f"planar3d has no {name!r}; it has: {', '.join(__all__)}.")
    return getattr(import_module(f"planar3d.{_HOME[name_at_home]}"), name_at_home)


def __dir__() -> list[str]:
    return list(__all__)
