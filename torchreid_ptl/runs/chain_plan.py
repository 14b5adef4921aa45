"""The stages of a chain: one configuration each, from files and command line."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from .. import host
from ..config.loading import CHAIN, ConfigError, Entry, build_config, flatten, get
from ..config.request import Request
from ..config.words import in_keys
from ..data.known import hint_dataset
from ..data.names import ensure_registered
from ..data.parts import test_of
from ..runtime.files import safe_name
from .run import Run

NAME = "name"
TEACHER, OLD, INDEPENDENT = "std.teacher_weights", "compat.old_weights", "compat.independent"
"""Settings that an earlier stage's final weights can fill."""
ROLES = {TEACHER: "teacher", OLD: "old model", INDEPENDENT: "independent model"}
SUFFIXES = ("_ptl_v2", "_ptl")
IDENTITIES = (
    "data.root",
    "data.sources",
    "data.split_id",
    "data.combineall",
    "cuhk03.labeled_images",
    "cuhk03.classic_split",
)
"""Settings that determine the training identities and their class numbers."""
_OF_THE_CHAIN = {
    "data.targets": "the summary compares all stages on the same data sets; set it for the chain, or with -t",
    "data.save_dir": "a stage has a folder in that of the chain; set it for the chain",
    "model.resume": "stages are resumed together: --resume",
}
"""Keys that a stage cannot set, and why."""


@dataclass(frozen=True)
class Stage:
    """One run of a chain.

    Attributes:
        number: counted from 1.
        name: given, or the data sets it trains on, joined by ``+``.
        named: whether the name was given.
        given: the keys it sets itself, with their final values.
        asked: its settings as in the file.
        config: its settings with the weights of earlier stages filled in.
        start: index of the earlier stage whose final weights it begins from; None to begin from those of its settings.
        references: settings that are the final weights of an earlier stage, and the index of that one.
    """

    number: int
    name: str
    named: bool
    given: dict[str, Any]
    asked: CfgNode
    config: CfgNode
    start: int | None = None
    references: tuple[tuple[str, int], ...] = ()

    @property
    def folder(self) -> str:
        """Its folder in that of the chain."""
        return f"{self.number}-{safe_name(self.name)}"

    @property
    def run(self) -> Run:
        """Its run."""
        return Run(self.config)

    @property
    def needs(self) -> list[int]:
        """The earlier stages whose weights it uses."""
        return [stage for stage in (self.start, *(stage for _, stage in self.references)) if stage is not None]

    def __str__(self) -> str:
        return f"stage {self.number} ({self.name!r})"


def plan_stages(asked: Request) -> tuple[CfgNode, list[Stage]]:
    """Reads the stages of a chain; the command line wins over everything, in every stage.

    Returns:
        The settings of all stages where they set nothing themselves, and the stages.

    Raises:
        ConfigError: it cannot be run; names the stage, the value, and what is allowed.
    """
    items, origin = [(value, origin) for key, value, origin in (*asked.files, *asked.given) if key == CHAIN][-1]
    files, given = ([entry for entry in entries if entry[0] != CHAIN] for entries in (asked.files, asked.given))
    _require_items(items, origin)
    _require_no_sources(given)
    common = build_config([*files, *given])
    if common.model.resume not in ("", "auto"):
        raise ConfigError(
            f"model.resume is {common.model.resume!r}; {_OF_THE_CHAIN['model.resume']}, the same as model.resume auto"
        )
    common.model.resume = ""
    stages = [_read(number, item, files, given, origin) for number, item in enumerate(items, 1)]
    _require_names(stages)
    for stage in stages:
        _require_sources(stage)
    if not Request(tuple(files), tuple(given)).names("data.targets"):
        common.data.targets = _targets(stages)
    common.freeze()
    return common, link(common.data.save_dir, common.data.targets, stages)


def link(folder: str, targets: Sequence[str], stages: Sequence[Stage]) -> list[Stage]:
    """Gives each stage its folder, the common targets, and the weights of the earlier stages that it uses."""
    linked: list[Stage] = []
    for index, stage in enumerate(stages):
        asked = stage.asked.clone()
        asked.defrost()
        asked.data.save_dir = str(Path(folder) / stage.folder)
        asked.data.targets = list(targets)
        asked.model.resume = ""
        asked.freeze()
        _require_training(stage, asked)
        linked.append(_linked(replace(stage, asked=asked), index, linked))
    return linked


def _linked(stage: Stage, index: int, earlier: Sequence[Stage]) -> Stage:
    config = stage.asked.clone()
    config.defrost()
    begun = _begun_from(stage, index, earlier)
    # a stage that trains nothing passes on the weights it began from
    start = begun if begun is None or earlier[begun].run.trains else earlier[begun].start
    if start is not None:
        config.model.load_weights = str(earlier[start].run.final_weights)
        config.model.load_classifier = _same_identities(stage, earlier[start])
    elif begun is not None:
        config.model.load_weights = earlier[begun].config.model.load_weights
        config.model.load_classifier = earlier[begun].config.model.load_classifier
    if "model.load_classifier" in stage.given:
        config.model.load_classifier = stage.asked.model.load_classifier
    references = _references(stage, earlier)
    for key, number in references.items():
        section, name = key.split(".")
        config[section][name] = str(earlier[number].run.final_weights)
    config.freeze()
    return replace(stage, config=config, start=start, references=tuple(references.items()))


def fits(model: str, earlier: str) -> bool:
    """Whether a model can begin from weights of another: the same one, or its backbone."""
    return model == earlier or any(model == earlier + suffix for suffix in SUFFIXES)


def _begun_from(stage: Stage, index: int, earlier: Sequence[Stage]) -> int | None:
    """The stage that a stage continues: the one it names in model.load_weights, or the one before it, if that fits."""
    name, model = stage.asked.model.load_weights, stage.asked.model.name
    named = _named(name, earlier)
    if name and name == stage.name:
        named = index
    if named is not None:
        if named == index or not fits(model, earlier[named].asked.model.name):
            raise ConfigError(
                f"Stage {index + 1} ({model!r}) begins from {name!r} (model.load_weights), which is no earlier stage "
                "with the same model or its plain backbone; name one of these, or a file"
            )
        return named
    if not earlier or "model.load_weights" in stage.given or not fits(model, earlier[-1].asked.model.name):
        return None
    return index - 1


def _named(name: str, stages: Sequence[Stage]) -> int | None:
    return next((index for index, stage in enumerate(stages) if name and stage.name == name), None)


def _same_identities(stage: Stage, earlier: Stage) -> bool:
    return all(get(stage.asked, key) == get(earlier.asked, key) for key in IDENTITIES)


def _references(stage: Stage, earlier: Sequence[Stage]) -> dict[str, int]:
    config = stage.asked
    if config.loss.name == "std":
        wanted = {TEACHER: config.std.teacher}
    elif config.loss.name == "compatible":
        wanted = {OLD: config.compat.old, INDEPENDENT: config.model.name}
    else:
        return {}
    found = {key: _reference(stage, key, model, earlier) for key, model in wanted.items()}
    return {key: number for key, number in found.items() if number is not None}


def _reference(stage: Stage, key: str, model: str, earlier: Sequence[Stage]) -> int | None:
    """The index of the stage that a setting names; the stage before for a teacher; None for a file, or nothing."""
    name = get(stage.asked, key)
    number = len(earlier) - 1 if key == TEACHER and not name else _named(name, earlier)
    if number is None and name != stage.name:
        return None
    if number is not None and number >= 0 and earlier[number].run.trains and earlier[number].asked.model.name == model:
        return number
    got = f"names {name!r}" if name else "names none"
    raise ConfigError(
        f"Stage {stage.number} needs weights of {model!r} for its {ROLES[key]} ({key}) and {got}: name an earlier "
        f"stage that trains {model!r}, or a file; a teacher may also be the stage before"
    )


def _require_items(items: Any, origin: str) -> None:
    if not isinstance(items, list):
        raise ConfigError(
            f"{CHAIN} in {origin} is {items!r} ({type(items).__name__}); expected a list of stages: names of data "
            "sets, or mappings of settings"
        )
    if not items:
        raise ConfigError(f"{CHAIN} in {origin} has no stages; list at least one, or remove the key")


def _require_no_sources(given: Sequence[Entry]) -> None:
    for key, value, _ in given:
        if key == "data.sources":
            raise ConfigError(
                f"-s (data.sources) is {value!r} for all stages, and each stage of a chain trains on data sets of its "
                f'own; choose them in the file, or with {CHAIN} "[dukemtmcreid, market1501]"'
            )


def _read(number: int, item: Any, files: Sequence[Entry], given: Sequence[Entry], origin: str) -> Stage:
    where = f"stage {number} of the {CHAIN} in {origin}"
    if isinstance(item, str):
        item = {"data": {"sources": [item]}}
    if not isinstance(item, dict):
        raise ConfigError(
            f"{where} is {item!r} ({type(item).__name__}); expected the name of a data set, or a mapping of settings"
        )
    name = item.get(NAME)
    if NAME in item and not (isinstance(name, str) and name.strip()):
        raise ConfigError(f"{NAME} in {where} is {name!r} ({type(name).__name__}); expected a text")
    own = [(key, value, where) for key, value in flatten({k: v for k, v in item.items() if k != NAME})]
    for key, *_ in own:
        if key in _OF_THE_CHAIN:
            raise ConfigError(f"{where} sets {key}: {_OF_THE_CHAIN[key]}")
    config = build_config([*files, *own, *given])
    final = {key: get(config, key) for key, *_ in own}
    return Stage(number, name or "+".join(config.data.sources), name is not None, final, config, config)


def _require_names(stages: Sequence[Stage]) -> None:
    """Names that were given are unique; two stages may train on the same data set without a name."""
    for stage in stages:
        for other in stages:
            if stage.named and other is not stage and safe_name(other.name).lower() == safe_name(stage.name).lower():
                first, second = sorted((stage.number, other.number))
                raise ConfigError(f"Stages {first} and {second} of the {CHAIN} are both called {stage.name!r}")


def _require_sources(stage: Stage) -> None:
    where = f"Stage {stage.number} of the {CHAIN}"
    try:
        ensure_registered(stage.asked.data.sources)
    except ValueError as error:
        raise ConfigError(f"{where}: {in_keys(error)}") from error
    known = host.image_datasets()
    for name in stage.asked.data.sources:
        if name not in known:
            raise ConfigError(f"{where} trains on {name!r}, an unknown data set: {hint_dataset(name)}")


def _targets(stages: Sequence[Stage]) -> list[str]:
    """All sources with a test set, in order; parts have that of the full set, held-out ones their own."""
    names = dict.fromkeys(name for stage in stages for name in stage.asked.data.sources)
    found = list(dict.fromkeys(test_of(name) for name in names if not host.is_train_only(name)))
    if not found:
        raise ConfigError(
            f"The stages of the {CHAIN} train on {', '.join(names)}, none of which can be tested on; set data.targets, "
            "or -t"
        )
    return found


def _require_training(stage: Stage, config: CfgNode) -> None:
    if config.test.evaluate:
        raise ConfigError(
            f"test.evaluate is True in {stage}; a chain trains. A stage with train.max_epoch 0 tests what it begins "
            "from, and torchreid_ptl evaluate any weights"
        )
    if 1 not in config.test.ranks:
        raise ConfigError(f"test.ranks is {config.test.ranks} in {stage}; the chain's summary shows rank 1: add it")
