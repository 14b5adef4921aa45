"""Settings, loading and inheritance, checks, and what differs between configurations."""

from .changes import differences

__all__ = ["differences"]
