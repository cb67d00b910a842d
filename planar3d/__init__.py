"""planar3d: planar 3D transfer learning in Keras 3 (Kolarik et al. 2020).

The public names are loaded when first used, so that `import planar3d` is instant and loads no TensorFlow.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "PlanarResUNet": "networks.planar_resunet",
    "PlanarVGG16": "networks.vgg16",
    "AlbuNet": "networks.albunet",
    "EfficientEmbedding": "networks.efficient_embedding",
    "DSNet": "networks.ds_net",
    "DXNet": "networks.dx_net",
    "build_network": "networks.registry",
    "list_networks": "networks.registry",
    "load_network": "networks.weights_file",
    "Model": "networks.weights_file",
    "map_kernel": "transfer.mappings",
    "transplant": "transfer.transplant",
    "load_weights": "transfer.transplant",
    "load_torch": "transfer.torch_weights",
    "fetch_known": "transfer.known_files",
    "convert": "conversion.convert",
    "features": "conversion.skip_levels",
    "save_converted": "conversion.saved_model",
    "KernelMapping": "conversion.choices",
    "ResNet18": "networks.resnet",
    "ResNet34": "networks.resnet",
    "ResNet50": "networks.resnet",
    "EfficientNet": "networks.efficientnet",
    "EfficientNetLite0": "networks.efficientnet",
    "Recipe": "recipes",
    "PAPER": "recipes",
    "RELEASED": "recipes",
    "MODERN": "recipes",
    "DEMO": "recipes",
    "Scan": "scans.volume",
    "read_scan": "scans.volume",
    "prepare": "scans.prepare",
    "cut_windows": "scans.windows",
    "compose": "scans.windows",
    "threshold": "scans.windows",
    "find_cases": "scans.datasets",
    "msseg_folds": "scans.folds",
    "group_folds": "scans.folds",
    "write_phantom": "scans.phantom",
    "predictor": "inference.predictor",
    "predict_volume": "inference.predictor",
    "predict_prepared": "inference.prepared_scan",
    "native_mask": "inference.prepared_scan",
    "segment": "inference.segment",
    "segment_case": "inference.segment",
    "Segmenter": "inference.segmenter",
    "export_network": "inference.export",
    "show": "study.notebook",
    "score_scan": "evaluation.scores",
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
