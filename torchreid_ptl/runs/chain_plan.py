"""The stages of a chain: what a configuration file and the command line say, turned into one configuration each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from .. import host
from ..config.loading import CHAIN, ConfigError, Entry, build_config, flatten, get, to_dict
from ..data.names import ensure_registered
from ..data.parts import test_of
from ..runtime.files import safe_name
from ..runtime.hints import hint
from .starts import Start, find_references, find_starts

_NAME = "name"
_OF_THE_CHAIN = {
    "data.targets": "the summary compares all stages on the same data sets; set it for the whole chain, or with -t",
    "data.save_dir": "a stage has a folder in that of the chain; set it for the whole chain",
    "model.resume": "a chain goes on as a whole: --resume",
}
"""Keys that a stage cannot have for itself, and why."""


@dataclass(frozen=True)
class Stage:
    """One run of a chain.

    Attributes:
        number: counted from 1.
        name: given, or the data sets it trains on, joined by ``+``.
        named: whether the name was given.
        given: the keys it sets for itself, with their final values.
        config: its settings; the weights of earlier stages are not filled in.
    """

    number: int
    name: str
    named: bool
    given: dict[str, Any]
    config: CfgNode

    @property
    def folder(self) -> str:
        """Its folder in that of the chain."""
        return f"{self.number}-{safe_name(self.name)}"

    def __str__(self) -> str:
        return f"stage {self.number} ({self.name!r})"


@dataclass(frozen=True)
class Chain:
    """Runs that follow each other.

    Attributes:
        common: the settings of all stages, where they set nothing for themselves.
        stages: in order.
        starts: what each begins from.
        references: for each, the settings that are the final weights of an earlier stage, and the index of that one.
        resume: whether to go on with what was begun.
    """

    common: CfgNode
    stages: tuple[Stage, ...]
    starts: tuple[Start, ...]
    references: tuple[dict[str, int], ...]
    resume: bool

    @property
    def folder(self) -> Path:
        """The folder of the chain."""
        return Path(self.common.data.save_dir)

    def place(self, index: int) -> Path:
        """The folder of a stage."""
        return self.folder / self.stages[index].folder

    def as_config(self) -> dict[str, Any]:
        """What a file holds that describes the same chain."""
        stages = [({_NAME: stage.name} if stage.named else {}) | _tree(stage.given) for stage in self.stages]
        return {**to_dict(self.common), CHAIN: stages}


def plan(file: Sequence[Entry], said: Sequence[Entry]) -> Chain | None:
    """Reads the chain of a configuration.

    Args:
        file: entries of the configuration file, those it builds upon first.
        said: entries of the command line; they win over everything, in every stage.

    Returns:
        The chain; None when there is none.

    Raises:
        ConfigError: it cannot be run; says which stage, what was got, and what is allowed.
    """
    found = [(value, origin) for key, value, origin in (*file, *said) if key == CHAIN]
    if not found:
        return None
    items, origin = found[-1]
    file, said = ([entry for entry in entries if entry[0] != CHAIN] for entries in (file, said))
    _require_items(items, origin)
    _require_no_sources(said)
    common = build_config([*file, *said])
    resume = _resume(common)
    stages = [_stage(number, item, file, said, origin) for number, item in enumerate(items, 1)]
    _require_names(stages)
    for stage in stages:
        _require_sources(stage)
    targets_given = any(key == "data.targets" for key, *_ in (*file, *said))
    common.data.targets = common.data.targets if targets_given else _targets(stages)
    common.freeze()
    for stage in stages:
        _finalise(stage, common)
    configs = [stage.config for stage in stages]
    given = [stage.given.keys() for stage in stages]
    names = [stage.name for stage in stages]
    starts, references = find_starts(configs, given, names), find_references(configs, names)
    return Chain(common, tuple(stages), tuple(starts), tuple(references), resume)


def _require_items(items: Any, origin: str) -> None:
    if not isinstance(items, list):
        raise ConfigError(
            f"{CHAIN} in {origin} is {items!r} ({type(items).__name__}); expected a list of stages: names of data "
            "sets, or mappings of settings"
        )
    if not items:
        raise ConfigError(f"{CHAIN} in {origin} has no stages; list at least one, or leave the key out")


def _require_no_sources(said: Sequence[Entry]) -> None:
    for key, value, _ in said:
        if key == "data.sources":
            raise ConfigError(
                f"-s (data.sources) is {value!r} for all stages, and each stage of a chain trains on data sets of its "
                f'own; choose them in the file, or with {CHAIN} "[dukemtmcreid, market1501]"'
            )


def _resume(common: CfgNode) -> bool:
    resume, common.model.resume = common.model.resume, ""
    if resume not in ("", "auto"):
        raise ConfigError(f"model.resume is {resume!r}; {_OF_THE_CHAIN['model.resume']}, the same as model.resume auto")
    return bool(resume)


def _stage(number: int, item: Any, file: Sequence[Entry], said: Sequence[Entry], origin: str) -> Stage:
    where = f"stage {number} of the {CHAIN} in {origin}"
    if isinstance(item, str):
        item = {"data": {"sources": [item]}}
    if not isinstance(item, dict):
        raise ConfigError(
            f"{where} is {item!r} ({type(item).__name__}); expected the name of a data set, or a mapping of settings"
        )
    name = item.get(_NAME)
    if _NAME in item and not (isinstance(name, str) and name.strip()):
        raise ConfigError(f"{_NAME} in {where} is {name!r} ({type(name).__name__}); expected a text")
    own = [(key, value, where) for key, value in flatten({k: v for k, v in item.items() if k != _NAME})]
    for key, *_ in own:
        if key in _OF_THE_CHAIN:
            raise ConfigError(f"{where} sets {key}: {_OF_THE_CHAIN[key]}")
    config = build_config([*file, *own, *said])
    given = {key: get(config, key) for key, *_ in own}
    return Stage(number, name or "+".join(config.data.sources), name is not None, given, config)


def _require_names(stages: Sequence[Stage]) -> None:
    """Names that somebody gave are unique; two stages may train on the same data set without a name."""
    for stage in stages:
        for other in stages:
            if stage.named and other is not stage and safe_name(other.name).lower() == safe_name(stage.name).lower():
                first, second = sorted((stage.number, other.number))
                raise ConfigError(f"Stages {first} and {second} of the {CHAIN} are both called {stage.name!r}")


def _require_sources(stage: Stage) -> None:
    where = f"Stage {stage.number} of the {CHAIN}"
    try:
        ensure_registered(stage.config.data.sources)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    known = host.image_datasets()
    for name in stage.config.data.sources:
        if name not in known:
            raise ConfigError(f"{where} trains on {name!r}, an unknown data set: {hint(name, known)}")


def _targets(stages: Sequence[Stage]) -> list[str]:
    """All sources with a test set, in order; parts have that of the whole, held ones their own."""
    names = dict.fromkeys(name for stage in stages for name in stage.config.data.sources)
    testable = [name for name in names if not host.is_train_only(name)]
    found = list(dict.fromkeys(test_of(name) for name in testable))
    if not found:
        raise ConfigError(
            f"The stages of the {CHAIN} train on {', '.join(names)}, none of which can be tested on; set data.targets, "
            "or -t"
        )
    return found


def _finalise(stage: Stage, common: CfgNode) -> None:
    config = stage.config
    config.data.save_dir = str(Path(common.data.save_dir) / stage.folder)
    config.data.targets = list(common.data.targets)
    config.model.resume = ""
    config.freeze()
    if config.test.evaluate:
        raise ConfigError(
            f"test.evaluate is True in {stage}; a chain trains. A stage with train.max_epoch 0 tests what it begins "
            "from, and tools/evaluate.py any weights"
        )
    if 1 not in config.test.ranks:
        raise ConfigError(f"test.ranks is {config.test.ranks} in {stage}; the chain's summary shows rank 1: add it")


def _tree(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return tree
