"""Versions of a model: descriptors of the same images by each, from networks or from files."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from yacs.config import CfgNode

from ..build.networks import build_model, device_of
from ..build.objectives import model_loss
from ..build.training import build_datamanager
from ..data.features import FeatureFileError, FeatureFiles
from ..data.preflight import check_folders
from ..engines import FrozenModel, Preprocessing, extract, long_progress
from ..evaluation import Descriptors, EvaluationOptions, VersionComparison, compare
from ..evaluation.backfill import FRACTIONS
from ..evaluation.dimensions import check_dimensions
from ..report.compatibility_files import write_comparison
from ..report.compatibility_page import SHOWN
from ..report.files import archive_previous, overwritten, write_config

INDEPENDENT = "independent"
"""The name of the model that was trained without regard to the others."""

_SIDES = ("query", "gallery")


@dataclass(frozen=True)
class Version:
    """Descriptors of the images by one version of a model.

    Attributes:
        name: of the version.
        origin: where its descriptors come from, by name, for the report.
        sides: by data set, descriptors of the queries and of the gallery.
    """

    name: str
    origin: Mapping[str, str]
    sides: dict[str, tuple[Descriptors, Descriptors]] = field(default_factory=dict)

    @property
    def bad_images(self) -> set[str]:
        """Images that could not be read and were left out."""
        return {path for pair in self.sides.values() for side in pair for path in side.bad_images}


def read_files(name: str, paths: Sequence[str], target: str) -> Version:
    """A version whose descriptors are in files: one of the queries, one or more of the gallery.

    Args:
        name: of the version.
        paths: the files, the queries' first.
        target: what the images are called.

    Raises:
        FileNotFoundError: a file is missing.
        FeatureFileError: a file cannot be used, or queries and gallery have different dimensions.
    """
    query, gallery = FeatureFiles(paths[:1]), FeatureFiles(paths[1:])
    if query.shape[1] != gallery.shape[1]:
        raise FeatureFileError(
            f"{name}: {paths[0]} has {query.shape[1]} dimensions and the gallery in {', '.join(paths[1:])} "
            f"{gallery.shape[1]}; both must be by one model"
        )
    sides = [Descriptors(side, side.pids, side.camids, side.paths) for side in (query, gallery)]
    origin = {"query": paths[0], "gallery": ", ".join(paths[1:])}
    return Version(name, origin, {target: (sides[0], sides[1])})


def check_weights(configs: Mapping[str, CfgNode]) -> None:
    """Makes sure every version has its weights and its data sets, before anything is loaded.

    Raises:
        FileNotFoundError: a file or the folder of a data set is missing; names the version.
    """
    for name, config in configs.items():
        path = config.model.load_weights
        if path and not Path(path).is_file():
            raise FileNotFoundError(f"There is no file of weights {path} ({name}, {config.model.name})")
    first = next(iter(configs.values()))
    check_folders(first.data.root, first.data.targets)


def load_models(configs: Mapping[str, CfgNode], style: Preprocessing, rule: str) -> dict[str, FrozenModel]:
    """The networks of all versions, so that nothing fails when the first has described its images.

    Args:
        configs: of the test of each version, by its name.
        style: how images will come.
        rule: what to do where dimensions differ.

    Raises:
        CheckpointError: weights of another model.
        ValueError: dimensions differ, and there is no rule for it.
    """
    frozen = {}
    for name, config in configs.items():
        print(f"Version {name}: {config.model.name}")
        network = build_model(config, 1, model_loss(config))
        frozen[name] = FrozenModel(network, style, style, device_of(config), config.train.channels_last)
    check_dimensions({name: model.dim for name, model in frozen.items() if name != INDEPENDENT}, rule)
    return frozen


def describe(configs: Mapping[str, CfgNode], rule: str) -> list[Version]:
    """Runs the images of all data sets through the network of each version, once.

    Args:
        configs: of the test of each version, by its name; alike but for the model.
        rule: what to do where dimensions differ.

    Raises:
        CheckpointError: weights of another model; nothing was described.
        ValueError: dimensions differ without a rule, or a data set cannot be used; nothing was described.
    """
    config = next(iter(configs.values()))
    datamanager = build_datamanager(config)
    models = load_models(configs, Preprocessing.of(datamanager), rule)
    options = EvaluationOptions.of(flip=config.eval.flip, precision=config.eval.precision)
    versions = []
    for name, own in configs.items():
        model = models.pop(name)
        origin = {"model": own.model.name, "weights": own.model.load_weights or "imagenet"}
        version = Version(name, origin)
        for target, loaders in datamanager.test_loader.items():
            sides = [extract(model, loaders[s], f"{name}, {target} {s}", model.device, options) for s in _SIDES]
            version.sides[target] = (sides[0], sides[1])
        versions.append(version)
    return versions


def compare_and_write(
    versions: Sequence[Version],
    config: CfgNode,
    folder: Path,
    rule: str,
    *,
    started: float,
    fractions: tuple[float, ...] = FRACTIONS,
    inputs: Sequence[str] = (),
) -> list[Path]:
    """Compares versions on all data sets, prints the results and writes them.

    Args:
        versions: the oldest first; the one called :data:`INDEPENDENT` is the newest, trained without regard to others.
        config: of the test.
        folder: where; what an earlier comparison wrote there is archived, when the new results are there.
        rule: what to do where dimensions differ.
        started: when the work began, by ``time.monotonic()``.
        fractions: parts of the gallery, re-encoded for the backfill curve.
        inputs: files that are read and stay in place.

    Returns:
        The files.
    """
    targets = [_compare(target, versions, config, rule, fractions) for target in versions[0].sides]
    folder.mkdir(parents=True, exist_ok=True)
    archive_previous(folder, overwritten(folder, inputs))
    write_config(config, folder)
    return write_comparison(
        targets,
        {version.name: version.origin for version in versions},
        config,
        folder,
        time.monotonic() - started,
        settings={"dimensions": rule, "fractions": list(fractions)},
        bad_images={path for version in versions for path in version.bad_images},
    )


def _compare(
    target: str, versions: Sequence[Version], config: CfgNode, rule: str, fractions: tuple[float, ...]
) -> VersionComparison:
    sides = {version.name: version.sides[target] for version in versions}
    independent = sides.pop(INDEPENDENT, None)
    query, gallery = next(iter(sides.values()))
    options = EvaluationOptions(
        no_match=config.eval.no_match,
        memory_mb=config.eval.memory_mb,
        seed=config.train.seed,
        return_top=SHOWN,
        device="cuda" if config.use_gpu else "cpu",
    )
    found = compare(
        sides,
        options,
        name=target,
        independent=independent,
        fractions=fractions,
        dimensions=rule,
        progress=long_progress(len(query) * len(gallery), f"{target}: "),
    )
    print(found)
    return found
