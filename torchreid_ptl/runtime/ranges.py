"""Ranges of numbers, for settings and for arguments."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from .errors import ArgumentError

_LONGEST = 200


class Open(float):
    """A bound that is not allowed itself: ``Range(Open(0), 1)`` is above 0."""


@dataclass(frozen=True)
class Range:
    """The numbers from ``least`` to ``most``; a bound of None is none. Never nan, an infinity, or True and False.

    Attributes:
        least: the smallest number.
        most: the largest one.
        whole: whether it is an integer.
        usual: what is usual, for the message.

    Example:
        >>> share = Range(0, Open(1))
        >>> str(share), share.allows(0.9), share.allows(1.0), share.allows(float("nan"))
        ('from 0 to below 1', True, False, False)
    """

    least: float | None = None
    most: float | None = None
    whole: bool = False
    usual: str = ""

    def __str__(self) -> str:
        """The bounds in words; empty without any."""
        if self.least is not None and self.least == self.most:
            return f"{self.least:.10g}"
        low = "" if self.least is None else f"{'above' if isinstance(self.least, Open) else 'from'} {self.least:.10g}"
        high = "" if self.most is None else f"to {'below ' if isinstance(self.most, Open) else ''}{self.most:.10g}"
        return f"{low} {high}".strip()

    def allows(self, value: Any) -> bool:
        """Whether it is a number of the range."""
        if not isinstance(value, Integral if self.whole else Real) or isinstance(value, bool):
            return False
        value = int(value) if isinstance(value, Integral) else float(value)
        low = self.least is None or (value > self.least if isinstance(self.least, Open) else value >= self.least)
        high = self.most is None or (value < self.most if isinstance(self.most, Open) else value <= self.most)
        return bool(low and high and abs(value) < float("inf"))

    def explain(self) -> str:
        """What is allowed, in words."""
        kind = "whole numbers" if self.whole else "numbers"
        return f"{kind} {str(self) or 'that are finite'}{f', {self.usual}' if self.usual else ''}"


def check_numbers(ranges: Mapping[str, Range], **values: Any) -> None:
    """Makes sure of arguments.

    Args:
        ranges: by the argument's name.
        **values: the arguments.

    Raises:
        ArgumentError: one is no number of its range; names it.

    Example:
        >>> check_numbers({"tau": Range(Open(0), 100, usual="0.01 by default")}, tau=0)
        Traceback (most recent call last):
        torchreid_ptl.runtime.errors.ArgumentError: tau is 0; allowed: numbers above 0 to 100, 0.01 by default
    """
    for name, value in values.items():
        if not ranges[name].allows(value):
            raise ArgumentError(f"{{{name}}} is {shown(value)}; allowed: {ranges[name].explain()}")


def shown(value: Any) -> str:
    """The ``repr`` of a value, shortened; also of an integer that Python refuses to write."""
    try:
        text = repr(value)
    except ValueError:  # more digits than sys.get_int_max_str_digits
        return f"a {type(value).__name__} of {value.bit_length()} bits" if isinstance(value, int) else "no text"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}... ({len(text)} characters)"
