"""Differences of two configurations that forbid to resume a run, or to keep its results."""

import os
from collections.abc import Mapping
from typing import Any

from .loading import flatten
from .settings import NOTHING, SCORES, SETTINGS, WEIGHTS

_LEVELS = (WEIGHTS, SCORES, NOTHING)
_OPEN_ENDED = ("single_step", "multi_step")
"""Schedules that do not depend on the number of epochs: a run can be made longer."""


def differences(then: Mapping[str, Any], now: Mapping[str, Any], affects: str = WEIGHTS) -> list[str]:
    """The settings that differ, in words; one that only one of them has is no difference.

    Args:
        then: a configuration, as a tree or by dotted keys.
        now: another one.
        affects: ``"weights"`` for going on with a training, for which a larger ``train.max_epoch`` is no difference
            where the schedule does not depend on it; ``"scores"`` for taking a finished result as it is. Weights in the
            same place relative to ``data.save_dir`` are the same: a chain may be moved.

    Example:
        >>> differences({"train": {"lr": 0.1}, "data": {"workers": 1}}, {"train": {"lr": 0.2}, "data": {"workers": 4}})
        ['train.lr was 0.1 and is 0.2']
    """
    before, after = dict(flatten(then)), dict(flatten(now))
    levels = _LEVELS[: _LEVELS.index(affects) + 1]
    changed = [
        key
        for key, setting in SETTINGS.items()
        if key in before and key in after and before[key] != after[key] and setting.affects in levels
    ]
    if affects == WEIGHTS and "train.max_epoch" in changed and _is_longer(before, after):
        changed.remove("train.max_epoch")
    if "model.load_weights" in changed and _place_of_weights(before) == _place_of_weights(after):
        changed.remove("model.load_weights")
    return [f"{key} was {before[key]!r} and is {after[key]!r}" for key in changed]


def _is_longer(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    longer = bool(after["train.max_epoch"] > before["train.max_epoch"])
    return longer and before.get("train.lr_scheduler") in _OPEN_ENDED


def _place_of_weights(config: Mapping[str, Any]) -> str:
    weights, folder = config["model.load_weights"], config.get("data.save_dir")
    return os.path.relpath(weights, folder) if weights and folder else weights
