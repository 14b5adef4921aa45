"""One training step, many objectives; evaluation; the epoch."""

from .engine import CHECKPOINTS, ImagePTLEngine
from .feature_table import FeatureTable, tabulate
from .finite import NonFiniteLossError
from .frozen import FrozenModel, InputStyle
from .mgn import ImageMGNEngine
from .modes import evaluating
from .objectives import MGNObjective, Objective, SoftmaxObjective, TripletObjective
from .outputs import Outputs
from .std import ImageSTDEngine, STDObjective, projection_of
from .testing import Descriptors, TestOptions, extract, rank, told

__all__ = [
    "CHECKPOINTS",
    "Descriptors",
    "FeatureTable",
    "FrozenModel",
    "ImageMGNEngine",
    "ImagePTLEngine",
    "ImageSTDEngine",
    "InputStyle",
    "MGNObjective",
    "NonFiniteLossError",
    "Objective",
    "Outputs",
    "STDObjective",
    "SoftmaxObjective",
    "TestOptions",
    "TripletObjective",
    "evaluating",
    "extract",
    "projection_of",
    "rank",
    "tabulate",
    "told",
]
