"""Pictures from results: rank lists, training curves, CMC and ROC curves, histograms of scores; and a report of all."""

from .curves import draw_cmc, draw_training_curves, render, save_cmc, save_training_curves
from .ranklist import CHOICES, Match, RankRow, choose_queries, choose_worst, save_rank_list
from .report import QueryScore, Report, TargetReport, save_report
from .scores import draw_roc, draw_score_histogram, save_roc, save_score_histogram

__all__ = [
    "CHOICES",
    "Match",
    "QueryScore",
    "RankRow",
    "Report",
    "TargetReport",
    "choose_queries",
    "choose_worst",
    "draw_cmc",
    "draw_roc",
    "draw_score_histogram",
    "draw_training_curves",
    "render",
    "save_cmc",
    "save_rank_list",
    "save_report",
    "save_roc",
    "save_score_histogram",
    "save_training_curves",
]
