"""The command that trains and tests: the host's own command line, and what a run leaves."""

import argparse
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch
from yacs.config import CfgNode

from ..config import ConfigError, load_config, validate
from ..data.preflight import check_folders
from ..data.reading import BadImageError
from ..engines import CHECKPOINTS, ImagePTLEngine, NonFiniteLossError
from ..host import NameConflictError
from ..runtime.checkpoint import CheckpointError
from ..runtime.files import set_aside
from ..runtime.memory import keep_freed_memory
from ..runtime.seeding import seed_everything
from ..settings import SETTINGS
from .build import build_datamanager, build_engine, run_options
from .dry_run import dry_run
from .report import draw_pictures, left_by_a_run, write_config, write_results

EXPECTED = (ConfigError, CheckpointError, BadImageError, NonFiniteLossError, NameConflictError, OSError, ValueError)
"""What a user can cause: answered with the message alone."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the host's switches, ``--dry-run``, and KEY VALUE pairs."""
    parser = argparse.ArgumentParser(
        prog="torchreid_ptl",
        description="Trains and tests a person re-identification model. Every key of docs/config.md can follow as "
        "KEY VALUE, for example: train.max_epoch 10 data.save_dir log/try",
    )
    parser.add_argument(
        "--config-file", default="", metavar="FILE", help="configuration, for example configs/quickstart.yaml"
    )
    parser.add_argument("-s", "--sources", nargs="+", metavar="NAME", help="data sets to train on")
    parser.add_argument("-t", "--targets", nargs="+", metavar="NAME", help="data sets to test on")
    parser.add_argument("--transforms", nargs="+", metavar="NAME", help="training augmentation")
    parser.add_argument("--root", default="", metavar="DIR", help="folder that holds the data sets")
    parser.add_argument("--dry-run", action="store_true", help="build everything with made images and run two steps")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="configuration keys")
    parsed = parser.parse_args(arguments)
    for switch in ("sources", "targets", "transforms"):
        _release_keys(parsed, switch)
    return parsed


def _release_keys(parsed: argparse.Namespace, switch: str) -> None:
    """Hands KEY VALUE pairs that a switch with several names swallowed back to the options."""
    names = getattr(parsed, switch) or []
    for index, name in enumerate(names):
        if "." in name or name in SETTINGS:
            setattr(parsed, switch, names[:index])
            parsed.opts = [*names[index:], *parsed.opts]
            return


def configure(arguments: argparse.Namespace) -> CfgNode:
    """Builds and checks the configuration the command line asks for."""
    config = load_config(arguments.config_file or None, arguments.opts)
    if arguments.root:
        config.data.root = arguments.root
    for name in ("sources", "targets", "transforms"):
        if getattr(arguments, name):
            config.data[name] = getattr(arguments, name)
    config.use_gpu = config.use_gpu and torch.cuda.is_available()
    validate(config)
    config.freeze()
    return config


def run(config: CfgNode) -> ImagePTLEngine:
    """Runs a configuration from seed to pictures.

    Args:
        config: checked and frozen.

    Returns:
        The engine, with its results.
    """
    started = time.monotonic()
    folder = Path(config.data.save_dir)
    check_folders(config.data.root, [*config.data.sources, *config.data.targets])
    seed_everything(config.train.seed)
    keep_freed_memory()
    with _log_to(folder, "test" if config.test.evaluate else "train"):
        engine = build_engine(config, build_datamanager(config))
        if not config.model.resume:
            aside = set_aside(folder, [*left_by_a_run(folder), *([] if config.test.evaluate else [CHECKPOINTS])])
            print(f"Moved what an earlier run left to {aside}" if aside else f"Writing to {folder}")
            write_config(config, folder)
        parameters = sum(p.numel() for p in engine.plain_model().parameters())
        print(f"Model {config.model.name}: {parameters:,} parameters")
        engine.run(**run_options(config))
        if engine.bad_images:
            bad = sorted(set(engine.bad_images))
            print(f"{len(bad)} unreadable image(s) left out: {', '.join(bad[:10])}{' ...' if len(bad) > 10 else ''}")
        write_config(config, folder)
        left = [
            write_results(engine, config, folder, time.monotonic() - started),
            *draw_pictures(engine, config, folder),
        ]
        print("Left: " + ", ".join(map(str, left)))
    return engine


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/main.py`` and ``python -m torchreid_ptl``; returns the exit status."""
    parsed = parse(arguments)
    try:
        config = configure(parsed)
        if parsed.dry_run:
            dry_run(config, run)
        else:
            run(config)
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
def _log_to(folder: Path, kind: str) -> Iterator[None]:
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
