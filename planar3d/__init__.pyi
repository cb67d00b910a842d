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

__version__: str
_HOME: dict[str, str]
_ALIASES: dict[str, str]
