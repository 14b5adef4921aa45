"""The settings of a run from Python, kept in its checkpoints and compared when it is resumed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from .frozen import Preprocessing

if TYPE_CHECKING:
    from .engine import ImagePTLEngine


def describe(engine: "ImagePTLEngine") -> dict[str, Any]:
    """Plain settings of an engine that was built without a configuration.

    Args:
        engine: before its first step, which schedulers and optimisers have not changed yet.
    """
    style = Preprocessing.of(engine.datamanager)
    groups = enumerate(engine.optimizer.param_groups)
    return {
        "engine": type(engine).__name__,
        "objective": _described(engine.objective),
        "optimizer": {
            "class": type(engine.optimizer).__name__,
            **{f"group{number}": _settings(_at_the_start(group)) for number, group in groups},
        },
        "scheduler": {
            "class": type(engine.scheduler).__name__,
            **_settings(vars(engine.scheduler) if engine.scheduler else {}),
        },
        "batch_size": engine.datamanager.train_loader.batch_size,
        "precision": engine.precision,
        "data": {"height": style.height, "width": style.width, "norm_mean": [*style.mean], "norm_std": [*style.std]},
    }


def _described(module: nn.Module) -> dict[str, Any]:
    """Class and plain attributes of an objective, and of the modules in it that have some."""
    parts = {name: _described(child) for name, child in module.named_children()}
    return {"class": type(module).__name__, **_settings(vars(module)), **parts}


def _at_the_start(group: Mapping[str, Any]) -> dict[str, Any]:
    return {**group, "lr": group.get("initial_lr", group["lr"])}


def _settings(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are numbers, texts, switches, or lists of such; private ones and counters are no settings."""
    plain = {name: _plain(value) for name, value in attributes.items() if name[0] != "_"}
    ignored = ("training", "last_epoch", "initial_lr", "params")
    return {name: value for name, value in plain.items() if value is not None and name not in ignored}


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        value = sorted(value.items()) if all(isinstance(key, (int, str)) for key in value) else None
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in value]
        return None if None in items else items
    return None
