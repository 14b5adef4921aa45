"""One training step, many objectives; evaluation; the epoch."""

from .engine import CHECKPOINTS, ImagePTLEngine
from .finite import NonFiniteLossError
from .mgn import ImageMGNEngine
from .modes import evaluating
from .objectives import MGNObjective, Objective, SoftmaxObjective, TripletObjective
from .outputs import Outputs
from .testing import Descriptors, TestOptions, rank

__all__ = [
    "CHECKPOINTS",
    "Descriptors",
    "ImageMGNEngine",
    "ImagePTLEngine",
    "MGNObjective",
    "NonFiniteLossError",
    "Objective",
    "Outputs",
    "SoftmaxObjective",
    "TestOptions",
    "TripletObjective",
    "evaluating",
    "rank",
]
