"""Kinds of the entries of a run's checkpoint."""

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

from torch import Tensor

from .seeding import is_random_state


def wrong_entries(state: Mapping[str, Any]) -> list[str]:
    """The entries of a checkpoint that no run writes, each with what it should be; empty for a sound one.

    Entries that are missing are not wrong: which ones are needed depends on what is done with the checkpoint.

    Example:
        >>> wrong_entries({"epoch": "3", "rank1": 0.5})
        ['epoch is of type str, not a whole number from 0']
    """
    return [
        f"{key} is {_shown(state[key])}, not {wanted}"
        for key, (wanted, fits) in _ENTRIES.items()
        if key in state and not fits(state[key])
    ]


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, Real) else f"of type {type(value).__name__}"


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_named(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_state_dict(value: Any) -> bool:
    if not _is_named(value) or not all(isinstance(each, Tensor) for each in value.values()):
        return False
    return all(bool(each.isfinite().all()) for each in value.values() if each.is_floating_point())


def _is_optimizer(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    slots, groups = value.get("state"), value.get("param_groups")
    return (
        isinstance(slots, Mapping)
        and all(isinstance(each, Mapping) for each in slots.values())
        and isinstance(groups, list)
        and all(_is_named(group) and isinstance(group.get("params"), list) for group in groups)
    )


def _is_history(value: Any) -> bool:
    return _is_named(value) and all(
        isinstance(points, (list, tuple)) and all(isinstance(p, (list, tuple)) and len(p) == 2 for p in points)
        for points in value.values()
    )


_ENTRIES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "state_dict": ("names of weights with tensors of finite values", _is_state_dict),
    "epoch": ("a whole number from 0", _is_whole),
    "rank1": ("a finite number", _is_number),
    "best_score": ("a finite number", _is_number),
    "tested": ("True or False", lambda value: isinstance(value, bool)),
    "optimizer": ("the state of an optimiser", _is_optimizer),
    "scheduler": ("the state of a schedule", lambda value: value is None or _is_named(value)),
    "objective": ("the state of an objective", _is_named),
    "reference": ("a text", lambda value: isinstance(value, str)),
    "bad_images": (
        "a list of files",
        lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
    ),
    "history": ("curves of (step, value)", _is_history),
    "random_state": ("the states of the random generators", is_random_state),
    "config": ("a configuration", _is_named),
}
