"""The command line: the host's switches, ``--dry-run``, ``--resume``, and KEY VALUE pairs."""

import argparse
import sys
from collections.abc import Callable, Sequence

import torch
from yacs.config import CfgNode

from ..config.checks import validate
from ..config.loading import (
    CHAIN,
    COMMAND_LINE,
    ConfigError,
    Entry,
    build_config,
    read_file,
    read_options,
)
from ..config.settings import SETTINGS
from ..config.words import in_keys
from ..data.features import SUFFIXES
from ..data.reading import BadImageError
from ..engines import NonFiniteLossError
from ..host import NameConflictError
from ..runs.chain import check_settings
from ..runs.chain_plan import Chain, plan
from ..runtime.checkpoint import CheckpointError

EXPECTED = (ConfigError, CheckpointError, BadImageError, NonFiniteLossError, NameConflictError, OSError, ValueError)
"""What a user can cause: answered with the message alone."""
FLAGS = {"--dry-run": "dry_run", "--resume": "resume"}
"""Switches without a value; they may stand behind KEY VALUE pairs too, at the end of a command given before."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the host's switches, ``--dry-run``, ``--resume``, and KEY VALUE pairs."""
    parser = argparse.ArgumentParser(
        prog="torchreid_ptl",
        description="Trains and tests a person re-identification model. Every key of docs/config.md can follow as "
        "KEY VALUE, for example: train.max_epoch 10 data.save_dir log/try",
        epilog="python -m torchreid_ptl evaluate --help: evaluates a trained model, or files of features; "
        "compatibility --help: compares versions of a model; sweep --help: runs a grid of values and seeds",
    )
    add_switches(parser)
    parser.add_argument("--dry-run", action="store_true", help="build everything with made images and run two steps")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run or chain, if there is one")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="configuration keys")
    parsed = parser.parse_args(arguments)
    release_keys(parsed, "sources", "targets", "transforms")
    for flag, name in FLAGS.items():
        setattr(parsed, name, getattr(parsed, name) or flag in parsed.opts)
    parsed.opts = [option for option in parsed.opts if option not in FLAGS]
    return parsed


def add_switches(parser: argparse.ArgumentParser) -> None:
    """Adds the host's switches."""
    parser.add_argument(
        "--config-file", default="", metavar="FILE", help="configuration, for example configs/quickstart.yaml"
    )
    parser.add_argument("-s", "--sources", nargs="+", metavar="NAME", help="data sets to train on")
    parser.add_argument("-t", "--targets", nargs="+", metavar="NAME", help="data sets to test on")
    parser.add_argument("--transforms", nargs="+", metavar="NAME", help="training augmentation")
    parser.add_argument("--root", default="", metavar="DIR", help="folder that holds the data sets")


def release_keys(parsed: argparse.Namespace, *switches: str) -> None:
    """Hands KEY VALUE pairs that a switch with several names swallowed back to the options."""
    for switch in switches:
        names, rest = until_a_key(getattr(parsed, switch) or [])
        setattr(parsed, switch, names or None)
        parsed.opts = [*rest, *parsed.opts]


def until_a_key(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits before the first name that is, or looks like, a configuration key."""
    keys = (index for index, name in enumerate(names) if name in (*SETTINGS, CHAIN) or _looks_like_a_key(name))
    first = next(keys, len(names))
    return list(names[:first]), list(names[first:])


def _looks_like_a_key(name: str) -> bool:
    """Also a mistyped key: its section exists. A file of features may be called like a section."""
    return (
        "." in name
        and any(known.startswith(f"{name.partition('.')[0]}.") for known in SETTINGS)
        and not name.endswith(SUFFIXES)
    )


def configure(arguments: argparse.Namespace) -> CfgNode:
    """Builds and checks the configuration the command line asks for."""
    config = build_config([*read_file(arguments.config_file), *_said(arguments)])
    validate(config)
    config.freeze()
    return config


def configure_chain(arguments: argparse.Namespace) -> Chain | None:
    """Builds and checks the chain the command line asks for; None when it asks for a single run."""
    chain = plan(read_file(arguments.config_file), _said(arguments))
    if chain:
        check_settings(chain)
    return chain


def _said(arguments: argparse.Namespace) -> list[Entry]:
    """What the command line and the machine say; the last one wins."""
    said = read_options(arguments.opts)
    keys = {"root": "data.root", "sources": "data.sources", "targets": "data.targets", "transforms": "data.transforms"}
    for name, key in keys.items():
        if getattr(arguments, name):
            said.append((key, getattr(arguments, name), COMMAND_LINE))
    if arguments.resume:
        other = [value for key, value, _ in said if key == "model.resume" and value != "auto"]
        if other:
            raise ConfigError(f"--resume means model.resume auto, and model.resume is {other[-1]!r}; give one of them")
        said.append(("model.resume", "auto", COMMAND_LINE))
    if not torch.cuda.is_available():
        said.append(("use_gpu", False, "this machine"))
    return said


def answered(work: Callable[[], object]) -> int:
    """Runs a command; what a user can cause is answered with the message alone, and exit status 1."""
    try:
        work()
    except EXPECTED as error:
        print(f"{type(error).__name__}: {in_keys(error)}", file=sys.stderr)
        return 1
    return 0
