"""Hints at the right name next to a wrong one."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], likeness: float = 0.5) -> str | None:
    """The known name closest to ``name``, or None when none is as like it, from 0 to 1."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=likeness)
    return close[0] if close else None


def hint(name: str, known: Iterable[str]) -> str:
    """A half sentence: the closest known name, and all that are allowed."""
    known = list(known)
    close = nearest(name, known)
    return f"{f'did you mean {close!r}? ' if close else ''}Allowed: {', '.join(known)}"
