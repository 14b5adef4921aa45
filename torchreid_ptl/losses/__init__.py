"""Losses: mathematics only, a pure function and a thin module per file."""

from .std import STDLoss, std_loss
from .triplet import BatchHardTripletLoss, batch_hard_triplet_loss

__all__ = ["BatchHardTripletLoss", "STDLoss", "batch_hard_triplet_loss", "std_loss"]
