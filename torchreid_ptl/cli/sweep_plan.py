"""The runs of a sweep: every combination of values with every seed, each configured and checked before one starts."""

import argparse
import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from ..config import differences
from ..config.loading import ConfigError, get, load_config
from ..data.preflight import check_folders
from .arguments import configure

RESERVED = {
    "train.seed": "--seeds repeats every combination with other seeds",
    "data.save_dir": "every run has a folder of its own below it",
    "model.resume": "--resume continues a sweep",
}
SWITCHES = {
    "data.root": "root",
    "data.sources": "sources",
    "data.targets": "targets",
    "data.transforms": "transforms",
}
SAME_SCORES = (
    "data.root",
    "data.save_dir",
    "data.workers",
    "eval.far",
    "eval.memory_mb",
    "eval.rank_list",
    "model.keep_last",
    "model.resume",
    "test.visrank",
    "train.print_freq",
    "use_gpu",
)
"""Settings, or beginnings of their names, that a finished run need not share: its scores would be the same."""


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        values: text of each swept key's value.
        config: checked and frozen.
    """

    values: dict[str, str]
    config: CfgNode

    @property
    def folder(self) -> Path:
        """Where it leaves what it leaves."""
        return Path(self.config.data.save_dir)

    def __str__(self) -> str:
        return ", ".join([*_pairs(self.values), f"seed {self.config.train.seed}"])


def plan(parsed: argparse.Namespace) -> list[Run]:
    """All runs of a sweep, each configured and validated; seeds change fastest.

    Raises:
        ConfigError: an unknown key, a value that is not allowed, something named twice, or a key that cannot be swept.
    """
    _check_keys(parsed)
    base = base_config(parsed)
    if base.model.resume:
        raise ConfigError(f"model.resume is {base.model.resume!r}; a sweep is continued with --resume")
    seeds = _seeds(parsed.seeds or [str(base.train.seed)])
    axes = [[(key, text, _shown(_typed(key, text))) for text in texts] for key, texts in parsed.values]
    for axis in axes:
        _refuse_twice(f"--values {axis[0][0]}", [shown for *_, shown in axis])
    runs = [
        _configured(parsed, base.data.save_dir, combination, seed)
        for combination in itertools.product(*axes)
        for seed in seeds
    ]
    _refuse_twice("The sweep", [str(run.folder) for run in runs])
    return runs


def base_config(parsed: argparse.Namespace) -> CfgNode:
    """What all runs share. It need not be valid: a swept value may be what makes it so."""
    return load_config(parsed.config_file, parsed.opts)


def check_surroundings(runs: Sequence[Run]) -> None:
    """Looks for the folders of the data sets, and whether what is to be resumed is the same training.

    Raises:
        ConfigError: a folder holds a run with other settings.
        FileNotFoundError: the folder of a data set is missing.
    """
    for run_ in runs:
        data = run_.config.data
        check_folders(data.root, [*data.sources, *data.targets])
        if run_.config.model.resume:
            _check_same_training(run_)


def _check_same_training(run_: Run) -> None:
    path, now = run_.folder / "config.yaml", run_.config
    if not path.is_file():
        return
    changed = differences(load_config(path), now)
    if changed:
        raise ConfigError(
            f"--resume: {run_.folder} holds a run with other settings: {'; '.join(changed)}. Resume with the settings "
            "it had, choose another data.save_dir, or leave --resume out, which moves earlier results aside"
        )


def _check_keys(parsed: argparse.Namespace) -> None:
    if not parsed.values and not parsed.seeds:
        raise ConfigError("A sweep needs something to vary: --values KEY VALUE VALUE ..., or --seeds 1 2 3")
    late = next((name for name in parsed.opts if name.startswith("--") or name in ("-s", "-t")), None)
    if late:
        raise ConfigError(f"{late} stands behind KEY VALUE pairs; these come last, behind all switches")
    keys = [key for key, _ in parsed.values]
    _refuse_twice("--values", keys)
    for key, texts in parsed.values:
        _check_key(key, texts, parsed)
    if parsed.seeds and "train.seed" in parsed.opts[::2]:
        raise ConfigError(f"train.seed is given beside --seeds {' '.join(parsed.seeds)}; choose one of them")


def _check_key(key: str, texts: Sequence[str], parsed: argparse.Namespace) -> None:
    if key in RESERVED:
        raise ConfigError(f"--values {key}: {RESERVED[key]}")
    if not texts:
        raise ConfigError(f"--values {key} has no value; give all of them behind the key: --values {key} VALUE VALUE")
    if key in parsed.opts[::2]:
        raise ConfigError(f"{key} is given as KEY VALUE beside --values {key}; choose one of them")
    switch = SWITCHES.get(key, "")
    if switch and getattr(parsed, switch):
        raise ConfigError(f"{key} is given as --{switch} beside --values {key}; choose one of them")


def _refuse_twice(where: str, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{where} has {twice!r} twice: it would be run twice. Name it once")


def _seeds(texts: Sequence[str]) -> list[int]:
    try:
        seeds = [int(text) for text in texts]
    except ValueError as error:
        raise ConfigError(f"--seeds takes whole numbers; got {' '.join(texts)}") from error
    _refuse_twice("--seeds", [str(seed) for seed in seeds])
    return seeds


def _typed(key: str, text: str) -> Any:
    return get(load_config(None, [key, text]), key)


def _shown(value: Any) -> str:
    """One text for every way to write a value, so that 0.50 is 0.5."""
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _configured(parsed: argparse.Namespace, save_dir: str, combination: Sequence[Sequence[str]], seed: int) -> Run:
    values = {key: shown for key, _, shown in combination}
    folder = Path(save_dir, *([_folder_name(values)] if values else []), f"seed-{seed}")
    swept = [part for key, text, _ in combination for part in (key, text)]
    fixed = ["train.seed", str(seed), "data.save_dir", str(folder)]
    asked = argparse.Namespace(**{**vars(parsed), "resume": False, "opts": [*parsed.opts, *swept, *fixed]})
    try:
        config = configure(asked)
    except ConfigError as error:
        raise ConfigError(f"{', '.join([*_pairs(values), f'seed {seed}'])}: {error}") from error
    if 1 not in config.test.ranks:
        raise ConfigError(f"test.ranks is {config.test.ranks}; the table of a sweep shows rank-1: add 1")
    if parsed.resume and not config.test.evaluate:  # a run that only tests has no checkpoints to continue from
        config.defrost()
        config.model.resume = "auto"
        config.freeze()
    return Run(values, config)


def _pairs(values: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in values.items()]


def _folder_name(values: dict[str, str]) -> str:
    """``key=value,...``; what a file system may refuse is replaced, and a hash then keeps names apart."""
    name = ",".join(_pairs(values))
    safe = re.sub(r"[^\w.,=+\[\]-]", "-", name)[:150]
    return safe if safe == name else f"{safe}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"
