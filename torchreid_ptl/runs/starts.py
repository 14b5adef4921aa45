"""Which weights a stage of a chain begins from, and who trains its teacher or its old model."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config.loading import ConfigError, get
from ..engines import CHECKPOINTS
from ..runtime.checkpoint import PREFIX

TEACHER, OLD, INDEPENDENT = "std.teacher_weights", "compat.old_weights", "compat.independent"
"""Settings that an earlier stage's final weights can fill."""
SUFFIXES = ("_ptl_v2", "_ptl")
IDENTITIES = (
    "data.root",
    "data.sources",
    "data.split_id",
    "data.combineall",
    "cuhk03.labeled_images",
    "cuhk03.classic_split",
)
"""Settings that decide who the training identities are, and in which order a classifier counts them."""


@dataclass(frozen=True)
class Start:
    """What a stage begins from.

    Attributes:
        stage: index of the earlier stage whose final weights it takes; None to begin as ``weights`` says.
        weights: ``model.load_weights`` of the configuration; without it, ImageNet weights or random ones.
        classifier: whether the classifier of these weights is taken too.
    """

    stage: int | None
    weights: str
    classifier: bool


def find_starts(configs: Sequence[Any], given: Sequence[Collection[str]], names: Sequence[str] = ()) -> list[Start]:
    """What each stage begins from: the nearest earlier stage whose model fits, unless it names weights itself.

    These are a file, or the name of an earlier stage.

    Args:
        configs: settings of the stages, in order.
        given: the keys that each stage sets for itself.
        names: of the stages.

    Raises:
        ConfigError: a stage that is named comes later, or its model does not fit.
    """
    found: list[Start] = []
    for index, (config, own) in enumerate(zip(configs, given, strict=True)):
        start = _from_named(configs, names, index, found)
        if start is None and "model.load_weights" not in own:
            start = _from_earlier(config, configs, found)
        start = start or Start(None, config.model.load_weights, config.model.load_classifier)
        if "model.load_classifier" in own:
            start = replace(start, classifier=config.model.load_classifier)
        found.append(start)
    return found


def find_references(configs: Sequence[Any], names: Sequence[str]) -> list[dict[str, int]]:
    """For each stage, which of its settings are the final weights of an earlier one: the key, and that one's index.

    The teacher of a distillation is the nearest earlier stage that trains such a model; ``compat.old_weights`` and
    ``compat.independent`` name a stage.

    Args:
        configs: settings of the stages, in order.
        names: of the stages.

    Raises:
        ConfigError: no earlier stage trains the teacher, or a stage that is named comes later or has another model.
    """
    return [_references(configs, names, index) for index in range(len(configs))]


def trains(config: Any) -> bool:
    """Whether a stage changes weights; one without epochs tests what it begins from, and leaves no checkpoint."""
    return bool(config.train.start_epoch < config.train.max_epoch)


def final_weights(folder: Path, config: Any) -> Path:
    """The checkpoint that a stage leaves after its last epoch."""
    return folder / CHECKPOINTS / f"{PREFIX}{config.train.max_epoch}"


def fits(model: str, earlier: str) -> bool:
    """Whether weights of one model are a beginning for another: the same one, or the backbone in it."""
    return model == earlier or any(model == earlier + suffix for suffix in SUFFIXES)


def _from_named(configs: Sequence[Any], names: Sequence[str], index: int, found: Sequence[Start]) -> Start | None:
    name, model = configs[index].model.load_weights, configs[index].model.name
    if not name or name not in names:
        return None
    stage = names.index(name)
    if stage >= index or not fits(model, configs[stage].model.name):
        raise ConfigError(
            f"Stage {index + 1} ({model!r}) begins from stage {stage + 1} ({name!r}, model.load_weights), whose model "
            f"is {configs[stage].model.name!r}; name an earlier stage with the same model or its plain backbone"
        )
    return _inherited_weights(stage, configs[index], configs, found)


def _from_earlier(config: Any, configs: Sequence[Any], found: Sequence[Start]) -> Start | None:
    fitting = [index for index in range(len(found)) if fits(config.model.name, configs[index].model.name)]
    if not fitting:
        return None
    return _inherited_weights(fitting[-1], config, configs, found)


def _inherited_weights(index: int, config: Any, configs: Sequence[Any], found: Sequence[Start]) -> Start:
    """The beginning that a stage offers to a later one."""
    if not trains(configs[index]):  # it hands on what it began from itself
        handed = found[index]
        if handed.stage is None:
            return handed
        index = handed.stage
    return Start(index, "", _same_identities(config, configs[index]))


def _same_identities(config: Any, earlier: Any) -> bool:
    return all(get(config, key) == get(earlier, key) for key in IDENTITIES)


def _references(configs: Sequence[Any], names: Sequence[str], index: int) -> dict[str, int]:
    config = configs[index]
    if config.loss.name == "std" and not config.std.teacher_weights:
        return {TEACHER: _teacher(configs, index)}
    if config.loss.name != "compatible":
        return {}
    wanted = {OLD: config.compat.old, INDEPENDENT: config.model.name}
    found = {key: _named(configs, names, index, key, model) for key, model in wanted.items()}
    return {key: stage for key, stage in found.items() if stage is not None}


def _named(configs: Sequence[Any], names: Sequence[str], index: int, key: str, model: str) -> int | None:
    """The index of the stage that a setting names; None when it names a file, or nothing."""
    name = get(configs[index], key)
    if name not in names:
        return None
    stage = names.index(name)
    if stage >= index or not trains(configs[stage]) or configs[stage].model.name != model:
        raise ConfigError(
            f"Stage {index + 1} needs weights of {model!r} and names stage {stage + 1} ({name!r}) for them ({key}), "
            f"which has the model {configs[stage].model.name!r}; name an earlier stage that trains {model!r}, or a file"
        )
    return stage


def _teacher(configs: Sequence[Any], index: int) -> int:
    name = configs[index].std.teacher
    for earlier in reversed(range(index)):
        if configs[earlier].model.name == name and trains(configs[earlier]):
            return earlier
    raise ConfigError(
        f"Stage {index + 1} learns from the teacher {name!r} (std.teacher) and names no weights for it: no earlier "
        f"stage trains a {name!r}. Set std.teacher_weights to a file, or train the teacher before"
    )
