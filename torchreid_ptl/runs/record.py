"""``chain.json``: what a chain was begun with, so that it goes on as the same one."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..config.loading import ConfigError, flatten, to_dict
from ..config.settings import SETTINGS, WEIGHTS
from ..engines import CHECKPOINTS
from ..report.files import LEFT_BY_TRAINING, RECORD, run_outputs
from ..runtime.files import replace_file
from .chain_plan import Chain

SUMMARY = ("chain.md", "chain.csv")
SEEN = (
    "cuhk03.use_metric_cuhk03",
    "test.dist_metric",
    "test.normalize_feature",
    "test.rerank",
    "eval.flip",
    "eval.precision",
    "eval.no_match",
    "std.teacher_weights",
    "compat.old_weights",
)
"""Settings a single run may change when it goes on, and a chain not: for stages to come, or for the summary's sake."""


def record_of(chain: Chain) -> dict[str, Any]:
    """What stages train with and are compared by, as ``chain.json`` keeps it."""
    return {
        "stages": [
            {
                "name": stage.name,
                "folder": stage.folder,
                "begins_from": "the configuration" if start.stage is None else chain.stages[start.stage].folder,
                "settings": {
                    k: v for k, v in flatten(to_dict(stage.config)) if k in SEEN or SETTINGS[k].affects == WEIGHTS
                },
            }
            for stage, start in zip(chain.stages, chain.starts, strict=True)
        ]
    }


def _matters(key: str) -> bool:
    return key in SEEN or SETTINGS[key].affects == WEIGHTS


def write_record(chain: Chain) -> None:
    """Writes ``chain.json``."""
    replace_file(chain.folder / RECORD, (json.dumps(record_of(chain), indent=2) + "\n").encode())


def left_by_a_chain(chain: Chain) -> list[str]:
    """Names of what an earlier chain, or a single run, left in a chain's folder and this one would overwrite."""
    try:
        stages = [stage["folder"] for stage in _read(chain.folder / RECORD)]
    except (ConfigError, FileNotFoundError):
        stages = []
    inside = [name for name in stages if Path(name).name == name]
    own = [stage.folder for stage in chain.stages]
    return list(dict.fromkeys([RECORD, *SUMMARY, *inside, *own, *LEFT_BY_TRAINING, *run_outputs(chain.folder)]))


def require_same(chain: Chain) -> bool:
    """Makes sure a chain goes on as it was begun.

    Returns:
        Whether there is something to go on with.

    Raises:
        ConfigError: the folder holds another chain, or something that nobody can tell the chain of.
    """
    path = chain.folder / RECORD
    anew = (
        "begin anew without --resume, which moves what is there to a folder earlier-N, or choose another data.save_dir"
    )
    if not path.is_file():
        left = [str(place.relative_to(chain.folder)) for place in _places(chain) if place.exists()]
        if left:
            raise ConfigError(
                f"{chain.folder} has no {RECORD} and cannot be resumed, but it holds {', '.join(left)}: {anew}"
            )
        return False
    then, now = _read(path), record_of(chain)["stages"]
    for number, (old, new) in enumerate(itertools.zip_longest(then, now), 1):
        if differences := _differences(old, new):
            raise ConfigError(
                f"{path} is the plan of another chain. Stage {number}: {'; '.join(differences)}. Resume with the "
                f"settings it was begun with, or {anew}"
            )
    return True


def _places(chain: Chain) -> Iterator[Path]:
    for folder in (chain.folder, *map(chain.place, range(len(chain.stages)))):
        yield from (folder / "results.json", folder / CHECKPOINTS)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        stages = json.loads(path.read_text())["stages"]
        for stage in stages:
            told = (stage["name"], stage["folder"], stage["begins_from"])
            if not all(isinstance(value, str) for value in told) or not isinstance(stage["settings"], dict):
                raise TypeError("not the plan of a chain")
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} cannot be read as the plan of a chain ({type(error).__name__}: {error}); begin anew without "
            "--resume, or choose another data.save_dir"
        ) from error
    return list(stages)


def _differences(old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[str]:
    """In words; a setting that one of them does not know is of another version and no difference."""
    if old is None:
        return [f"{new['name']!r} was not there"] if new else []
    if new is None:
        return [f"it was {old['name']!r} and is not there now"]
    then, now = ({**stage, **stage["settings"], "settings": None} for stage in (old, new))
    return [f"{key} was {then[key]!r} and is {now[key]!r}" for key in now if key in then and then[key] != now[key]]
