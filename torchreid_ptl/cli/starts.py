"""Which weights a stage of a chain begins from, and who trains its teacher."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import ConfigError, get
from ..engines import CHECKPOINTS
from ..runtime.checkpoint import PREFIX

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


def find_starts(configs: Sequence[Any], given: Sequence[Collection[str]]) -> list[Start]:
    """What each stage begins from: the nearest earlier stage whose model fits, unless it names weights itself.

    Args:
        configs: settings of the stages, in order.
        given: the keys that each stage sets for itself.
    """
    found: list[Start] = []
    for config, own in zip(configs, given, strict=True):
        start = None if "model.load_weights" in own else _from_earlier(config, configs, found)
        start = start or Start(None, config.model.load_weights, config.model.load_classifier)
        if "model.load_classifier" in own:
            start = replace(start, classifier=config.model.load_classifier)
        found.append(start)
    return found


def find_teachers(configs: Sequence[Any]) -> list[int | None]:
    """For each stage, the index of the one whose final weights are its teacher's.

    Args:
        configs: settings of the stages, in order.

    Returns:
        None for a stage that needs no teacher or names the file of its weights.

    Raises:
        ConfigError: no earlier stage trains the teacher.
    """
    return [_teacher(configs, index) for index in range(len(configs))]


def trains(config: Any) -> bool:
    """Whether a stage changes weights; one without epochs tests what it begins from, and leaves no checkpoint."""
    return bool(config.train.start_epoch < config.train.max_epoch)


def final_weights(folder: Path, config: Any) -> Path:
    """The checkpoint that a stage leaves after its last epoch."""
    return folder / CHECKPOINTS / f"{PREFIX}{config.train.max_epoch}"


def fits(model: str, earlier: str) -> bool:
    """Whether weights of one model are a beginning for another: the same one, or the backbone in it."""
    return model == earlier or any(model == earlier + suffix for suffix in SUFFIXES)


def _from_earlier(config: Any, configs: Sequence[Any], found: Sequence[Start]) -> Start | None:
    fitting = [index for index in range(len(found)) if fits(config.model.name, configs[index].model.name)]
    if not fitting:
        return None
    index = fitting[-1]
    if not trains(configs[index]):  # it hands on what it began from itself
        handed = found[index]
        if handed.stage is None:
            return handed
        index = handed.stage
    return Start(index, "", _same_identities(config, configs[index]))


def _same_identities(config: Any, earlier: Any) -> bool:
    return all(get(config, key) == get(earlier, key) for key in IDENTITIES)


def _teacher(configs: Sequence[Any], index: int) -> int | None:
    config = configs[index]
    settings = config.get("std", {})
    if config.loss.name != "std" or "teacher" not in settings or settings.get("teacher_weights"):
        return None
    name = settings["teacher"]
    for earlier in reversed(range(index)):
        if configs[earlier].model.name == name and trains(configs[earlier]):
            return earlier
    raise ConfigError(
        f"Stage {index + 1} learns from the teacher {name!r} (std.teacher) and names no weights for it: no earlier "
        f"stage trains a {name!r}. Set std.teacher_weights to a file, or train the teacher before"
    )
