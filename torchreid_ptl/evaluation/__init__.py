"""Evaluation: descriptors in, results out."""

from .comparison import VersionComparison, compare
from .compatibility import compatibility
from .compatibility_result import CompatibilityResult
from .descriptors import Descriptors
from .distances import Distances, FeatureDistances, MatrixDistances
from .install import install, uninstall
from .options import EvaluationOptions
from .ranking import evaluate_ranking, rank
from .rerank import RerankedDistances, rerank
from .result import RankingResult
from .verification import verify
from .verification_result import VerificationResult
from .version_matrix import VersionMatrix, version_matrix

__all__ = [
    "CompatibilityResult",
    "Descriptors",
    "Distances",
    "EvaluationOptions",
    "FeatureDistances",
    "MatrixDistances",
    "RankingResult",
    "RerankedDistances",
    "VerificationResult",
    "VersionComparison",
    "VersionMatrix",
    "compare",
    "compatibility",
    "evaluate_ranking",
    "install",
    "rank",
    "rerank",
    "uninstall",
    "verify",
    "version_matrix",
]
