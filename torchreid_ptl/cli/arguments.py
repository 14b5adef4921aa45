"""The command line: KEY VALUE pairs are taken out first, anywhere; the rest is switches."""

import argparse
import importlib
import importlib.util
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..config.loading import CHAIN, COMMAND_LINE, Entry, read_options
from ..config.request import Request, request, with_resume
from ..config.settings import SETTINGS
from ..config.words import in_keys
from ..data.reading import BadImageError, explain_lost_worker
from ..engines import NonFiniteLossError
from ..host import NameConflictError
from ..runtime.checkpoint import CheckpointError
from ..runtime.hints import nearest
from . import signals

EXPECTED = (CheckpointError, BadImageError, NonFiniteLossError, NameConflictError, OSError, ValueError)
"""Errors of the user: only their message is printed."""
SWITCHES = {"root": "data.root", "sources": "data.sources", "targets": "data.targets", "transforms": "data.transforms"}
"""The host's switches and their keys."""
_KEY = re.compile(r"[a-z_]\w*(\.\w+)+")
_FILES = (".bin", ".ckpt", ".npy", ".npz", ".onnx", ".pt", ".pth", ".py", ".safetensors", ".tar", ".yaml", ".yml")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads switches, and KEY VALUE pairs before, between and behind them.

    A known key, or a mistyped one in a section that exists, takes the next argument; the value of a switch is never a
    key.

    Args:
        parser: of the switches.
        arguments: those of the process by default.

    Returns:
        The switches, and the pairs as ``opts``.
    """
    parser.epilog = "Keys of docs/config.md can be given as KEY VALUE: train.max_epoch 10 data.save_dir log/try"
    rest = [_at_home(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    with_value = {name for action in parser._actions if action.nargs != 0 for name in action.option_strings}
    switches: list[str] = []
    pairs: list[str] = []
    word = ""
    while rest:
        before, word = word, rest.pop(0)
        key, equals, value = word.partition("=")
        if equals and key in SETTINGS and before not in with_value:
            parser.error(f"{word}: a key and its value are two words: {key} {value}")
        if before not in with_value and (word in (*SETTINGS, CHAIN) or _is_mistyped(word)):
            pairs += [word, *rest[:1]]
            del rest[:1]
        else:
            switches.append(word)
    parsed = parser.parse_args(switches)
    parsed.opts = pairs
    return parsed


def _at_home(word: str) -> str:
    """Expands ~ where no shell did, as in --root=~/reid."""
    switch, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{switch}{equals}{os.path.expanduser(value)}"


def _is_mistyped(word: str) -> bool:
    """Whether a word looks like a key; weights and files of features may be called like a section."""
    section = word.partition(".")[0]
    if not _KEY.fullmatch(word) or word.endswith(_FILES) or Path(word).exists():
        return False
    return any(known.startswith(f"{section}.") for known in SETTINGS) or bool(nearest(word, SETTINGS, 0.85))


def parser_of(command: str, description: str) -> argparse.ArgumentParser:
    """A parser with the switches that all commands have."""
    parser = argparse.ArgumentParser(prog=f"torchreid_ptl {command}", description=description)
    add = parser.add_argument
    add("--config-file", nargs="+", default=[], metavar="FILE", help="configurations, by file or name; later ones win")
    add("--root", default="", metavar="DIR", help="folder that holds the data sets")
    add("-t", "--targets", nargs="+", metavar="NAME", help="data sets to test on")
    add(
        "--import",
        nargs="+",
        default=[],
        dest="modules",
        metavar="MODULE",
        help="files or modules that register losses",
    )
    return parser


def add_training(parser: argparse.ArgumentParser) -> None:
    """Adds the host's further switches, and ``--resume``."""
    parser.add_argument("-s", "--sources", nargs="+", metavar="NAME", help="data sets to train on")
    parser.add_argument("--transforms", nargs="+", metavar="NAME", help="training augmentation")
    text = "go on after the last complete epoch of a run, with its settings; finished stages of a chain are kept"
    parser.add_argument("--resume", action="store_true", help=text)


def asked(parsed: argparse.Namespace) -> Request:
    """The request of the command line; modules of the user are imported first.

    Raises:
        FileNotFoundError: a configuration or a module is missing.
        ConfigError: a file that is no configuration, or a key without value.
    """
    for name in parsed.modules:
        _import(name)
    found = request(parsed.config_file).last(*read_options(parsed.opts))
    switches: list[Entry] = [
        (key, getattr(parsed, name), COMMAND_LINE) for name, key in SWITCHES.items() if getattr(parsed, name, None)
    ]
    found = found.last(*switches)
    return with_resume(found) if getattr(parsed, "resume", False) else found


def _import(name: str) -> None:
    if not name.endswith(".py"):
        importlib.import_module(name)
        return
    if not Path(name).is_file():
        raise FileNotFoundError(f"--import names {name}, which does not exist")
    spec = importlib.util.spec_from_file_location(Path(name).stem, name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)


def report_user_errors(work: Callable[[], object], again: str = "") -> int:
    """Runs a command; of an error of the user, or a signal to stop, only the message is printed.

    Args:
        work: the command.
        again: the line that goes on with it when it is stopped.

    Returns:
        The exit status: 0, 1 after an error, 130 after Ctrl-C (SIGINT), 143 after SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # letters that the console's encoding lacks
    with signals.raised() as received:
        try:
            work()
        except BaseException as error:
            if received or isinstance(error, KeyboardInterrupt):  # whatever else failed, it was the signal
                return signals.explain(received, again)
            message = _explain(error)
            if message is None:
                raise
            print(message, file=sys.stderr)
            return 1
    return 0


def _explain(error: BaseException) -> str | None:
    """The message of an error of the user; None for any other."""
    if isinstance(error, EXPECTED):
        return f"{type(error).__name__}: {in_keys(error)}"
    return explain_lost_worker(error) if isinstance(error, RuntimeError) else None
