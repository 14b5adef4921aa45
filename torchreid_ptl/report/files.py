"""What a run leaves beside its checkpoints: results.json, config.yaml, scores of each query, pictures, report.html."""

import csv
import io
import json
import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from yacs.config import CfgNode

from .. import host
from ..config.loading import ConfigError, to_dict
from ..data.training_list import NAME as TRAINING_LIST
from ..data.training_list import keep_training_list, training_list
from ..engines import CHECKPOINTS
from ..runtime.checkpoint import epoch_checkpoints
from ..runtime.files import archive, replace_file, safe_name
from ..version import __version__
from .target import TargetResult, chosen_rows, path_of
from .test_page import histogram_of, roc_of, write_report
from .visual import save_cmc, save_rank_list, save_roc, save_score_histogram, save_training_curves

LEFT_BY_TRAINING = (CHECKPOINTS, TRAINING_LIST)
"""What a training leaves in the folder of its run and a test does not overwrite."""
RECORD = "chain.json"
"""The file by which the folder of a chain is known."""
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


def run_outputs(folder: Path) -> list[str]:
    """Names of what an earlier run left in a folder and a new one would overwrite; :data:`LEFT_BY_TRAINING` aside."""
    patterns = (
        "curves.png",
        "cmc.png",
        "roc_*.png",
        "scores_*.png",
        "ranklist_*.png",
        "queries_*.csv",
        "features_*.npz",
        "matrix_*.*",
        "backfill_*.png",
    )
    return [
        COMPARISON,
        "results.json",
        "config.yaml",
        "report.html",
        *(path.name for p in patterns for path in folder.glob(p)),
    ]


def overwritten(folder: Path, needed: Sequence[str | Path] = ()) -> list[str]:
    """Names of what an earlier run left and a new one would overwrite, but for files that it reads."""
    kept = {Path(path).resolve() for path in needed}
    return [name for name in run_outputs(folder) if (folder / name).resolve() not in kept]


def archive_previous(folder: Path, names: Iterable[str]) -> None:
    """Moves aside what a new run would overwrite, and says where everything goes."""
    aside = archive(folder, names)
    print(f"Moved what an earlier run left to {aside}" if aside else f"Writing to {folder}")


def write_config(config: CfgNode, folder: Path) -> None:
    """Writes the final configuration to ``config.yaml``, which ``--config-file`` takes again."""
    replace_file(folder / "config.yaml", config.dump().encode())


def begin(config: CfgNode, datamanager: Any) -> None:
    """Readies the folder of a run: what a new one would overwrite is moved, then its settings and images are written.

    Args:
        config: the final configuration.
        datamanager: its images.

    Raises:
        ValueError: a training goes on, with other images or classes than it began with.
    """
    folder, trains = Path(config.data.save_dir), not config.test.evaluate
    if not config.model.resume:
        archive_previous(folder, [*run_outputs(folder), *(LEFT_BY_TRAINING if trains else ())])
        write_config(config, folder)
    if trains:
        resume = config.model.resume
        begun = bool(epoch_checkpoints(folder / CHECKPOINTS)) if resume == "auto" else bool(resume)
        images = training_list(datamanager.train_loader.dataset.dataset.data, config.data.root)
        keep_training_list(folder / TRAINING_LIST, images, begun)


def leave(
    targets: Sequence[TargetResult],
    config: CfgNode,
    folder: Path,
    seconds: float,
    *,
    model: dict[str, Any],
    bad_images: Sequence[str] = (),
    history: dict[str, Any] | None = None,
    shown: Sequence[int] = (),
) -> list[Path]:
    """Writes everything a test leaves.

    Args:
        targets: what was tested.
        config: the final configuration.
        folder: ``data.save_dir``.
        seconds: wall-clock time of the run.
        model: what is to be said of the model, or of the files that were evaluated instead.
        bad_images: images that could not be read and were left out.
        history: figures of the training, for curves.
        shown: queries whose rank lists are shown, instead of those that ``eval.rank_lists`` chooses.

    Returns:
        The files, the results first.
    """
    facts = provenance(config, seconds)
    content = {
        "targets": {tested.name: _scores(tested, config) for tested in targets},
        "model": model,
        "epochs": 0 if config.test.evaluate else config.train.max_epoch,
        "bad_images": sorted(set(bad_images)),
        "provenance": facts,
        "config": to_dict(config),
    }
    path = folder / "results.json"
    replace_file(path, (json.dumps(content, indent=2) + "\n").encode())
    written = [path, *(_write_queries(tested, folder) for tested in targets)]
    written += _draw_pictures(targets, config, folder, history or {}, shown)
    said = {**{f"model: {key}": value for key, value in model.items()}, **facts}
    title = (
        f"{config.model.name} on {', '.join(tested.name for tested in targets)}" if model.get("name") else "Features"
    )
    return [*written, write_report(folder, title, targets, config, said, shown)] if targets else written


def provenance(config: CfgNode, seconds: float) -> dict[str, Any]:
    """Versions, seed, device and time: what somebody needs to repeat a run."""
    on_gpu = config.use_gpu and torch.cuda.is_available()
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


def _write_queries(tested: TargetResult, folder: Path) -> Path:
    """A line for each query; empty scores where it has no match."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["query", "path", "pid", "camid", "average_precision", "inverse_negative_penalty", "first_hit"])
    result = tested.result
    for index, (pid, camid) in enumerate(zip(tested.query.pids.tolist(), tested.query.camids.tolist(), strict=True)):
        scores = [result.average_precision[index], result.inverse_negative_penalty[index], result.first_hit[index]]
        written = ["", "", ""] if np.isnan(scores[0]) else [f"{scores[0]:.6f}", f"{scores[1]:.6f}", int(scores[2])]
        writer.writerow([index, path_of(tested.query, index), pid, camid, *written])
    path = folder / f"queries_{safe_name(tested.name)}.csv"
    replace_file(path, text.getvalue().encode("utf-8", "backslashreplace"))
    return path


def _draw_pictures(
    targets: Sequence[TargetResult], config: CfgNode, folder: Path, history: dict[str, Any], shown: Sequence[int]
) -> list[Path]:
    drawn = []
    if history:
        drawn.append(folder / "curves.png")
        save_training_curves(drawn[-1], history)
    if targets:
        drawn.append(folder / "cmc.png")
        save_cmc(drawn[-1], {tested.name: tested.result.cmc for tested in targets})
    for tested in targets:
        found, name = tested.verification, safe_name(tested.name)
        if found is not None:
            drawn += [folder / f"scores_{name}.png", folder / f"roc_{name}.png"]
            save_score_histogram(drawn[-2], **histogram_of(found))
            save_roc(drawn[-1], *roc_of(tested.name, found), eer=True)
        if tested.has_images and (config.test.visrank or len(shown)):
            drawn.append(folder / f"ranklist_{name}.png")
            how, rows = chosen_rows(tested, config, shown)
            save_rank_list(drawn[-1], rows, title=f"{tested.name}: {how}")
    return drawn
