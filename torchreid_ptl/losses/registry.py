"""The losses of backward-compatible training by name."""

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .compatible import CompatibleLoss

Loss = TypeVar("Loss", bound=type[CompatibleLoss])

_CLASSES: dict[str, type[CompatibleLoss]] = {}


def register_loss(name: str) -> Callable[[Loss], Loss]:
    """Gives a loss its name: of its term ``loss_<name>``, of its weight and of its section ``compat.<name>`` in YAML.

    Args:
        name: a lowercase identifier.

    Raises:
        ValueError: no such identifier, the name of another class, or no :class:`CompatibleLoss`.

    Example::

        @register_loss("cosine")
        class CosineLoss(CompatibleLoss):
            def compute_loss(self, new, old, pids):
                return 1 - torch.cosine_similarity(new, old).mean()
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"{name!r} is no name for a loss; use a lowercase identifier such as 'rbcl'")

    def register(loss: Loss) -> Loss:
        if not (isinstance(loss, type) and issubclass(loss, CompatibleLoss)):
            raise ValueError(f"{loss!r} is registered as {name!r}; only subclasses of CompatibleLoss can be")
        known = _CLASSES.get(name)
        if known is not None and _origin(known) != _origin(loss):
            raise ValueError(
                f"The loss {name!r} is already {_origin(known)}; {_origin(loss)} cannot have its name. Choose another"
            )
        loss.name = name
        _CLASSES[name] = loss
        return loss

    return register


def registered_losses() -> dict[str, type[CompatibleLoss]]:
    """All registered classes by name, in the order of their registration."""
    return dict(_CLASSES)


def build_loss(name: str, settings: Mapping[str, Any] | None = None, **supplied: Any) -> CompatibleLoss:
    """A loss from its name.

    Args:
        name: a registered one.
        settings: arguments of its constructor.
        **supplied: what a training knows (``dim``, ``num_classes``, ``seed``); what the constructor does not take is
            left out.

    Raises:
        ValueError: an unknown name, or settings out of their range.

    Example:
        >>> build_loss("l2", {"t": 0.2}, dim=8).t
        0.2
    """
    if name not in _CLASSES:
        close = difflib.get_close_matches(name, _CLASSES, n=1, cutoff=0.5)
        guess = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"There is no loss {name!r}: {guess}Registered: {', '.join(_CLASSES)}")
    known = inspect.signature(_CLASSES[name]).parameters
    return _CLASSES[name](**(settings or {}), **{key: value for key, value in supplied.items() if key in known})


def _origin(loss: type) -> str:
    return f"{loss.__module__}.{loss.__qualname__}"
