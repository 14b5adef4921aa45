"""Pictures from results: rank lists, curves, histograms, matrices of versions; and a report of all."""

from .compatibility import draw_backfill, draw_version_matrix, save_backfill, save_version_matrix
from .curves import draw_cmc, draw_training_curves, render, save_cmc, save_training_curves
from .ranklist import CHOICES, Match, RankRow, choose_queries, choose_worst, save_rank_list
from .report import Comparison, QueryScore, Report, TargetReport, save_report
from .scores import draw_roc, draw_score_histogram, save_roc, save_score_histogram

__all__ = [
    "CHOICES",
    "Comparison",
    "Match",
    "QueryScore",
    "RankRow",
    "Report",
    "TargetReport",
    "choose_queries",
    "choose_worst",
    "draw_backfill",
    "draw_cmc",
    "draw_roc",
    "draw_score_histogram",
    "draw_training_curves",
    "draw_version_matrix",
    "render",
    "save_backfill",
    "save_cmc",
    "save_rank_list",
    "save_report",
    "save_roc",
    "save_score_histogram",
    "save_training_curves",
    "save_version_matrix",
]
