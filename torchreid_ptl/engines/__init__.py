"""Engines and objectives: training step, epoch and evaluation."""

from .cluster import ClusterObjective
from .compatible import ImageCompatibleEngine
from .compatible_objective import CompatibleObjective
from .engine import CHECKPOINTS, ImagePTLEngine
from .feature_objective import FeatureObjective, descriptor_dim
from .feature_table import FeatureTable, tabulate
from .finite import NonFiniteLossError
from .frozen import FrozenModel, Preprocessing
from .inference import extract, long_progress
from .margin import MarginSoftmaxObjective
from .mgn import ImageMGNEngine
from .modes import evaluating
from .objectives import MGNObjective, Objective, SoftmaxObjective, TripletObjective
from .old import OldModel, build_bank
from .old_gallery import OldGallery
from .outputs import Outputs
from .std import ImageSTDEngine, STDObjective, projection_of

__all__ = [
    "FeatureObjective",
    "CHECKPOINTS",
    "ClusterObjective",
    "CompatibleObjective",
    "FeatureTable",
    "FrozenModel",
    "ImageCompatibleEngine",
    "ImageMGNEngine",
    "ImagePTLEngine",
    "ImageSTDEngine",
    "Preprocessing",
    "MGNObjective",
    "MarginSoftmaxObjective",
    "NonFiniteLossError",
    "Objective",
    "OldModel",
    "OldGallery",
    "Outputs",
    "STDObjective",
    "SoftmaxObjective",
    "TripletObjective",
    "build_bank",
    "descriptor_dim",
    "evaluating",
    "extract",
    "long_progress",
    "projection_of",
    "tabulate",
]
