"""Evaluation of a trained model on data sets, or of descriptors from files."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from yacs.config import CfgNode

from ..build.training import test_options
from ..config.loading import COMMAND_LINE, ConfigError, build_config
from ..config.recorded import recorded, tested_file
from ..config.request import Config, Request, configure, request
from ..data.features import FeatureFiles, save_features
from ..data.names import sources_to_test
from ..engines import ImagePTLEngine
from ..evaluation import Descriptors, EvaluationOptions, RankingResult, rank
from ..evaluation.labels import PairLabels
from ..host import models
from ..report.files import begin, require_no_chain, run_outputs, write_results
from ..report.target import FILES, add_verification, check_shown
from ..runtime.console_log import log_to
from ..runtime.device import device_of
from ..runtime.files import safe_name
from ..runtime.hints import hint
from ..runtime.lock import locked
from .places import require_writable
from .run import Run

FOLDER = "log/evaluation"
SIDES = ("query", "gallery")


def evaluate(
    model: str | None = None,
    weights: str | Path | None = None,
    *,
    config: Config = None,
    shown: Sequence[int] = (),
    keep_features: bool = False,
    **overrides: Any,
) -> ImagePTLEngine:
    """Evaluates a trained model on data sets, and writes scores, pictures and a report.

    Args:
        model: its name; by default that of the configuration, or that which the weights record.
        weights: their file, or ``'imagenet'`` for those of torchreid; those of the configuration by default. Size and
            normalisation of the images, metric and options of the descriptors are as they record, unless given.
        config: configuration the model was trained with.
        shown: queries whose rank lists are shown, instead of the worst.
        keep_features: write the descriptors too, as .npz files.
        **overrides: see :func:`~torchreid_ptl.config.request.request`.

    Returns:
        The engine, with its results.

    Raises:
        ConfigError: no weights, an unknown model, or a setting that is not allowed.
        FileNotFoundError: the weights or the folder of a data set are missing.

    Example::

        data = {"root": "reid-data", "targets": ["market1501"]}
        engine = evaluate("osnet_x0_25", "osnet_x0_25_msmt17.pth", data=data)
    """
    _check_model(model)
    asked = _asked(config, overrides, shown)
    if not weights and not {"model.load_weights", "model.resume"} & {key for key, *_ in asked.given}:
        raise ConfigError("Give the weights of the model: --weights FILE, or --weights imagenet for torchreid's own")
    run = Run(configure_test(asked, model, weights))
    return run.execute(shown=shown, more=lambda engine: _save_features(engine, run.folder) if keep_features else [])


def evaluate_files(
    query: Sequence[str],
    gallery: Sequence[str],
    *,
    config: Config = None,
    shown: Sequence[int] = (),
    **overrides: Any,
) -> RankingResult:
    """Evaluates descriptors from files of features, and writes scores, pictures and a report.

    Args:
        query: files of the queries.
        gallery: files of the gallery.
        config: configuration of the test.
        shown: queries whose rank lists are shown, instead of the worst.
        **overrides: see :func:`~torchreid_ptl.config.request.request`.

    Raises:
        ConfigError: a side is missing, or a setting that is not allowed.
        FeatureFileError: a file cannot be used.
    """
    started = time.monotonic()
    files = dict(zip(SIDES, (query, gallery), strict=True))
    missing = [side for side, paths in files.items() if not paths]
    if missing:
        raise ConfigError(f"Files of queries and of the gallery are needed: --{missing[0]} is missing")
    settings = configure(_asked(config, overrides, shown).last(("test.evaluate", True, COMMAND_LINE)))
    sides = {side: _read(paths, settings.test.normalize_feature) for side, paths in files.items()}
    check_shown(shown, len(sides["query"].pids), FILES)
    if shown and not (sides["query"].paths and sides["gallery"].paths):
        raise ConfigError("--show needs to know the images: the files of features have no 'paths'")
    folder = Path(settings.data.save_dir)
    require_no_chain(folder)
    require_writable("data.save_dir", folder)
    with locked(folder), log_to(folder, "test"):
        say_labels(sides["query"], sides["gallery"])
        begin(folder, settings, run_outputs(folder, (*query, *gallery)))
        options = EvaluationOptions.of(**test_options(settings), device=device_of(settings.use_gpu))
        result = rank(sides["query"], sides["gallery"], options)
        print(result.summary(options.ranks))
        target = add_verification(FILES, sides["query"], sides["gallery"], result, settings)
        print(target.verification or f"No threshold: {target.reason}")
        names = {side: ", ".join(map(str, paths)) for side, paths in files.items()}
        written = write_results([target], settings, folder, time.monotonic() - started, model=names, shown=shown)
        print("Wrote: " + ", ".join(map(str, written)))
    return result


def _save_features(engine: ImagePTLEngine, folder: Path) -> list[Path]:
    written = []
    for name, found in engine.descriptors.items():
        for side, each in zip(SIDES, found, strict=True):
            written.append(folder / f"features_{safe_name(name)}_{side}.npz")
            save_features(written[-1], each.features, each.pids, each.camids, each.paths)
    return written


def say_labels(query: Descriptors, gallery: Descriptors) -> None:
    """Says which queries of files count in no score, and that identity -1 in them is somebody."""
    labels = PairLabels(query, gallery)
    junk = [int((pids == -1).sum()) for pids in (labels.query_pids, labels.gallery_pids)]
    if any(junk):
        print(
            f"{junk[0]} queries and {junk[1]} gallery rows have identity -1. In files of features this is an identity "
            "like any other; Market-1501 means nobody by it and torchreid leaves such images out: to do so, remove them"
        )
    lost = labels.without_match()
    if len(lost):
        print(f"{len(lost)} of {len(labels.query_pids)} queries count in no score: {labels.explain(lost)}")


def configure_test(asked: Request, model: str | None, weights: str | Path | None) -> CfgNode:
    """The configuration of a test of a model, without training.

    Args:
        asked: configuration and settings, which win over the other arguments.
        model: its name; that of the configuration by default.
        weights: their file, or ``'imagenet'``; those of the configuration by default.

    Raises:
        ConfigError: an unknown model, or a setting that is not allowed.
    """
    _check_model(model)
    settings: dict[str, Any] = {"test.evaluate": True, "data.load_train_targets": False}
    if model:
        settings["model.name"] = model
    if weights:  # in place of those of the training
        imagenet = weights == "imagenet"
        settings |= {"model.load_weights": "" if imagenet else str(weights), "model.resume": ""}
        settings |= {"model.pretrained": imagenet, "model.embedding": 0}  # 0: as in the weights
    asked = asked.first(*((key, value, COMMAND_LINE) for key, value in settings.items()))
    entries = [*asked.files, *asked.given]
    targets = build_config(entries).data.targets
    config = configure(asked.last(("data.sources", sources_to_test(targets), COMMAND_LINE)))  # nothing is trained
    file = tested_file(config)
    if Path(file).is_file() and "model.name" not in {*recorded(config), *(key for key, *_ in entries)}:
        raise ConfigError(f"{file} does not record its model: give --model NAME; torchreid_ptl models lists the names")
    return config


def _asked(config: Config, overrides: Mapping[str, Any], shown: Sequence[int]) -> Request:
    """What is asked for, before it the defaults of an evaluation."""
    lists: list[Any] = [] if shown else [("eval.rank_lists", "worst", COMMAND_LINE)]
    return request(config, overrides).first(("data.save_dir", FOLDER, COMMAND_LINE), *lists)


def _check_model(name: str | None) -> None:
    if name and name not in models():
        raise ConfigError(f"Unknown model {name!r}: {hint(name, models())}")


def _read(paths: Sequence[str], normalize: bool) -> Descriptors:
    files = FeatureFiles(paths)
    features: Any = _Normalized(files) if normalize else files
    return Descriptors(features, files.pids, files.camids, files.paths)


class _Normalized:
    """Rows of length 1."""

    def __init__(self, rows: FeatureFiles) -> None:
        self._rows, self.shape = rows, rows.shape

    def __getitem__(self, rows: slice) -> torch.Tensor:
        return F.normalize(self._rows[rows], dim=1)
