"""The keys of the compatible losses, ``compat.<name>.<parameter>``: derived from their constructors."""

import functools
import inspect
import keyword
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from ..losses import CompatibleLoss, registered_losses
from ..runtime.ranges import Range

SUPPLIED = ("dim", "num_classes", "seed")
"""Arguments that the training supplies."""

Key = tuple[Any, str, tuple[str, ...], Range]
"""Default, help, choices and range."""
_WEIGHT = Range(0, 1_000_000)


def loss_keys() -> dict[str, Key]:
    """The keys of all registered losses by their dotted names."""
    losses: Mapping[str, Any] = registered_losses()
    return {f"compat.{name}.{key}": value for name, loss in losses.items() for key, value in _keys(loss).items()}


def loss_arguments(section: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a loss's constructor in its section ``compat.<name>``."""
    return {f"{key}_" if keyword.iskeyword(key) else key: value for key, value in section.items() if key != "weight"}


@functools.cache
def _keys(loss: type[CompatibleLoss]) -> dict[str, Key]:
    """``weight``, and each parameter with a plain default: choices from a Literal, help from the docstring."""
    keys: dict[str, Key] = {"weight": (float(loss.weight), f"weight of {loss.name}", (), _WEIGHT)}
    try:
        signature = inspect.signature(loss, eval_str=True)
    except NameError:  # an annotation that is imported for type checkers only
        signature = inspect.signature(loss)
    for name, parameter in signature.parameters.items():
        if type(parameter.default) in (bool, int, float, str) and name not in SUPPLIED:
            annotation = parameter.annotation
            choices = get_args(annotation) if get_origin(annotation) is Literal else ()
            key = name.removesuffix("_") if keyword.iskeyword(name.removesuffix("_")) else name
            keys[key] = (parameter.default, _help(loss, name), choices, loss.ranges.get(name, Range()))
    return keys


def _help(loss: type, parameter: str) -> str:
    """The first line of a parameter's entry in the docstring of the class, or of the one it inherits from."""
    for owner in loss.__mro__:
        entry = re.search(rf"^\s+{parameter}: (.+)$", owner.__doc__ or "", flags=re.MULTILINE)
        if entry:
            return entry[1].replace("``", "").rstrip(".,;: ")
    return f"{parameter} of the loss"
