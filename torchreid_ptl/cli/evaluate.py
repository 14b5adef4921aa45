"""The command that evaluates: a trained model on data sets, or descriptors that somebody wrote into files."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from yacs.config import CfgNode

from ..build.training import test_options
from ..config.loading import ConfigError
from ..data.features import FeatureFiles, save_features
from ..data.names import sources_to_test
from ..engines import ImagePTLEngine, long_progress
from ..evaluation import Descriptors, EvaluationOptions, rank
from ..host import models
from ..report.files import archive_previous, overwritten, require_no_chain, write_config, write_results
from ..report.target import FILES, add_verification, check_shown
from ..runs.train import run
from ..runtime.console_log import log_to
from ..runtime.files import safe_name
from ..runtime.hints import hint
from .arguments import answered, configure, release_keys


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads what to evaluate, and KEY VALUE pairs."""
    parser = argparse.ArgumentParser(
        prog="torchreid_ptl evaluate",
        description="Evaluates a model of torchreid or of this plugin (--model, --weights, --root, -t), or files of "
        "features (--query, --gallery). Leaves results.json, scores of each query as CSV, pictures and report.html. "
        "Keys of docs/config.md can follow as KEY VALUE, for example: test.dist_metric cosine test.rerank True",
    )
    model = parser.add_argument_group("a model")
    model.add_argument("--model", metavar="NAME", help="name of the model, for example osnet_x0_25")
    model.add_argument("--weights", metavar="FILE", help="its weights; or 'imagenet' for those torchreid offers")
    model.add_argument("--root", default="", metavar="DIR", help="folder that holds the data sets")
    model.add_argument("-t", "--targets", nargs="+", metavar="NAME", help="data sets to test on")
    model.add_argument("--config-file", default="", metavar="FILE", help="configuration the model was trained with")
    model.add_argument("--save-features", action="store_true", help="write the descriptors too, as .npz files")
    files = parser.add_argument_group("files of features (.npz or .pt with features, pids, camids and maybe paths)")
    files.add_argument("--query", nargs="+", metavar="FILE", help="descriptors of the queries")
    files.add_argument("--gallery", nargs="+", metavar="FILE", help="of the gallery; in pieces if it is large")
    parser.add_argument("--save-dir", metavar="DIR", help="folder for what is left; log/evaluation by default")
    parser.add_argument(
        "--show", nargs="+", metavar="INDEX", help="queries whose rank lists are shown, instead of the worst"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="configuration keys")
    parsed = parser.parse_args(arguments)
    release_keys(parsed, "targets", "query", "gallery", "show")
    return parsed


def evaluate(parsed: argparse.Namespace) -> None:
    """Evaluates what was asked for.

    Raises:
        ConfigError: neither or both kinds were given, or a part of one is missing.
    """
    kinds = {
        "a model": [name for name in ("model", "weights", "targets", "root") if getattr(parsed, name)],
        "files of features": [name for name in ("query", "gallery") if getattr(parsed, name)],
    }
    if all(kinds.values()):
        got = ", ".join(f"--{name}" for names in kinds.values() for name in names)
        raise ConfigError(f"Evaluate a model, or files of features, not both; got {got}")
    if kinds["files of features"]:
        _evaluate_files(parsed)
    elif parsed.config_file or kinds["a model"]:
        _evaluate_model(parsed)
    else:
        raise ConfigError(
            "Say what to evaluate: --model NAME --weights FILE --root DIR -t DATASET, or --query FILE --gallery FILE"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``tools/evaluate.py``; returns the exit status."""
    parsed = parse(arguments)
    return answered(lambda: evaluate(parsed))


def configure_test(
    parsed: argparse.Namespace, model: str | None, weights: str | None, options: Sequence[str]
) -> CfgNode:
    """The configuration of a test of a model on ``-t``, of which nothing is trained.

    Args:
        parsed: with ``config_file``, ``root``, ``targets`` and ``opts``, which win over everything.
        model: its name; that of the configuration by default.
        weights: their file, or ``'imagenet'``; those of the configuration by default.
        options: KEY VALUE pairs before those of ``opts``.

    Raises:
        ConfigError: an unknown model, or anything that :func:`configure` refuses.
    """
    options = [*options, "test.evaluate", "True", "data.load_train_targets", "False"]
    _check_model(model)
    if model:
        options += ["model.name", model]
    if weights:  # whatever the configuration of the training began or went on from
        from_imagenet = weights == "imagenet"
        options += ["model.load_weights", "" if from_imagenet else weights, "model.resume", ""]
        options += ["model.pretrained", str(from_imagenet), "model.embedding", "0"]  # which goes by the weights
    # No training: a target's own training set is loaded, because torchreid always loads one, in the smallest batches.
    config = configure(asked_for(parsed, [*options, *parsed.opts], parsed.targets))
    config.defrost()
    config.data.sources = sources_to_test(config.data.targets)
    config.train.batch_size = 2 * config.sampler.num_instances
    config.freeze()
    return config


def _check_model(name: str | None) -> None:
    if name and name not in models():
        raise ConfigError(f"Unknown model {name!r}: {hint(name, models())}")


def _evaluate_model(parsed: argparse.Namespace) -> None:
    _check_model(parsed.model)
    if not parsed.weights and not {"model.load_weights", "model.resume"} & set(parsed.opts):
        raise ConfigError("Give the weights of the model: --weights FILE, or --weights imagenet for torchreid's own")
    config = configure_test(parsed, parsed.model, parsed.weights, _common(parsed))
    engine = run(config, _shown(parsed))
    if parsed.save_features:
        _save_features(engine, Path(config.data.save_dir))


def asked_for(
    parsed: argparse.Namespace, options: Sequence[str], names: Sequence[str] | None = None
) -> argparse.Namespace:
    """What the command that trains would have read."""
    sides = {"sources": names and sources_to_test(names), "targets": names, "transforms": None}
    return argparse.Namespace(
        config_file=parsed.config_file, root=parsed.root, resume=False, opts=list(options), **sides
    )


def _common(parsed: argparse.Namespace) -> list[str]:
    lists = ["eval.rank_lists", "worst"] if not parsed.show else []
    return ["data.save_dir", parsed.save_dir or "log/evaluation", *lists]


def _shown(parsed: argparse.Namespace) -> list[int]:
    try:
        return [int(index) for index in parsed.show or []]
    except ValueError as error:
        raise ConfigError(f"--show takes numbers of queries, counted from 0; got {parsed.show}") from error


def _save_features(engine: ImagePTLEngine, folder: Path) -> None:
    for name, sides in engine.descriptors.items():
        for side, found in zip(("query", "gallery"), sides, strict=True):
            path = folder / f"features_{safe_name(name)}_{side}.npz"
            save_features(path, found.features, found.pids, found.camids, found.paths)
            print(f"Wrote: {path}")


def _evaluate_files(parsed: argparse.Namespace) -> None:
    started = time.monotonic()
    missing = [side for side in ("query", "gallery") if not getattr(parsed, side)]
    if missing:
        raise ConfigError(f"Files of features come in two: --{missing[0]} is missing")
    config = configure(asked_for(parsed, [*_common(parsed), *parsed.opts, "test.evaluate", "True"]))
    shown = _shown(parsed)
    sides = {side: _read(getattr(parsed, side), config) for side in ("query", "gallery")}
    check_shown(shown, len(sides["query"].pids), FILES)
    if shown and not (sides["query"].paths and sides["gallery"].paths):
        raise ConfigError("--show needs to know the images: the files of features have no 'paths'")
    folder = Path(config.data.save_dir)
    require_no_chain(folder)
    with log_to(folder, "test"):
        archive_previous(folder, overwritten(folder, (*parsed.query, *parsed.gallery)))
        options = EvaluationOptions.of(**test_options(config), device="cuda" if config.use_gpu else "cpu")
        images = len(sides["query"]), len(sides["gallery"])
        progress = long_progress(sum(images) ** 2 if options.rerank else images[0] * images[1])
        result = rank(sides["query"], sides["gallery"], options, progress=progress)
        print(result.summary(options.ranks))
        tested = add_verification(FILES, sides["query"], sides["gallery"], result, config)
        print(tested.verification or f"No threshold: {tested.reason}")
        write_config(config, folder)
        files = {side: ", ".join(getattr(parsed, side)) for side in sides}
        written = write_results([tested], config, folder, time.monotonic() - started, model=files, shown=shown)
        print("Wrote: " + ", ".join(map(str, written)))


def _read(paths: Sequence[str], config: CfgNode) -> Descriptors:
    files = FeatureFiles(paths)
    features: Any = _Unit(files) if config.test.normalize_feature else files
    return Descriptors(features, files.pids, files.camids, files.paths)


class _Unit:
    """Rows of unit length."""

    def __init__(self, rows: FeatureFiles) -> None:
        self._rows, self.shape = rows, rows.shape

    def __getitem__(self, rows: slice) -> torch.Tensor:
        return F.normalize(self._rows[rows], dim=1)
