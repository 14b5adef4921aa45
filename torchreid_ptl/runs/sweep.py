"""A sweep: every combination of values with every seed, each a run, and their scores with mean and spread over seeds.

No sweep library is used: Hydra would replace the configuration, Optuna and Ray Tune search for a best value and keep
their trials in stores of their own. A sweep is every combination with every seed, in runs equal to single ones: a
product and a loop.
"""

import gc
import hashlib
import itertools
import math
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..config.loading import COMMAND_LINE, ConfigError, build_config, get
from ..config.request import Config, Request, configure, request
from ..config.words import in_keys
from ..report.files import RESULTS, run_outputs
from ..runtime.files import archive, replace_file
from ..runtime.lock import locked
from ..runtime.ranges import shown
from .run import Run, explain_failure
from .spread import Combination, Outcome, table_csv, table_markdown

RESERVED = {
    "train.seed": "--seeds repeats every combination with other seeds",
    "data.save_dir": "every run has a folder of its own below it",
    "model.resume": "--resume continues a sweep",
}
"""Keys that cannot be swept, and why."""
MOST_RUNS = 10_000
TABLES = ("sweep.csv", "sweep.md")


class Sweep:
    """Runs of every combination of values with every seed; seeds change fastest.

    Args:
        config: see :func:`~torchreid_ptl.config.request.request`.
        values: for each key all its values, as texts or as they are.
        seeds: for every combination; by default only ``train.seed``.
        **overrides: see :func:`~torchreid_ptl.config.request.request`.

    Attributes:
        folder: with a folder for each run, and the table.
        combinations: with the runs of each and their outcomes.

    Raises:
        ConfigError: an unknown key, a value that is not allowed, something named twice, or a key that cannot be swept.

    Example::

        sweep = Sweep("quickstart", {"train.lr": [0.001, 0.004]}, seeds=[1, 2, 3])
        sweep.execute()
    """

    def __init__(
        self,
        config: Config = None,
        values: Mapping[str, Sequence[Any]] | None = None,
        seeds: Iterable[int | str] = (),
        **overrides: Any,
    ) -> None:
        asked, values = request(config, overrides), dict(values or {})
        seeds = _listed("seeds", seeds)
        values = {key: _listed(f"values of {key}", each) for key, each in values.items()}
        _check_keys(asked, values, seeds)
        base = build_config([*asked.files, *asked.given])  # need not be valid without a swept value
        if base.model.resume:
            raise ConfigError(f"model.resume is {base.model.resume!r}; a sweep is continued with --resume")
        self.folder = Path(base.data.save_dir)
        numbers = _read_seeds(seeds or [base.train.seed])
        axes = [[(key, value, _shown(_typed(key, value))) for value in each] for key, each in values.items()]
        for axis in axes:
            _refuse_twice(f"--values {axis[0][0]}", [shown for *_, shown in axis])
        planned = math.prod([len(numbers), *map(len, axes)])
        if planned > MOST_RUNS:
            raise ConfigError(
                f"The sweep has {planned} runs; at most {MOST_RUNS} are allowed. Give fewer values or seeds"
            )
        self.combinations = [self._combination(asked, each, numbers) for each in itertools.product(*axes)]
        _refuse_twice("The sweep", [str(run.folder) for run in self.runs])

    @property
    def runs(self) -> list[Run]:
        """All runs."""
        return [run for combination in self.combinations for run in combination.runs]

    def execute(self, *, resume: bool = False) -> int:
        """Runs the sweep; writes its table after every run.

        Args:
            resume: keep finished runs and continue an interrupted one.

        Returns:
            The number of runs that failed.

        Raises:
            ConfigError: ``resume`` finds runs with other settings; nothing ran.
            FileNotFoundError: the folder of a data set or a file is missing; nothing ran.
        """
        for run in self.runs:
            run.check(resume=resume)
        started, number = time.monotonic(), 0
        with locked(self.folder), explain_failure("sweep", self.folder):
            if not resume and (aside := archive(self.folder, TABLES)):
                print(f"Moved the table of an earlier sweep to {aside}")
            for combination in self.combinations:
                for run in combination.runs:
                    number += 1
                    elapsed = timedelta(seconds=int(time.monotonic() - started))
                    title = ", ".join([*_pairs(combination.values), f"seed {run.config.train.seed}"])
                    print(f"Run {number} of {len(self.runs)} ({elapsed} so far): {title}", flush=True)
                    combination.outcomes.append(_outcome(run, resume))
                    self._write_tables()
                    gc.collect()  # frees the model, which has circular references, before the next run
        print(f"\n{table_markdown(self.combinations)}\nWrote: {', '.join(str(self.folder / name) for name in TABLES)}")
        return sum(bool(outcome.error) for combination in self.combinations for outcome in combination.outcomes)

    def _write_tables(self) -> None:
        for name, text in zip(TABLES, (table_csv(self.combinations), table_markdown(self.combinations)), strict=True):
            replace_file(self.folder / name, text.encode())

    def _combination(
        self, asked: Request, entries: Sequence[tuple[str, Any, str]], seeds: Sequence[int]
    ) -> Combination:
        values = {key: shown for key, _, shown in entries}
        swept = [(key, value, COMMAND_LINE) for key, value, _ in entries]
        runs = []
        for seed in seeds:
            place = Path(self.folder, *([_folder_name(values)] if values else []), f"seed-{seed}")
            fixed = [("train.seed", seed, COMMAND_LINE), ("data.save_dir", str(place), COMMAND_LINE)]
            try:
                config = configure(asked.last(*swept, *fixed))
            except ConfigError as error:
                raise ConfigError(f"{', '.join([*_pairs(values), f'seed {seed}'])}: {error}") from error
            if 1 not in config.test.ranks:
                raise ConfigError(f"test.ranks is {config.test.ranks}; the table of a sweep shows rank-1: add 1")
            runs.append(Run(config))
        return Combination(values, runs)


def _outcome(run: Run, resume: bool) -> Outcome:
    seed = run.config.train.seed
    try:
        if resume and run.is_finished():
            print(f"Finished earlier, not repeated: {run.folder}")
            return Outcome(seed, run.scores())
        with locked(run.folder):
            if resume and (run.folder / RESULTS).exists():
                print(f"Moved results with other settings to {archive(run.folder, run_outputs(run.folder))}")
            run.execute(resume=resume and not run.lost())
        return Outcome(seed, run.scores())
    except Exception as error:  # the other runs go on; the log holds the traceback
        text = f"{type(error).__name__}: {in_keys(error)}"
        print(f"Failed: {text}", file=sys.stderr)
        return Outcome(seed, error=text)


def _check_keys(asked: Request, values: Mapping[str, Sequence[Any]], seeds: Sequence[Any]) -> None:
    if not values and not seeds:
        raise ConfigError("A sweep needs something to vary: --values KEY VALUE VALUE ..., or --seeds 1 2 3")
    given = [key for key, *_ in asked.given]
    for key, each in values.items():
        if key in RESERVED:
            raise ConfigError(f"--values {key}: {RESERVED[key]}")
        if not each:
            raise ConfigError(
                f"--values {key} has no value; give all of them behind the key: --values {key} VALUE VALUE"
            )
        if key in given:
            raise ConfigError(f"{key} is given as KEY VALUE and as --values {key}; choose one of them")
    if seeds and "train.seed" in given:
        raise ConfigError(f"train.seed is given as KEY VALUE and as --seeds {' '.join(map(str, seeds))}; choose one")


def _listed(what: str, given: Any) -> list[Any]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise ConfigError(f"{what} are {shown(given)}; give a list of them")
    return list(given)


def _refuse_twice(where: str, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{where} has {twice!r} twice: it would be run twice. Name it once")


def _read_seeds(given: Sequence[int | str]) -> list[int]:
    wrong = [seed for seed in given if type(seed) is not int and not re.fullmatch(r"[+-]?[0-9]{1,20}", str(seed))]
    if wrong:
        raise ConfigError(f"--seeds takes integers; got {', '.join(map(shown, wrong))}")
    seeds = [int(seed) for seed in given]
    _refuse_twice("--seeds", [str(seed) for seed in seeds])
    return seeds


def _typed(key: str, value: Any) -> Any:
    return get(build_config([(key, value, COMMAND_LINE)]), key)


def _shown(value: Any) -> str:
    """The same text for equal values, so that 0.50 is 0.5."""
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    if isinstance(value, str):
        return value
    return shown(value).removesuffix(".0") if isinstance(value, float) else shown(value)


def _pairs(values: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in values.items()]


def _folder_name(values: Mapping[str, str]) -> str:
    """``key=value,...``; characters that a file system may refuse are replaced, and a hash keeps names distinct."""
    name = ",".join(_pairs(values))
    safe = re.sub(r"[^\w.,=+\[\]-]", "-", name)[:150]
    return safe if safe == name else f"{safe}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"
