"""Evaluation: tensors in, results out."""

from .ranking import RankingResult, evaluate_ranking

__all__ = ["RankingResult", "evaluate_ranking"]
