"""Evaluation: tensors in, results out."""

from .ranking import evaluate_ranking
from .result import RankingResult

__all__ = ["RankingResult", "evaluate_ranking"]
