"""The command that trains and tests: the host's own command line, and what a run leaves."""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch
from yacs.config import CfgNode

from ..config import (
    CHAIN,
    COMMAND_LINE,
    ConfigError,
    Entry,
    build_config,
    read_file,
    read_options,
)
from ..data.features import SUFFIXES
from ..data.preflight import check_folders
from ..data.reading import BadImageError
from ..engines import ImagePTLEngine, NonFiniteLossError
from ..host import NameConflictError
from ..runtime.checkpoint import CheckpointError
from ..runtime.memory import keep_freed_memory
from ..runtime.seeding import seed_everything
from ..settings import SETTINGS
from ..validation import validate
from .build import build_datamanager, build_engine, run_options
from .chain import check_settings, prepare, run_stages, stop_explained
from .compared import compare_with_old
from .dry_run import dry_run, dry_run_chain
from .report import begin, leave, require_no_chain, write_config
from .stages import Chain, plan
from .tested import Tested, check_shown, judge

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


def run(config: CfgNode, shown: Sequence[int] = ()) -> ImagePTLEngine:
    """Runs a configuration from seed to pictures.

    Args:
        config: checked and frozen.
        shown: queries whose rank lists are shown, instead of those that ``eval.rank_lists`` chooses.

    Returns:
        The engine, with its results.
    """
    started = time.monotonic()
    folder = Path(config.data.save_dir)
    require_no_chain(folder)
    check_folders(config.data.root, [*config.data.sources, *config.data.targets])
    seed_everything(config.train.seed)
    keep_freed_memory()
    with log_to(folder, "test" if config.test.evaluate else "train"):
        datamanager = build_datamanager(config)
        for name, sides in datamanager.test_loader.items():
            check_shown(shown, len(sides["query"].dataset), name)
        engine = build_engine(config, datamanager)
        begin(config, datamanager)
        parameters = sum(p.numel() for p in engine.plain_model().parameters())
        print(f"Model {config.model.name}: {parameters:,} parameters")
        engine.run(**run_options(config))
        if engine.bad_images:
            bad = sorted(set(engine.bad_images))
            print(f"{len(bad)} unreadable image(s) left out: {', '.join(bad[:10])}{' ...' if len(bad) > 10 else ''}")
        write_config(config, folder)
        left = leave(
            _judged(engine, config),
            config,
            folder,
            time.monotonic() - started,
            model={"name": config.model.name, "parameters": parameters, "weights": config.model.load_weights},
            bad_images=engine.bad_images,
            history={} if config.test.evaluate else engine.history,
            shown=shown,
        )
        print("Left: " + ", ".join(map(str, [*left, *compare_with_old(engine, config, folder)])))
    return engine


def _judged(engine: ImagePTLEngine, config: CfgNode) -> list[Tested]:
    targets = [judge(name, *engine.descriptors[name], result, config) for name, result in engine.results.items()]
    for tested in targets:
        if config.test.evaluate and tested.verification is not None:
            print(f"{tested.name}, {tested.verification}")
    return targets


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/main.py`` and ``python -m torchreid_ptl``; returns the exit status."""
    parsed = parse(arguments)

    def work() -> None:
        chain = configure_chain(parsed)
        if chain:
            _run_chain(chain, dry=parsed.dry_run)
        elif parsed.dry_run:
            dry_run(configure(parsed), run)
        else:
            run(configure(parsed))

    return answered(work)


def _run_chain(chain: Chain, dry: bool) -> None:
    if dry:
        dry_run_chain(chain, run)
        return
    prepare(chain)
    with stop_explained(chain):
        run_stages(chain, run)


def answered(work: Callable[[], object]) -> int:
    """Runs a command; what a user can cause is answered with the message alone, and exit status 1."""
    try:
        work()
    except EXPECTED as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


class _Tee:
    """Writes to the console and to a file."""

    def __init__(self, console: TextIO, file: TextIO) -> None:
        self._console, self._file = console, file

    def write(self, text: str) -> int:
        self._file.write(text)
        return self._console.write(text)

    def flush(self) -> None:
        self._file.flush()
        self._console.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._console, name)


@contextmanager
def log_to(folder: Path, kind: str) -> Iterator[None]:
    """Copies what is printed to ``<kind>.log-<time>``, as the host does."""
    folder.mkdir(parents=True, exist_ok=True)
    console = sys.stdout
    with open(folder / f"{kind}.log-{time.strftime('%Y-%m-%d-%H-%M-%S')}", "w") as file:
        sys.stdout = _Tee(console, file)
        try:
            yield
        except BaseException:
            traceback.print_exc(file=file)
            raise
        finally:
            sys.stdout = console
