"""One training step, many objectives; evaluation; the epoch."""

from .beside import BesideObjective, descriptor_dim
from .cluster import ClusterObjective
from .compatible import ImageCompatibleEngine
from .compatible_objective import CompatibleObjective
from .engine import CHECKPOINTS, ImagePTLEngine
from .feature_table import FeatureTable, tabulate
from .finite import NonFiniteLossError
from .frozen import FrozenModel, InputStyle
from .margin import MarginSoftmaxObjective
from .mgn import ImageMGNEngine
from .modes import evaluating
from .objectives import MGNObjective, Objective, SoftmaxObjective, TripletObjective
from .old import OldModel, build_bank
from .old_side import OldSide
from .outputs import Outputs
from .std import ImageSTDEngine, STDObjective, projection_of
from .testing import Descriptors, TestOptions, extract, rank, told

__all__ = [
    "BesideObjective",
    "CHECKPOINTS",
    "ClusterObjective",
    "CompatibleObjective",
    "Descriptors",
    "FeatureTable",
    "FrozenModel",
    "ImageCompatibleEngine",
    "ImageMGNEngine",
    "ImagePTLEngine",
    "ImageSTDEngine",
    "InputStyle",
    "MGNObjective",
    "MarginSoftmaxObjective",
    "NonFiniteLossError",
    "Objective",
    "OldModel",
    "OldSide",
    "Outputs",
    "STDObjective",
    "SoftmaxObjective",
    "TestOptions",
    "TripletObjective",
    "build_bank",
    "descriptor_dim",
    "evaluating",
    "extract",
    "projection_of",
    "rank",
    "tabulate",
    "told",
]
