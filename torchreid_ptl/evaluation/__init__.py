"""Evaluation: tensors in, results out."""

from .compatibility import compatibility
from .compatibility_result import CompatibilityResult
from .distances import Distances, FeatureDistances, MatrixDistances
from .install import install, uninstall
from .ranking import evaluate_ranking
from .rerank import RerankedDistances, rerank
from .result import RankingResult
from .verification import verify
from .verification_result import VerificationResult
from .version_matrix import VersionMatrix, version_matrix

__all__ = [
    "CompatibilityResult",
    "Distances",
    "FeatureDistances",
    "MatrixDistances",
    "RankingResult",
    "RerankedDistances",
    "VerificationResult",
    "VersionMatrix",
    "compatibility",
    "evaluate_ranking",
    "install",
    "rerank",
    "uninstall",
    "verify",
    "version_matrix",
]
