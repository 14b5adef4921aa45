"""Losses: mathematics only, a pure function and a thin module per file."""

from .advbct import AdvBCTLoss, adversarial_loss
from .bct import BCTLoss, bct_loss, join_prototypes
from .boundary import boundary_loss, old_radii
from .compatible import CompatibleLoss
from .contrastive import OldNewContrastiveLoss, RACTLoss, contrastive_loss, ract_loss
from .l2 import FeatureL2Loss, l2_loss
from .lce import LCELoss, lce_loss
from .margin_softmax import margin_softmax_loss
from .mixbct import MixBCTLoss, credible_mask, mix_features, mixbct_loss
from .nccl import NCCLLoss, nccl_loss
from .rbcl import RBCLLoss, rbcl_loss
from .registry import build_loss, register_loss, registered_losses
from .std import STDLoss, std_loss
from .triplet import BatchHardTripletLoss, batch_hard_triplet_loss
from .unibct import UniBCTLoss, refine_prototypes, unibct_loss

__all__ = [
    "AdvBCTLoss",
    "BCTLoss",
    "BatchHardTripletLoss",
    "CompatibleLoss",
    "OldNewContrastiveLoss",
    "FeatureL2Loss",
    "LCELoss",
    "MixBCTLoss",
    "NCCLLoss",
    "RACTLoss",
    "RBCLLoss",
    "STDLoss",
    "UniBCTLoss",
    "adversarial_loss",
    "batch_hard_triplet_loss",
    "bct_loss",
    "boundary_loss",
    "build_loss",
    "contrastive_loss",
    "credible_mask",
    "join_prototypes",
    "l2_loss",
    "lce_loss",
    "margin_softmax_loss",
    "mix_features",
    "mixbct_loss",
    "nccl_loss",
    "old_radii",
    "ract_loss",
    "rbcl_loss",
    "refine_prototypes",
    "register_loss",
    "registered_losses",
    "std_loss",
    "unibct_loss",
]
