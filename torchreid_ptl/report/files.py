"""Files of a run: results.json, config.yaml, scores of each query, pictures, report.html."""

import platform
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from yacs.config import CfgNode

from .. import host
from ..config.loading import ConfigError, flatten, to_dict
from ..data.training_list import NAME as TRAINING_LIST
from ..data.training_list import keep_training_list, training_list
from ..engines import CHECKPOINTS
from ..evaluation import Descriptors
from ..runtime.checkpoint import checkpoints
from ..runtime.device import device_of
from ..runtime.files import archive, replace_file, safe_name
from ..runtime.json_text import as_json
from ..runtime.tables import as_csv
from ..version import __version__
from .target import TargetResult, chosen_rows, has_images, path_of, settings_of_test, target_page
from .visual import Report, TargetReport, draw_cmc, draw_training_curves, save_figure, save_rank_list, save_report

WRITTEN_BY_TRAINING = (CHECKPOINTS, TRAINING_LIST)
"""What a training writes into the folder of its run and a test does not overwrite."""
RESULTS = "results.json"
"""The scores; written last of all, so that a folder that has them is complete."""
REPORT = "report.html"
"""The page to open first."""
RECORD = "chain.json"
"""The file that marks the folder of a chain."""
COMPARISON = "comparison"
"""The folder, below that of a compatible training, with the comparison of its old and new model."""


def require_no_chain(folder: Path) -> None:
    """Makes sure a single run does not write into the folder of a chain.

    Raises:
        ConfigError: the folder is a chain's.
    """
    if (folder / RECORD).exists():
        raise ConfigError(
            f"{folder} holds a chain ({RECORD}) and this is a single run: choose another data.save_dir, or move the "
            "chain elsewhere"
        )


def run_outputs(folder: Path, needed: Sequence[str | Path] = ()) -> list[str]:
    """Names of outputs of an earlier run that a new one would overwrite and does not read (`needed`).

    Those in :data:`WRITTEN_BY_TRAINING` are not among them.
    """
    kept = {Path(path).resolve() for path in needed}
    pictures = ("curves", "cmc", "roc_*", "scores_*", "ranklist_*", "backfill_*")
    patterns = [*(f"{name}.png" for name in pictures), "queries_*.csv", "features_*.npz", "matrix_*.*"]
    found = [path.name for pattern in patterns for path in folder.glob(pattern)]
    names = [RESULTS, COMPARISON, "config.yaml", REPORT, *found]
    return [name for name in names if (folder / name).resolve() not in kept]


def archive_previous(folder: Path, names: Iterable[str]) -> None:
    """Archives outputs of an earlier run, and prints where results go."""
    aside = archive(folder, names)
    print(f"Moved what an earlier run left to {aside}" if aside else f"Writing to {folder}")


def begin(folder: Path, config: CfgNode, names: Iterable[str]) -> None:
    """Archives outputs of an earlier run, and writes the settings of a new one.

    What the same work left, stopped after its settings and before its results, is overwritten in place.
    """
    path, names = folder / "config.yaml", list(names)
    finished = [name for name in (RESULTS, CHECKPOINTS) if name in names and (folder / name).exists()]
    same = path.is_file() and _without_resume(path.read_text("utf-8", "replace")) == _without_resume(config.dump())
    if same and not finished:
        print(f"Writing to {folder}, where the same work was stopped before")
    else:
        archive_previous(folder, names)
    write_config(config, folder)


def _without_resume(text: str) -> str:
    return re.sub(r"(?m)^  resume: .*\n", "", text)


def write_config(config: CfgNode, folder: Path) -> None:
    """Writes the final configuration to ``config.yaml``, which ``--config-file`` takes again."""
    replace_file(folder / "config.yaml", config.dump().encode())


def prepare_folder(config: CfgNode, datamanager: Any) -> None:
    """Archives what a new run would overwrite in its folder, then writes its settings and the list of its images.

    A run that goes on in its folder keeps all but the mark that it is finished.

    Raises:
        ValueError: a training is resumed with other images or classes than it began with.
    """
    folder, trains, resume = Path(config.data.save_dir), not config.test.evaluate, config.model.resume
    if resume == "auto" or resume and Path(resume).resolve().parent == (folder / CHECKPOINTS).resolve():
        for place in (folder, folder / COMPARISON):
            (place / RESULTS).unlink(missing_ok=True)
    else:
        begin(folder, config, [*run_outputs(folder), *(WRITTEN_BY_TRAINING if trains else ())])
    if trains:
        begun = bool(checkpoints(folder / CHECKPOINTS)) if resume == "auto" else bool(resume)
        images = training_list(datamanager.train_loader.dataset.dataset.data, config.data.root)
        keep_training_list(folder / TRAINING_LIST, images, begun)


def write_results(
    targets: Sequence[TargetResult],
    config: CfgNode,
    folder: Path,
    seconds: float,
    *,
    model: dict[str, Any],
    bad_images: Iterable[str] = (),
    splits: Mapping[str, Any] | None = None,
    history: dict[str, Any] | None = None,
    shown: Sequence[int] = (),
    more: Callable[[], Sequence[Path]] = tuple,
) -> list[Path]:
    """Writes all results of a test on each data set; returns the files, in the order written: ``results.json`` last.

    ``seconds`` is the wall-clock time; ``model`` has facts about the model, or the files that were evaluated instead;
    ``bad_images`` could not be read and were left out; ``splits`` are those of data sets with several;
    ``history`` holds the figures of the training, for curves; ``shown`` are queries whose rank lists are shown instead
    of those that ``eval.rank_lists`` chooses; ``more`` writes what else belongs to the results, and returns its files.
    """
    facts = provenance(config, seconds)
    content = {
        "targets": {tested.name: _scores(tested, config) for tested in targets},
        "model": model,
        "epochs": 0 if config.test.evaluate else config.train.max_epoch,
        "bad_images": sorted(set(bad_images)),
        **({"splits": splits} if splits else {}),
    }
    written = [_write_scores(tested, folder) for tested in targets]
    pages = [target_page(tested, config, shown) for tested in targets]
    written += _draw_pictures(targets, pages, config, folder, history or {}, shown)
    if targets:
        names = ", ".join(tested.name for tested in targets)
        title = f"{config.model.name} on {names}" if model.get("name") else "Features"
        shown_facts = {**{f"model: {key}": value for key, value in flatten(model)}, **facts, **settings_of_test(config)}
        written.append(write_page(folder, Report(title, pages), shown_facts, config))
    written += more()
    return [*written, write_json(folder, content, facts, config)]


def write_json(folder: Path, content: Mapping[str, Any], facts: Mapping[str, Any], config: CfgNode) -> Path:
    """Writes ``results.json``, the last file of a folder: the content, the provenance and the configuration."""
    path = folder / RESULTS
    everything = {**content, "provenance": facts, "config": to_dict(config)}
    replace_file(path, as_json(everything).encode())
    return path


def write_queries(path: Path, query: Descriptors, columns: Mapping[str, Sequence[object]]) -> Path:
    """Writes a CSV file with a line for each query: its number, image, identity, camera, and the columns."""
    images = [path_of(query, index) for index in range(len(query))]
    rows = zip(range(len(query)), images, query.pids, query.camids, *columns.values(), strict=True)
    text = as_csv([["query", "path", "pid", "camid", *columns], *rows])
    replace_file(path, text.encode("utf-8", "backslashreplace"))
    return path


def write_page(folder: Path, report: Report, facts: Mapping[str, Any], config: CfgNode) -> Path:
    """Writes ``report.html`` with the facts and the settings ``eval.*``."""
    settings = {**facts, **{f"eval.{key}": value for key, value in config.eval.items()}}
    path = folder / REPORT
    save_report(path, replace(report, facts={key: str(value) for key, value in settings.items()}))
    return path


def provenance(config: CfgNode, seconds: float) -> dict[str, Any]:
    """Versions, seed, device and time, by which a run can be repeated."""
    on_gpu = device_of(config.use_gpu).type == "cuda"
    return {
        "torchreid_ptl": __version__,
        "torchreid": host.version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads",
        "seed": config.train.seed,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": round(seconds, 1),
    }


def _scores(tested: TargetResult, config: CfgNode) -> dict[str, Any]:
    ranks = [rank for rank in config.test.ranks if rank <= len(tested.gallery.pids)]
    if len(ranks) < len(config.test.ranks):
        print(f"test.ranks beyond the {len(tested.gallery.pids)} gallery images of {tested.name} are left out")
    found = tested.verification
    return {
        **tested.result.as_dict(ranks),
        "gallery": len(tested.gallery.pids),
        "verification": {"why_none": tested.reason} if found is None else found.as_dict(),
    }


def _write_scores(tested: TargetResult, folder: Path) -> Path:
    """Scores of each query, empty where it has no match."""
    result = tested.result
    matched = result.first_hit > 0
    columns = {
        name: [f"{score:.6f}" if valid else "" for score, valid in zip(getattr(result, name), matched, strict=True)]
        for name in ("average_precision", "inverse_negative_penalty")
    }
    return write_queries(
        folder / f"queries_{safe_name(tested.name)}.csv",
        tested.query,
        {**columns, "first_hit": [hit or "" for hit in result.first_hit.tolist()]},
    )


def _draw_pictures(
    targets: Sequence[TargetResult],
    pages: Sequence[TargetReport],
    config: CfgNode,
    folder: Path,
    history: dict[str, Any],
    shown: Sequence[int],
) -> list[Path]:
    drawn = []
    if history:
        drawn.append(folder / "curves.png")
        save_figure(drawn[-1], draw_training_curves(history))
    if targets:
        drawn.append(folder / "cmc.png")
        save_figure(drawn[-1], draw_cmc({tested.name: tested.result.cmc for tested in targets}))
    for tested, page in zip(targets, pages, strict=True):
        name = safe_name(tested.name)
        for kind, (_, png) in zip(("scores", "roc"), page.pictures[1:], strict=False):
            drawn.append(folder / f"{kind}_{name}.png")
            replace_file(drawn[-1], png)
        if has_images(tested) and (config.test.visrank or len(shown)):
            drawn.append(folder / f"ranklist_{name}.png")
            how, rows = chosen_rows(tested, config, shown)
            save_rank_list(drawn[-1], rows, title=f"{tested.name}: {how}")
    return drawn
