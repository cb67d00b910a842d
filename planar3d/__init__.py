"""planar3d: planar 3D transfer learning in Keras 3 (Kolarik et al. 2020).

The public names are loaded when first used, so that `import planar3d` is instant and loads no TensorFlow.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# HDF5 reads this when it is loaded, for what Keras opens. Weights are written under temporary names, so they need no
# locks, and on some network drives locks fail: training ended with its first weights.
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")

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
        "conversion.transfer_report": "save_converted",
        "conversion.choices": "KernelMapping",
        "networks.resnet": "ResNet18 ResNet34 ResNet50",
        "networks.efficientnet": "EfficientNet EfficientNetLite0",
        "recipes": "Recipe PAPER RELEASED MODERN DEMO",
        "scans.volume": "Scan read_scan",
        "scans.windows": "cut_windows compose",
        "scans.targets": "threshold",
        "scans.layouts": "find_cases",
        "scans.folds": "msseg_folds group_folds",
        "scans.phantom": "write_phantom",
        "inference.predictor": "predictor predict_volume",
        "inference.prepared_scan": "prepare predict_prepared native_mask",
        "inference.segmenter": "Segmenter segment segment_case",
        "inference.export": "export_network",
        "study.notebook": "show",
        "evaluation.scores": "score_scan",
    }.items()
    for name in names.split()
}
_ALIASES = {"load_released": "load_weights"}

__all__ = ["__version__", *_HOME, *_ALIASES]

if TYPE_CHECKING:  # with __getattr__, type checkers and editors would take every name for known, and for Any
    from planar3d.conversion.choices import KernelMapping as KernelMapping
    from planar3d.conversion.convert import convert as convert
    from planar3d.conversion.skip_levels import features as features
    from planar3d.conversion.transfer_report import save_converted as save_converted
    from planar3d.evaluation.scores import score_scan as score_scan
    from planar3d.inference.export import export_network as export_network
    from planar3d.inference.predictor import predict_volume as predict_volume, predictor as predictor
    from planar3d.inference.prepared_scan import (
        native_mask as native_mask,
        predict_prepared as predict_prepared,
        prepare as prepare,
    )
    from planar3d.inference.segmenter import Segmenter as Segmenter, segment as segment, segment_case as segment_case
    from planar3d.networks.albunet import AlbuNet as AlbuNet
    from planar3d.networks.ds_net import DSNet as DSNet
    from planar3d.networks.dx_net import DXNet as DXNet
    from planar3d.networks.efficient_embedding import EfficientEmbedding as EfficientEmbedding
    from planar3d.networks.efficientnet import EfficientNet as EfficientNet, EfficientNetLite0 as EfficientNetLite0
    from planar3d.networks.omnia_net import OmniaNet as OmniaNet
    from planar3d.networks.planar_resunet import PlanarResUNet as PlanarResUNet
    from planar3d.networks.registry import build_network as build_network, list_networks as list_networks
    from planar3d.networks.resnet import ResNet18 as ResNet18, ResNet34 as ResNet34, ResNet50 as ResNet50
    from planar3d.networks.vgg16 import PlanarVGG16 as PlanarVGG16
    from planar3d.networks.weights_file import Model as Model, load_network as load_network
    from planar3d.recipes import DEMO as DEMO, MODERN as MODERN, PAPER as PAPER, RELEASED as RELEASED, Recipe as Recipe
    from planar3d.scans.folds import group_folds as group_folds, msseg_folds as msseg_folds
    from planar3d.scans.layouts import find_cases as find_cases
    from planar3d.scans.phantom import write_phantom as write_phantom
    from planar3d.scans.targets import threshold as threshold
    from planar3d.scans.volume import Scan as Scan, read_scan as read_scan
    from planar3d.scans.windows import compose as compose, cut_windows as cut_windows
    from planar3d.study.notebook import show as show
    from planar3d.transfer.known_files import fetch_known as fetch_known
    from planar3d.transfer.mappings import map_kernel as map_kernel
    from planar3d.transfer.torch_weights import load_torch as load_torch
    from planar3d.transfer.transplant import load_weights as load_weights, transplant as transplant

    load_released = load_weights

else:

    def __getattr__(name: str) -> Any:
        name_at_home = _ALIASES.get(name, name)
        if name_at_home not in _HOME:
            raise AttributeError(f"planar3d has no {name!r}; it has: {', '.join(__all__)}.")
        return getattr(import_module(f"planar3d.{_HOME[name_at_home]}"), name_at_home)


def __dir__() -> list[str]:
    return list(__all__)
