"""Versions of a model: descriptors of the same images by each, from networks or from files."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from yacs.config import CfgNode

from ..build.networks import build_model, device_of
from ..build.objectives import model_loss
from ..build.training import build_datamanager
from ..config.loading import ConfigError
from ..data.features import FeatureFileError, FeatureFiles
from ..data.preflight import check_folders
from ..engines import Descriptors, EvaluationOptions, FrozenModel, Preprocessing, extract
from ..evaluation.unit import common_dimension

INDEPENDENT = "independent"
"""The name of the model that was trained without regard to the others."""

_SIDES = ("query", "gallery")


@dataclass(frozen=True)
class Version:
    """What a version of a model makes of the images.

    Attributes:
        name: of the version.
        origin: where its descriptors come from, by name, to be told.
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
    check_dimensions({name: model.dim for name, model in frozen.items()}, rule)
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


def check_dimensions(dims: Mapping[str, int], rule: str) -> None:
    """Makes sure every version can be compared with every one before it.

    Args:
        dims: dimension of the descriptors by version, in time order; any goes for the independent one.
        rule: 'error', 'truncate' or 'pad'.

    Raises:
        ValueError: dimensions differ under 'error'; names the versions.
    """
    names = [name for name in dims if name != INDEPENDENT]
    for newer, older in zip(names[1:], names[:-1], strict=True):
        common_dimension(dims[newer], dims[older], rule, (newer, older))


def check_same_images(versions: Sequence[Version]) -> None:
    """Makes sure all versions described the same images: as many, of the same identities, cameras and files.

    Files are compared below the folder that each version's have in common, so that they may have been moved, and only
    where both versions name them.

    Raises:
        ConfigError: a version differs from the first; says which, and how.
    """
    first = versions[0]
    for version in versions[1:]:
        for target, pair in version.sides.items():
            for side, reference, found in zip(_SIDES, first.sides[target], pair, strict=True):
                difference = _difference(reference, found)
                if difference:
                    raise ConfigError(
                        f"{version.name} has other {side} images than {first.name}: {difference}. All versions must "
                        "describe the same images in the same order"
                    )


def _difference(reference: Descriptors, found: Descriptors) -> str:
    if len(found.pids) != len(reference.pids):
        return f"{len(found.pids)} instead of {len(reference.pids)}"
    columns = {
        "identity": (found.pids.tolist(), reference.pids.tolist()),
        "camera": (found.camids.tolist(), reference.camids.tolist()),
    }
    if found.paths and reference.paths:
        columns["file"] = (_below(found.paths), _below(reference.paths))
    for name, (own, others) in columns.items():
        rows = [row for row, (one, other) in enumerate(zip(own, others, strict=True)) if one != other]
        if rows:
            first = rows[0]
            return f"{name} of {len(rows)} rows, of row {first} {own[first]!r} instead of {others[first]!r}"
    return ""


def _below(paths: Sequence[str]) -> list[str]:
    """Paths below the folder that all of them have in common."""
    folder = os.path.commonprefix([str(Path(path).parent) + os.sep for path in paths]).rpartition(os.sep)[0]
    return [str(Path(path))[len(folder) :].lstrip(os.sep) for path in paths]
