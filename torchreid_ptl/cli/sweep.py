"""The command that runs a grid of values and seeds."""

import argparse
import sys
from collections.abc import Sequence

from ..config.loading import ConfigError
from ..runs.sweep import Sweep
from .arguments import SWITCHES, add_training, asked, parse, parser_of, report_user_errors
from .signals import command_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/sweep.py`` and ``torchreid_ptl sweep``; returns the exit status, 1 when a run failed."""
    parsed = read(arguments)
    failed: list[int] = []
    again = command_line("sweep", arguments, resume=True)
    status = report_user_errors(lambda: failed.append(sweep_of(parsed).execute(resume=parsed.resume)), again)
    if any(failed):
        print(f"{failed[0]} run(s) of the sweep failed; the table has the reasons", file=sys.stderr)
    return status or int(any(failed))


def read(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = parser_of(
        "sweep",
        "Trains and tests every combination of values with every seed, one run after the other, and writes a table "
        "with mean and spread over seeds.",
    )
    add_training(parser)
    add = parser.add_argument
    add("--values", nargs="+", action="append", default=[], metavar=("KEY", "VALUE"), help="a key and all its values")
    add("--seeds", nargs="+", metavar="SEED", help="seeds for every combination; train.seed by default")
    return parse(parser, arguments)


def sweep_of(parsed: argparse.Namespace) -> Sweep:
    """The sweep of a command line."""
    keys = [key for key, *_ in parsed.values]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice:
        raise ConfigError(f"--values has {twice!r} twice: it would be run twice. Name it once")
    for switch, key in SWITCHES.items():
        if key in keys and getattr(parsed, switch):
            raise ConfigError(f"{key} is given as --{switch} and as --values {key}; choose one of them")
    values = {key: texts for key, *texts in parsed.values}
    single = argparse.Namespace(**{**vars(parsed), "resume": False})
    return Sweep(asked(single), values, parsed.seeds or ())
