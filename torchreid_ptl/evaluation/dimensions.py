"""The dimension in which descriptors of two models are compared."""

from collections.abc import Mapping

from .descriptors import Pair
from .distances import shape_of

DIMENSIONS = ("error", "truncate", "pad")
"""Rules for two models whose descriptors differ in dimension."""


def common_dimension(new: int, old: int, rule: str, names: tuple[str, str] = ("new", "old")) -> int:
    """The dimension in which descriptors of two models are compared, by a rule of ``DIMENSIONS``.

    'truncate' takes the first dimensions of the longer ones, 'pad' adds zeros behind the shorter ones. A ValueError
    says that the rule is unknown, or that dimensions differ under 'error'.

    Example:
        >>> common_dimension(512, 256, "truncate"), common_dimension(512, 256, "pad")
        (256, 512)
    """
    if rule not in DIMENSIONS:
        raise ValueError(f"unknown dimensions {rule!r}; allowed: {', '.join(DIMENSIONS)}")
    if new != old and rule == "error":
        raise ValueError(
            f"{names[0]} descriptors have {new} dimensions and {names[1]} ones {old}: there is no distance between "
            f"them. dimensions='truncate' compares the first {min(new, old)} of both, dimensions='pad' adds zeros to "
            "the shorter ones; both mean something only for models trained that way"
        )
    return max(new, old) if rule == "pad" else min(new, old)


def check_dimensions(dims: Mapping[str, int], rule: str) -> None:
    """Makes sure that every version, in time order, can be compared with the one before it."""
    names = list(dims)
    for newer, older in zip(names[1:], names[:-1], strict=True):
        common_dimension(dims[newer], dims[older], rule, (newer, older))


def dimension_of(name: str, sides: Pair) -> int:
    """The dimension of one model's descriptors; a ValueError if queries and gallery differ in it."""
    dims = [
        shape_of(f"{name} {side}", each.features)[1] for side, each in zip(("query", "gallery"), sides, strict=True)
    ]
    if dims[0] != dims[1]:
        raise ValueError(f"{name} descriptors must have one dimension, got {dims[0]} (query) and {dims[1]} (gallery)")
    return dims[0]
