"""Pictures from results: rank lists, training curves, CMC curves."""

from .curves import save_cmc, save_training_curves
from .ranklist import Match, RankRow, choose_worst, save_rank_list

__all__ = ["Match", "RankRow", "choose_worst", "save_cmc", "save_rank_list", "save_training_curves"]
