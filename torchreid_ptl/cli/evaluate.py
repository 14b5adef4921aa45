"""The command that evaluates a trained model, or files of descriptors."""

import argparse
from collections.abc import Sequence

from ..config.loading import COMMAND_LINE, ConfigError
from ..runs.evaluate import evaluate, evaluate_files
from .arguments import asked, parse, parser_of, report_user_errors
from .signals import command_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/evaluate.py`` and ``torchreid_ptl evaluate``; returns the exit status."""
    parsed = read(arguments)
    return report_user_errors(lambda: _evaluate(parsed), command_line("evaluate", arguments, resume=False))


def read(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = parser_of(
        "evaluate",
        "Evaluates a model of torchreid or of this plugin (--model, --weights, --root, -t), or files of features "
        "(--query, --gallery). Writes results.json, scores of each query as CSV, pictures and report.html.",
    )
    model = parser.add_argument_group("a model")
    model.add_argument(
        "--model", metavar="NAME", help="its name, for example osnet_x0_25; by default that in the weights"
    )
    model.add_argument("--weights", metavar="FILE", help="its weights; or 'imagenet' for those torchreid has")
    model.add_argument("--save-features", action="store_true", help="write the descriptors too, as .npz files")
    files = parser.add_argument_group("files of features (.npz or .pt with features, pids, camids and maybe paths)")
    files.add_argument("--query", nargs="+", default=[], metavar="FILE", help="descriptors of the queries")
    files.add_argument("--gallery", nargs="+", default=[], metavar="FILE", help="of the gallery; in pieces if large")
    parser.add_argument("--save-dir", metavar="DIR", help="folder of the results; log/evaluation by default")
    show = "queries whose rank lists are shown, instead of the worst"
    parser.add_argument("--show", nargs="+", default=[], metavar="INDEX", help=show)
    return parse(parser, arguments)


def _evaluate(parsed: argparse.Namespace) -> None:
    kinds = {
        "a model": [name for name in ("model", "weights", "targets", "root") if getattr(parsed, name)],
        "files of features": [name for name in ("query", "gallery") if getattr(parsed, name)],
    }
    if all(kinds.values()):
        got = ", ".join(f"--{name}" for names in kinds.values() for name in names)
        raise ConfigError(f"Evaluate a model, or files of features, not both; got {got}")
    if not any(kinds.values()) and not parsed.config_file:
        raise ConfigError(
            "Say what to evaluate: --model NAME --weights FILE --root DIR -t DATASET, or --query FILE --gallery FILE"
        )
    config = asked(parsed)
    if parsed.save_dir:
        config = config.first(("data.save_dir", parsed.save_dir, COMMAND_LINE))
    try:
        shown = [int(index) for index in parsed.show]
    except ValueError as error:
        raise ConfigError(f"--show takes numbers of queries, counted from 0; got {parsed.show}") from error
    if kinds["files of features"]:
        evaluate_files(parsed.query, parsed.gallery, config=config, shown=shown)
    else:
        evaluate(parsed.model, parsed.weights, config=config, shown=shown, keep_features=parsed.save_features)
