"""The command that compares versions of a model."""

import argparse
from collections.abc import Sequence
from typing import Any

from ..config.loading import COMMAND_LINE, ConfigError
from ..evaluation.descriptors import DIMENSIONS
from ..runs.compatibility import FRACTIONS, compare_files, compare_models
from .arguments import asked, parse, parser_of, report_user_errors
from .signals import command_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/compatibility.py`` and ``torchreid_ptl compatibility``; returns the exit status."""
    parsed = read(arguments)
    return report_user_errors(lambda: _compare(parsed), command_line("compatibility", arguments, resume=False))


def read(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = parser_of(
        "compatibility",
        "Compares versions of a model in time order, the oldest first: what queries by each find in galleries by "
        "itself and by older ones (matrix, AC, AM), and for every update whether it is compatible, what it gains, what "
        "re-encoding parts of the gallery gives, and which queries flip. Writes results.json, matrices, scores of each "
        "query as CSV, pictures and report.html.",
    )
    add = parser.add_argument
    versions: dict[str, Any] = {"action": "append", "default": []}
    text = "a version as a model; 'imagenet' as WEIGHTS works"
    add("--version", nargs=2, metavar=("MODEL", "WEIGHTS"), help=text, **versions)
    text = "a version as files of features, QUERY GALLERY [GALLERY ...]: .npz or .pt with features, pids, camids, paths"
    add("--features", nargs="+", metavar="FILE", help=text, **versions)
    text = "the newest version trained without the others, as MODEL WEIGHTS or QUERY GALLERY, for the gain"
    add("--independent", nargs="+", metavar="ARG", help=text)
    add("--names", nargs="+", metavar="NAME", help="of the versions; v1 v2 ... by default")
    add("--dimensions", choices=DIMENSIONS, default="error", help="where those of versions differ")
    add("--fractions", nargs="+", metavar="R", help="parts of the gallery re-encoded, 0 to 1")
    add("--save-dir", metavar="DIR", help="folder of the results; log/compatibility by default")
    return parse(parser, arguments)


def _compare(parsed: argparse.Namespace) -> None:
    if bool(parsed.version) == bool(parsed.features):
        raise ConfigError(
            "Give versions in time order, all as models: --version MODEL WEIGHTS --version MODEL WEIGHTS --root DIR -t "
            "DATASET, or all as files: --features QUERY GALLERY --features QUERY GALLERY; got "
            + ("both" if parsed.version else "none")
        )
    config = asked(parsed)
    if parsed.save_dir:
        config = config.first(("data.save_dir", parsed.save_dir, COMMAND_LINE))
    work = compare_models if parsed.version else compare_files
    work(
        _named(parsed.names, parsed.version or parsed.features),
        independent=parsed.independent,
        config=config,
        dimensions=parsed.dimensions,
        fractions=_fractions(parsed.fractions),
    )


def _named(given: Sequence[str] | None, groups: Sequence[list[str]]) -> dict[str, list[str]]:
    names = list(given or [f"v{number}" for number in range(1, len(groups) + 1)])
    if len(names) != len(groups) or len(set(names)) != len(names):
        raise ConfigError(
            f"--names takes a name of its own for each of the {len(groups)} versions; got {' '.join(names)}"
        )
    return dict(zip(names, groups, strict=True))


def _fractions(texts: Sequence[str] | None) -> Sequence[float]:
    try:
        return [float(text) for text in texts or FRACTIONS]
    except ValueError as error:
        raise ConfigError(f"--fractions takes numbers from 0 to 1; got {' '.join(texts or ())}") from error
