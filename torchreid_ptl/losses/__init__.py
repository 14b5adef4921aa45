"""Losses: mathematics only, a pure function and a thin module per file."""

from .compatible import CompatibleLoss
from .l2 import L2Loss, l2_loss
from .margin_softmax import margin_softmax_loss
from .mixbct import MixBCTLoss, credible_mask, mix_features, mixbct_loss
from .rbcl import RBCLoss, rbcl_loss
from .std import STDLoss, std_loss
from .triplet import BatchHardTripletLoss, batch_hard_triplet_loss

__all__ = [
    "BatchHardTripletLoss",
    "CompatibleLoss",
    "L2Loss",
    "MixBCTLoss",
    "RBCLoss",
    "STDLoss",
    "batch_hard_triplet_loss",
    "credible_mask",
    "l2_loss",
    "margin_softmax_loss",
    "mix_features",
    "mixbct_loss",
    "rbcl_loss",
    "std_loss",
]
