"""The command that runs a grid of values and seeds, one run after the other, and tells mean and spread over seeds.

No sweep library is used: Hydra would replace the configuration, Optuna and Ray Tune search for a best value and keep
their trials in stores of their own. Wanted is every combination, as often as there are seeds, in runs that are the same
as single ones: a product and a loop.
"""

import argparse
import gc
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from ..config.loading import flatten, get
from ..config.settings import SETTINGS
from ..config.words import in_keys
from ..report.files import run_outputs
from ..runs.spread import Entry, Outcome, as_csv, as_markdown
from ..runs.train import run
from ..runtime.files import archive, replace_file
from .arguments import add_switches, answered, release_keys, until_a_key
from .sweep_plan import SAME_SCORES, Run, base_config, check_surroundings, plan

RESULTS = "results.json"
TABLES = ("sweep.csv", "sweep.md")


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


def sweep(parsed: argparse.Namespace) -> int:
    """Runs a sweep; writes its table after every run.

    Returns:
        The number of runs that failed.

    Raises:
        ConfigError: something is wrong, or --resume finds runs with other settings; nothing ran.
        FileNotFoundError: the folder of a data set is missing; nothing ran.
    """
    runs = plan(parsed)
    check_surroundings(runs)
    folder = Path(base_config(parsed).data.save_dir)
    aside = None if parsed.resume else archive(folder, TABLES)
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
    try:
        status = answered(lambda: failed.append(sweep(parsed)))
    except KeyboardInterrupt:
        print("The sweep stopped. What is done stays; the same command with --resume goes on.", file=sys.stderr)
        return 130
    if any(failed):
        print(f"{failed[0]} run(s) of the sweep failed; the table says why", file=sys.stderr)
    return status or int(any(failed))


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
            print(f"Moved results with other settings to {archive(folder, run_outputs(folder))}")
        run(run_.config)
        return Outcome(seed, _scores(folder))
    except Exception as error:  # whatever happens to one run, the others may do well; its log holds the traceback
        told = f"{type(error).__name__}: {in_keys(error)}"
        print(f"Failed: {told}", file=sys.stderr)
        return Outcome(seed, error=told)


def _is_finished(run_: Run) -> bool:
    try:
        then = dict(flatten(json.loads((run_.folder / RESULTS).read_text())["config"]))
        _scores(run_.folder)
        decisive = [key for key in SETTINGS if key in then and not key.startswith(SAME_SCORES)]
        return bool(decisive) and all(then[key] == get(run_.config, key) for key in decisive)
    except (OSError, ValueError, LookupError, TypeError):  # no results, or torn
        return False


def _scores(folder: Path) -> dict[str, tuple[float, float]]:
    targets = json.loads((folder / RESULTS).read_text())["targets"]
    return {name: (found["mAP"], found["cmc"]["1"]) for name, found in targets.items()}
