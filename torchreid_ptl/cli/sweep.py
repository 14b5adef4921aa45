"""The command that runs a grid of values and seeds, one run after the other, and tells mean and spread over seeds.

No sweep library is used: Hydra would replace the configuration, Optuna and Ray Tune search for a best value and keep
their trials in stores of their own. Wanted is every combination, as often as there are seeds, in runs that are the same
as single ones: a product and a loop.
"""

import argparse
import gc
import hashlib
import itertools
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from ..config import ConfigError, get, load_config
from ..data.preflight import check_folders
from ..engines.resume import LONGER
from ..runtime.files import replace_file, set_aside
from ..settings import SETTINGS
from .main import add_switches, answered, configure, release_keys, run, until_a_key
from .report import left_by_a_run
from .sweep_table import Entry, Outcome, as_csv, as_markdown

RESULTS = "results.json"
TABLES = ("sweep.csv", "sweep.md")
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
TESTED_AGAIN = ("cuhk03.use_metric_cuhk03", "eval.", "test.")
"""Likewise, settings that a run can be continued with, to be tested again."""


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


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the switches of ``tools/main.py``, those of the sweep, and KEY VALUE pairs."""
    parser = argparse.ArgumentParser(
        prog="torchreid_ptl sweep",
        description="Trains and tests every combination of values with every seed, one run after the other, and leaves "
        "a table with mean and spread over seeds. Keys of docs/config.md can follow as KEY VALUE.",
    )
    add_switches(parser)
    parser.add_argument(
        "--values", nargs="+", action="append", default=[], metavar=("KEY", "VALUE"), help="a key and all its values"
    )
    parser.add_argument("--seeds", nargs="+", metavar="SEED", help="seeds for every combination; train.seed by default")
    parser.add_argument("--resume", action="store_true", help="keep finished runs and continue an interrupted one")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="configuration keys")
    parsed = parser.parse_args(arguments)
    release_keys(parsed, "seeds", "sources", "targets", "transforms")
    groups = [(key, *until_a_key(rest)) for key, *rest in parsed.values]
    parsed.values = [(key, values) for key, values, _ in groups]
    parsed.opts = [*itertools.chain.from_iterable(rest for *_, rest in groups), *parsed.opts]
    return parsed


def plan(parsed: argparse.Namespace) -> list[Run]:
    """All runs of a sweep, each configured and validated; seeds change fastest.

    Raises:
        ConfigError: an unknown key, a value that is not allowed, something named twice, or a key that cannot be swept.
    """
    _check_keys(parsed)
    base = _base(parsed)
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


def sweep(parsed: argparse.Namespace) -> int:
    """Runs a sweep; writes its table after every run.

    Returns:
        The number of runs that failed.

    Raises:
        ConfigError: something is wrong, or --resume finds runs with other settings; nothing ran.
        FileNotFoundError: the folder of a data set is missing; nothing ran.
    """
    runs = plan(parsed)
    _check_surroundings(runs)
    folder = Path(_base(parsed).data.save_dir)
    aside = None if parsed.resume else set_aside(folder, TABLES)
    if aside:
        print(f"Moved the table of an earlier sweep to {aside}")
    started = time.monotonic()
    entries = _entries(runs)
    for number, (run_, entry) in enumerate(_with_entries(runs, entries), start=1):
        elapsed = timedelta(seconds=int(time.monotonic() - started))
        print(f"Run {number} of {len(runs)} ({elapsed} so far): {run_}", flush=True)
        entry.outcomes.append(_outcome(run_, parsed.resume))
        replace_file(folder / "sweep.csv", as_csv(entries).encode())
        replace_file(folder / "sweep.md", as_markdown(entries).encode())
        gc.collect()  # a model and what refers to it in circles would stand beside the next one
    print(f"\n{as_markdown(entries)}\nLeft: {', '.join(str(folder / name) for name in TABLES)}")
    return sum(bool(outcome.error) for entry in entries for outcome in entry.outcomes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/sweep.py``; returns the exit status, 1 when a run failed."""
    parsed = parse(arguments)
    failed: list[int] = []
    status = answered(lambda: failed.append(sweep(parsed)))
    if any(failed):
        print(f"{failed[0]} run(s) of the sweep failed; the table says why", file=sys.stderr)
    return status or int(any(failed))


def _base(parsed: argparse.Namespace) -> CfgNode:
    """What all runs share. It need not be valid: a swept value may be what makes it so."""
    return load_config(parsed.config_file or None, parsed.opts)


def _check_surroundings(runs: Sequence[Run]) -> None:
    for run_ in runs:
        data = run_.config.data
        check_folders(data.root, [*data.sources, *data.targets])
        if run_.config.model.resume:
            _check_same_training(run_)


def _check_same_training(run_: Run) -> None:
    path, now = run_.folder / "config.yaml", run_.config
    if not path.is_file():
        return
    then = load_config(path)
    changed = [
        f"{key} was {get(then, key)!r} and is {get(now, key)!r}"
        for key in SETTINGS
        if get(then, key) != get(now, key) and not key.startswith((*SAME_SCORES, *TESTED_AGAIN))
    ]
    if then.train.lr_scheduler in LONGER and now.train.max_epoch > then.train.max_epoch:
        changed = [line for line in changed if not line.startswith("train.max_epoch ")]
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


def _entries(runs: Sequence[Run]) -> list[Entry]:
    entries: list[Entry] = []
    for run_ in runs:
        if not entries or entries[-1].values != run_.values:
            entries.append(Entry(run_.values, list(run_.config.data.targets), planned=0))
        entries[-1].planned += 1
    return entries


def _with_entries(runs: Sequence[Run], entries: Sequence[Entry]) -> Iterator[tuple[Run, Entry]]:
    return zip(runs, (entry for entry in entries for _ in range(entry.planned)), strict=True)


def _outcome(run_: Run, resume: bool) -> Outcome:
    seed, folder = run_.config.train.seed, run_.folder
    try:
        if resume and _is_finished(run_):
            print(f"Finished earlier, not repeated: {folder}")
            return Outcome(seed, _scores(folder))
        if resume and (folder / RESULTS).exists():
            print(f"Moved results with other settings to {set_aside(folder, left_by_a_run(folder))}")
        run(run_.config)
        return Outcome(seed, _scores(folder))
    except Exception as error:  # whatever happens to one run, the others may do well; its log holds the traceback
        told = f"{type(error).__name__}: {error}"
        print(f"Failed: {told}", file=sys.stderr)
        return Outcome(seed, error=told)


def _is_finished(run_: Run) -> bool:
    try:
        then = json.loads((run_.folder / RESULTS).read_text())["config"]
        _scores(run_.folder)
        return all(get(then, key) == get(run_.config, key) for key in SETTINGS if not key.startswith(SAME_SCORES))
    except (OSError, ValueError, LookupError, TypeError):  # no results, or torn, or of another version
        return False


def _scores(folder: Path) -> dict[str, tuple[float, float]]:
    targets = json.loads((folder / RESULTS).read_text())["targets"]
    return {name: (found["mAP"], found["cmc"]["1"]) for name, found in targets.items()}
