"""Data sets, and what is cut out of them."""

from . import names
from .manager import ImageDataManager

__all__ = ["ImageDataManager", "names"]
