"""Pictures from results: rank lists, curves, histograms, matrices of versions; and a report of all."""

from .curves import draw_backfill, draw_cmc, draw_training_curves, draw_version_matrix, render, save_figure
from .ranklist import CHOICES, Match, RankRow, choose_queries, choose_worst, save_rank_list
from .report import Comparison, QueryScore, Report, TargetReport, save_report
from .scores import draw_roc, draw_score_histogram

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
    "save_figure",
    "save_rank_list",
    "save_report",
]
