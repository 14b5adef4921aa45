"""The command that measures whether versions of a model can share a gallery."""

import argparse
import re
import time
from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode

from ..config.loading import ConfigError
from ..evaluation.backfill import FRACTIONS, check_fractions
from ..evaluation.descriptors import require_same_images
from ..evaluation.dimensions import DIMENSIONS, check_dimensions, dimension_of
from ..report.target import FILES
from ..runs.versions import INDEPENDENT, Version, check_weights, compare_and_write, describe, read_files
from ..runtime.console_log import log_to
from ..runtime.memory import keep_freed_memory
from ..runtime.seeding import seed_everything
from .arguments import answered, configure, release_keys, until_a_key
from .evaluate import asked_for, configure_test

_OWN_KEYS = ("model.name", "model.load_weights", "model.resume", "model.pretrained")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads which versions to compare, and KEY VALUE pairs."""
    parser = argparse.ArgumentParser(
        prog="torchreid_ptl compatibility",
        description="Compares versions of a model in time order, the oldest first: what queries by each find in "
        "galleries by itself and by older ones (matrix, AC, AM), and for every update whether it is compatible, what "
        "it gains, what re-encoding the gallery bit by bit gives, and which queries change sides. Leaves results.json, "
        "matrices, scores of each query as CSV, pictures and report.html. Keys of docs/config.md can follow as KEY "
        "VALUE, for example: data.height 128 eval.flip True",
    )
    pair = ("MODEL", "WEIGHTS")
    models = parser.add_argument_group("versions as models")
    models.add_argument(
        "--version", nargs=2, action="append", default=[], metavar=pair, help="a version; 'imagenet' as WEIGHTS works"
    )
    models.add_argument("--root", default="", metavar="DIR", help="folder that holds the data sets")
    models.add_argument("-t", "--targets", nargs="+", metavar="NAME", help="data sets to test on")
    models.add_argument("--config-file", default="", metavar="FILE", help="configuration of the images and the test")
    files = parser.add_argument_group("versions as files of features (.npz or .pt with features, pids, camids, paths)")
    files.add_argument(
        "--features", nargs="+", action="append", default=[], metavar="FILE", help="QUERY GALLERY [GALLERY ...]"
    )
    parser.add_argument(
        "--independent",
        nargs="+",
        metavar="ARG",
        help="the newest version trained without regard to the others, as MODEL WEIGHTS or QUERY GALLERY, for the gain",
    )
    parser.add_argument("--names", nargs="+", metavar="NAME", help="of the versions; v1 v2 ... by default")
    parser.add_argument("--dimensions", choices=DIMENSIONS, default="error", help="where those of versions differ")
    parser.add_argument("--fractions", nargs="+", metavar="R", help="parts of the gallery re-encoded, 0 to 1")
    parser.add_argument("--save-dir", metavar="DIR", help="folder for what is left; log/compatibility by default")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="configuration keys")
    return _without_keys(parser.parse_args(arguments))


def _without_keys(parsed: argparse.Namespace) -> argparse.Namespace:
    """Hands KEY VALUE pairs that switches swallowed back to the options."""
    release_keys(parsed, "targets", "names", "fractions")
    parsed.features = [_release(parsed, group) for group in parsed.features]
    parsed.independent = _release(parsed, parsed.independent or [])
    return parsed


def _release(parsed: argparse.Namespace, group: list[str]) -> list[str]:
    """The first two are what they are, even a file ``model.pth.tar-5`` that is called like a section."""
    more, rest = until_a_key(group[2:])
    parsed.opts = [*rest, *parsed.opts]
    return [*group[:2], *more]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/compatibility.py``; returns the exit status."""
    parsed = parse(arguments)
    return answered(lambda: compare(parsed))


def compare(parsed: argparse.Namespace) -> None:
    """Compares the versions asked for.

    Raises:
        ConfigError: versions of both kinds or of none, fewer than two, or names that do not fit.
        FileNotFoundError: a file, or the folder of a data set, is missing; nothing was computed.
    """
    started = time.monotonic()
    parts = _read_fractions(parsed)
    configs, versions = _configure(parsed)
    newest = [config for name, config in configs.items() if name != INDEPENDENT][-1:]
    config = newest[0] if newest else _files_config(parsed)
    _refuse(config)
    if configs:
        check_weights(configs)
    folder = Path(config.data.save_dir)
    seed_everything(config.train.seed)
    keep_freed_memory()
    with log_to(folder, "test"):
        versions = versions or describe(configs, parsed.dimensions)
        files = [path for group in (*parsed.features, parsed.independent) for path in group]
        written = compare_and_write(
            versions, config, folder, parsed.dimensions, started=started, fractions=parts, inputs=files
        )
        print("Wrote: " + ", ".join(map(str, written)))


def _configure(parsed: argparse.Namespace) -> tuple[dict[str, CfgNode], list[Version]]:
    """Configurations of the versions that are models, or the versions that are files."""
    if bool(parsed.version) == bool(parsed.features):
        raise ConfigError(
            "Give versions in time order, all as models: --version MODEL WEIGHTS --version MODEL WEIGHTS --root DIR -t "
            "DATASET, or all as files: --features QUERY GALLERY --features QUERY GALLERY; got "
            + ("both" if parsed.version else "none")
        )
    groups = parsed.version or parsed.features
    names = _read_names(parsed.names, len(groups))
    if parsed.independent:
        groups, names = [*groups, parsed.independent], [*names, INDEPENDENT]
    if parsed.features:
        return {}, _read_all(dict(zip(names, groups, strict=True)), parsed.dimensions)
    return _configure_models(parsed, dict(zip(names, groups, strict=True))), []


def _read_names(given: Sequence[str] | None, count: int) -> list[str]:
    if count < 2:
        raise ConfigError(f"Two versions or more are compared, the oldest first; got {count}")
    names = list(given or [f"v{number}" for number in range(1, count + 1)])
    if len(names) != count or len(set(names)) != count:
        raise ConfigError(f"--names takes a name of its own for each of the {count} versions; got {' '.join(names)}")
    wrong = [name for name in names if name == INDEPENDENT or not re.fullmatch(r"[\w.-]+", name)]
    if wrong:
        raise ConfigError(
            f"--names become names of files: letters, digits, '.', '_' and '-', and {INDEPENDENT!r} is taken; got "
            f"{wrong[0]!r}"
        )
    return names


def _read_all(groups: dict[str, list[str]], rule: str) -> list[Version]:
    for name, paths in groups.items():
        if len(paths) < 2:
            raise ConfigError(f"{name}: features come as QUERY GALLERY, or QUERY GALLERY GALLERY ...; got {paths}")
    versions = [read_files(name, paths, FILES) for name, paths in groups.items()]
    sides = {version.name: version.sides[FILES] for version in versions}
    check_dimensions({name: dimension_of(name, pair) for name, pair in sides.items() if name != INDEPENDENT}, rule)
    require_same_images(sides)
    return versions


def _configure_models(parsed: argparse.Namespace, groups: dict[str, list[str]]) -> dict[str, CfgNode]:
    taken = [key for key in parsed.opts[::2] if key in _OWN_KEYS]
    if taken:
        raise ConfigError(f"{taken[0]} is given as KEY VALUE; versions have their own: --version MODEL WEIGHTS")
    configs = {}
    for name, pair in groups.items():
        if len(pair) != 2:
            raise ConfigError(f"{name}: a model comes as MODEL WEIGHTS; got {' '.join(pair)}")
        configs[name] = configure_test(parsed, pair[0], pair[1], ["data.save_dir", _save_dir(parsed)])
    return configs


def _files_config(parsed: argparse.Namespace) -> CfgNode:
    return configure(asked_for(parsed, ["data.save_dir", _save_dir(parsed), *parsed.opts, "test.evaluate", "True"]))


def _save_dir(parsed: argparse.Namespace) -> str:
    return parsed.save_dir or "log/compatibility"


def _refuse(config: CfgNode) -> None:
    """What changes how galleries are ranked has no meaning between versions."""
    for key, value in (
        ("test.rerank", config.test.rerank),
        ("cuhk03.use_metric_cuhk03", config.cuhk03.use_metric_cuhk03),
    ):
        if value:
            raise ConfigError(f"{key} is True; compatibility is measured on plain rankings of the whole gallery: False")


def _read_fractions(parsed: argparse.Namespace) -> tuple[float, ...]:
    if not parsed.fractions:
        return FRACTIONS
    texts = parsed.fractions
    try:
        given = [float(text) for text in texts]
    except ValueError as error:
        raise ConfigError(f"--fractions takes numbers from 0 to 1; got {' '.join(texts)}") from error
    return check_fractions(given)
