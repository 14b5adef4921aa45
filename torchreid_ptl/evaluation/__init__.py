"""Evaluation: tensors in, results out."""

from .distances import Distances, FeatureDistances, MatrixDistances
from .install import install, uninstall
from .ranking import evaluate_ranking
from .rerank import RerankedDistances, rerank
from .result import RankingResult
from .verification import verify
from .verification_result import VerificationResult

__all__ = [
    "Distances",
    "FeatureDistances",
    "MatrixDistances",
    "RankingResult",
    "RerankedDistances",
    "VerificationResult",
    "evaluate_ranking",
    "install",
    "rerank",
    "uninstall",
    "verify",
]
