"""Losses: mathematics only, a pure function and a thin module per file."""

from .compatible import CompatibleLoss
from .l2 import L2Loss, l2_loss
from .rbcl import RBCLoss, rbcl_loss
from .std import STDLoss, std_loss
from .triplet import BatchHardTripletLoss, batch_hard_triplet_loss

__all__ = [
    "BatchHardTripletLoss",
    "CompatibleLoss",
    "L2Loss",
    "RBCLoss",
    "STDLoss",
    "batch_hard_triplet_loss",
    "l2_loss",
    "rbcl_loss",
    "std_loss",
]
