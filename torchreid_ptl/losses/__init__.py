"""Losses: mathematics only, a pure function and a thin module per file."""

from .triplet import BatchHardTripletLoss, batch_hard_triplet_loss

__all__ = ["BatchHardTripletLoss", "batch_hard_triplet_loss"]
