"""What a run leaves beside its checkpoints: results.json, config.yaml and pictures."""

import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from yacs.config import CfgNode

from .. import host
from ..config import to_dict
from ..engines import ImagePTLEngine
from ..runtime.files import replace_file
from ..version import __version__

RANK_LISTS = 8  # queries in the picture of rank lists


def left_by_a_run(folder: Path) -> list[str]:
    """Names of what an earlier run left in a folder and a new one would overwrite, checkpoints aside."""
    return ["results.json", "config.yaml", *(path.name for path in folder.glob("*.png"))]


def write_config(config: CfgNode, folder: Path) -> None:
    """Writes the final configuration to ``config.yaml``, which ``--config-file`` takes again."""
    replace_file(folder / "config.yaml", config.dump().encode())


def write_results(engine: ImagePTLEngine, config: CfgNode, folder: Path, seconds: float) -> Path:
    """Writes ``results.json``: the scores of every target, and where they come from.

    Args:
        engine: after its test.
        config: the final configuration.
        folder: ``data.save_dir``.
        seconds: wall-clock time of the run.
    """
    content = {
        "targets": {name: _scores(engine, name, config) for name in engine.results},
        "model": {"name": config.model.name, "parameters": sum(p.numel() for p in engine.plain_model().parameters())},
        "epochs": 0 if config.test.evaluate else config.train.max_epoch,
        "bad_images": sorted(set(engine.bad_images)),
        "provenance": provenance(config, seconds),
        "config": to_dict(config),
    }
    path = folder / "results.json"
    replace_file(path, (json.dumps(content, indent=2) + "\n").encode())
    return path


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


def draw_pictures(engine: ImagePTLEngine, config: CfgNode, folder: Path) -> list[Path]:
    """Draws the curves of the training and, with ``test.visrank``, rank lists."""
    from ..visual import save_cmc, save_training_curves

    drawn = []
    if engine.history and not config.test.evaluate:
        drawn.append(folder / "curves.png")
        save_training_curves(drawn[-1], engine.history)
    if engine.results:
        drawn.append(folder / "cmc.png")
        save_cmc(drawn[-1], {name: result.cmc for name, result in engine.results.items()})
    if config.test.visrank:
        drawn += [_draw_rank_list(engine, name, folder) for name in engine.results]
    return drawn


def _draw_rank_list(engine: ImagePTLEngine, name: str, folder: Path) -> Path:
    from ..visual import Match, RankRow, choose_worst, save_rank_list

    result, (query, gallery) = engine.results[name], engine.descriptors[name]
    assert result.top is not None
    assert result.top_distances is not None
    by_precision = choose_worst(result, len(query.pids))
    spread = np.linspace(0, len(by_precision) - 1, min(RANK_LISTS, len(by_precision))).round().astype(int)
    rows = []
    for index in by_precision[spread]:
        matches = [
            Match(gallery.paths[g], bool(gallery.pids[g] == query.pids[index]), distance, int(gallery.camids[g]) + 1)
            for g, distance in zip(result.top[index], result.top_distances[index], strict=True)
            if g >= 0
        ]
        score = 100 * result.average_precision[index]
        caption = f"identity {query.pids[index]}, camera {query.camids[index] + 1}, AP {score:.0f} %"
        rows.append(RankRow(query.paths[index], caption, matches))
    path = folder / f"ranklist_{name}.png"
    save_rank_list(path, rows, title=f"{name}: {len(rows)} queries from the lowest average precision to the highest")
    return path


def _scores(engine: ImagePTLEngine, name: str, config: CfgNode) -> dict[str, Any]:
    result = engine.results[name]
    _, gallery = engine.descriptors[name]
    ranks = [rank for rank in config.test.ranks if rank <= len(gallery.pids)]
    if len(ranks) < len(config.test.ranks):
        print(f"test.ranks beyond the {len(gallery.pids)} gallery images of {name} are left out")
    return {**result.as_dict(ranks), "gallery": len(gallery.pids)}
