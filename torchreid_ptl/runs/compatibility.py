"""Comparison of versions of a model on each other's galleries, from networks or from files."""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from ..build.networks import build_model
from ..build.objectives import model_loss
from ..build.training import build_datamanager
from ..config.loading import COMMAND_LINE, ConfigError
from ..config.recorded import describe_use, origin_of, used
from ..config.request import Config, configure, request
from ..data.features import FeatureFileError, FeatureFiles
from ..data.preflight import check_folders
from ..engines import OldModel, Preprocessing, long_progress
from ..evaluation import Descriptors, VersionComparison, compare
from ..evaluation.backfill import FRACTIONS, check_fractions
from ..evaluation.descriptors import check_dimensions, require_same_images
from ..report.target import FILES
from ..runtime.console_log import log_to
from ..runtime.device import device_of
from ..runtime.lock import locked
from ..runtime.memory import freed_memory_kept
from ..runtime.seeding import seed_everything
from .comparison import INDEPENDENT, comparison_options, own_scores, write_all
from .evaluate import SIDES, configure_test, say_labels

FOLDER = "log/compatibility"
_OF_A_VERSION = ("model.name", "model.load_weights", "model.resume", "model.pretrained")


@dataclass(frozen=True)
class Version:
    """The descriptors of a version of a model.

    Attributes:
        origin: where its descriptors come from, and how images were described, by name.
        sides: by data set, descriptors of the queries and of the gallery.
    """

    origin: Mapping[str, Any]
    sides: dict[str, tuple[Descriptors, Descriptors]] = field(default_factory=dict)


def compare_models(
    versions: Mapping[str, Sequence[str]],
    *,
    independent: Sequence[str] | None = None,
    config: Config = None,
    dimensions: str = "error",
    fractions: Sequence[float] = FRACTIONS,
    **overrides: object,
) -> dict[str, VersionComparison]:
    """Compares versions of a model on data sets, and writes scores, pictures and a report.

    Args:
        versions: (model, weights) of each, the oldest first, by name.
        independent: (model, weights) of the newest version trained without the others, for the gain.
        config: configuration of the images and the test.
        dimensions: where those of versions differ: ``'error'``, ``'truncate'`` or ``'pad'``.
        fractions: parts of the gallery that are re-encoded.
        **overrides: see :func:`~torchreid_ptl.config.request.request`.

    Returns:
        The comparison on each data set.

    Raises:
        ConfigError: fewer than two versions, names that do not fit, or a setting that is not allowed.
        FileNotFoundError: weights, or the folder of a data set, are missing; nothing was computed.
    """
    asked, parts = request(config, overrides), check_fractions(fractions)
    groups = _named(versions, independent)
    taken = [key for key, *_ in asked.given if key in _OF_A_VERSION]
    if taken:
        raise ConfigError(f"{taken[0]} is given as KEY VALUE; versions have their own: --version MODEL WEIGHTS")
    configs = {}
    for name, pair in groups.items():
        if len(pair) != 2:
            raise ConfigError(f"{name}: a model comes as MODEL WEIGHTS; got {' '.join(pair)}")
        configs[name] = configure_test(asked.first(("data.save_dir", FOLDER, COMMAND_LINE)), *pair)
    newest = configs[list(versions)[-1]]
    _check_files(configs)
    return _compare(newest, lambda: _describe(configs, dimensions), dimensions, parts)


def compare_files(
    versions: Mapping[str, Sequence[str]],
    *,
    independent: Sequence[str] | None = None,
    config: Config = None,
    dimensions: str = "error",
    fractions: Sequence[float] = FRACTIONS,
    **overrides: object,
) -> dict[str, VersionComparison]:
    """As :func:`compare_models`, of descriptors in files.

    Args:
        versions: files of each, those of the queries first, then one or more of the gallery.
        independent: likewise.
        config: configuration of the test.
        dimensions: see :func:`compare_models`.
        fractions: see :func:`compare_models`.
        **overrides: see :func:`~torchreid_ptl.config.request.request`.
    """
    asked, parts = request(config, overrides), check_fractions(fractions)
    groups = _named(versions, independent)
    found = {name: _read(name, paths) for name, paths in groups.items()}
    dims = {name: FeatureFiles(groups[name][:1]).shape[1] for name in versions}
    check_dimensions(dims, dimensions)
    require_same_images({name: version.sides[FILES] for name, version in found.items()})
    asked = asked.first(("data.save_dir", FOLDER, COMMAND_LINE)).last(("test.evaluate", True, COMMAND_LINE))
    files = [path for paths in groups.values() for path in paths]
    say_labels(*next(iter(found.values())).sides[FILES])
    return _compare(configure(asked), lambda: found, dimensions, parts, files)


def _named(versions: Mapping[str, Sequence[str]], independent: Sequence[str] | None) -> dict[str, Sequence[str]]:
    if len(versions) < 2:
        raise ConfigError(f"Two versions or more are compared, the oldest first; got {len(versions)}")
    wrong = [name for name in versions if name == INDEPENDENT or not re.fullmatch(r"[\w.-]+", name)]
    if wrong:
        raise ConfigError(
            f"--names become names of files: letters, digits, '.', '_' and '-', and {INDEPENDENT!r} is taken; got "
            f"{wrong[0]!r}"
        )
    return {**versions, INDEPENDENT: independent} if independent else dict(versions)


def _check_files(configs: Mapping[str, CfgNode]) -> None:
    for name, config in configs.items():
        path = config.model.load_weights
        if path and not Path(path).is_file():
            raise FileNotFoundError(f"There is no file of weights {path} ({name}, {config.model.name})")
    first = next(iter(configs.values()))
    check_folders(first.data.root, first.data.targets)


def _compare(
    config: CfgNode,
    described: Callable[[], Mapping[str, Version]],
    dimensions: str,
    fractions: tuple[float, ...],
    inputs: Sequence[str] = (),
) -> dict[str, VersionComparison]:
    """Describes the images by all versions, compares and writes; ``inputs`` are read and stay in place."""
    started, folder, found = time.monotonic(), Path(config.data.save_dir), {}
    _refuse(config)
    seed_everything(config.train.seed)
    with locked(folder), freed_memory_kept(), log_to(folder, "test"):
        versions = described()
        targets = list(next(iter(versions.values())).sides)
        for target in targets:
            require_same_images({name: version.sides[target] for name, version in versions.items()})
        for target in targets:
            sides = {name: version.sides[target] for name, version in versions.items()}
            independent, first = sides.pop(INDEPENDENT, None), next(iter(sides.values()))
            found[target] = compare(
                sides,
                comparison_options(config),
                name=target,
                independent=independent,
                fractions=fractions,
                dimensions=dimensions,
                progress=long_progress(len(first[0]) * len(first[1]), f"{target}: "),
            )
        written = write_all(
            found,
            {name: version.origin for name, version in versions.items()},
            config,
            folder,
            dimensions,
            started=started,
            fractions=fractions,
            bad_images=_bad_images(versions.values()),
            inputs=inputs,
        )
        print("Wrote: " + ", ".join(map(str, written)))
    return found


def _bad_images(versions: Iterable[Version]) -> set[str]:
    return {path for each in versions for pair in each.sides.values() for side in pair for path in side.bad_images}


def _describe(configs: Mapping[str, CfgNode], rule: str) -> dict[str, Version]:
    """Describes the images of all data sets by each version, in its own way; all networks are loaded first."""
    datamanager, models = build_datamanager(next(iter(configs.values()))), {}
    for name, own in configs.items():
        print(f"Version {name}: {own.model.name}. {describe_use(own)}")
        models[name] = _model(own)
    check_dimensions({name: model.dim for name, model in models.items() if name != INDEPENDENT}, rule)
    versions = {}
    for name, own in configs.items():
        found = _sides(name, models.pop(name), own, datamanager)
        origin = {"model": own.model.name, "weights": own.model.load_weights or "imagenet", "settings": used(own)}
        origin |= {"settings_from": origin_of(own), "alone": own_scores(name, own, found)}
        versions[name] = Version(origin, found)
    return versions


def _sides(name: str, model: OldModel, config: CfgNode, datamanager: Any) -> dict[str, tuple[Descriptors, Descriptors]]:
    found, options, data = {}, comparison_options(config), config.data
    for target, loaders in datamanager.test_loader.items():
        query, gallery = (
            model.describe(
                loaders[side].dataset.dataset.data,
                f"{name}, {target} {side}",
                options,
                batch_size=config.test.batch_size,
                workers=data.workers,
                on_bad_image=data.on_bad_image,
            )
            for side in SIDES
        )
        found[target] = (query, gallery)
    return found


def _model(config: CfgNode) -> OldModel:
    data = config.data
    network = build_model(config, 1, model_loss(config))
    style = Preprocessing(data.height, data.width, tuple(data.norm_mean), tuple(data.norm_std))
    return OldModel(network, style, device_of(config.use_gpu), channels_last=config.train.channels_last)


def _read(name: str, paths: Sequence[str]) -> Version:
    if len(paths) < 2:
        raise ConfigError(f"{name}: features come as QUERY GALLERY, or QUERY GALLERY GALLERY ...; got {list(paths)}")
    query, gallery = FeatureFiles(paths[:1]), FeatureFiles(paths[1:])
    if query.shape[1] != gallery.shape[1]:
        raise FeatureFileError(
            f"{name}: {paths[0]} has {query.shape[1]} dimensions and the gallery in {', '.join(paths[1:])} "
            f"{gallery.shape[1]}; both must be by one model"
        )
    sides = [Descriptors(side, side.pids, side.camids, side.paths) for side in (query, gallery)]
    return Version({"query": str(paths[0]), "gallery": ", ".join(map(str, paths[1:]))}, {FILES: (sides[0], sides[1])})


def _refuse(config: CfgNode) -> None:
    """Re-ranking and the single-gallery-shot protocol are not defined between versions."""
    for key, value in (
        ("test.rerank", config.test.rerank),
        ("cuhk03.use_metric_cuhk03", config.cuhk03.use_metric_cuhk03),
    ):
        if value:
            raise ConfigError(f"{key} is True; compatibility is measured on plain rankings: set it to False")
