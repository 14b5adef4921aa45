"""Networks made of cells and host backbones, and the table of registered names."""

from .convert import convert_authors_weights
from .embedding import Embedded, embed, embedding_dim
from .mgn import MGN
from .pretrained import PretrainedWeightsError, missing_weights_explained
from .ptl import PTL
from .registry import available_models, register_models

__all__ = [
    "MGN",
    "PTL",
    "Embedded",
    "PretrainedWeightsError",
    "available_models",
    "convert_authors_weights",
    "embed",
    "embedding_dim",
    "missing_weights_explained",
    "register_models",
]
