"""Losses: mathematics only, a pure function and a thin module per file."""

from .bct import BCTLoss, bct_loss, join_prototypes
from .compatible import CompatibleLoss
from .contrastive import ContrastiveLoss, RACTLoss, contrastive_loss, ract_loss
from .l2 import L2Loss, l2_loss
from .margin_softmax import margin_softmax_loss
from .mixbct import MixBCTLoss, credible_mask, mix_features, mixbct_loss
from .nccl import NCCLLoss, nccl_loss
from .rbcl import RBCLoss, rbcl_loss
from .std import STDLoss, std_loss
from .triplet import BatchHardTripletLoss, batch_hard_triplet_loss
from .unibct import UniBCTLoss, refine_prototypes, unibct_loss

__all__ = [
    "BCTLoss",
    "BatchHardTripletLoss",
    "CompatibleLoss",
    "ContrastiveLoss",
    "L2Loss",
    "MixBCTLoss",
    "NCCLLoss",
    "RACTLoss",
    "RBCLoss",
    "STDLoss",
    "UniBCTLoss",
    "batch_hard_triplet_loss",
    "bct_loss",
    "contrastive_loss",
    "credible_mask",
    "join_prototypes",
    "l2_loss",
    "margin_softmax_loss",
    "mix_features",
    "mixbct_loss",
    "nccl_loss",
    "ract_loss",
    "rbcl_loss",
    "refine_prototypes",
    "std_loss",
    "unibct_loss",
]
