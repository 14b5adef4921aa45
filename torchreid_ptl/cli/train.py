"""The command that trains and tests."""

import argparse
from collections.abc import Sequence

from ..runs.train import train
from .arguments import add_training, asked, parse, parser_of, report_user_errors
from .signals import command_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/main.py`` and ``torchreid_ptl train``; returns the exit status."""
    parsed = read(arguments)
    again = command_line("train", arguments, resume=not parsed.dry_run)
    return report_user_errors(lambda: train(asked(parsed), dry_run=parsed.dry_run), again)


def read(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = parser_of("train", "Trains and tests a person re-identification model, or a chain of them.")
    add_training(parser)
    parser.add_argument("--dry-run", action="store_true", help="build everything with synthetic images, run two steps")
    return parse(parser, arguments)
