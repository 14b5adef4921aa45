"""The table of a chain: a row for each stage, two columns for each target."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from ..report.files import RESULTS, provenance
from ..runtime.files import replace_file
from ..runtime.json_text import as_json
from ..runtime.tables import as_csv, as_markdown
from .chain_plan import Stage

SUMMARY = ("chain.md", "chain.csv")


def summarise(folder: Path, common: CfgNode, stages: Sequence[Stage]) -> list[Path]:
    """Prints the scores of all stages on all targets, and writes them; returns the files.

    Args:
        folder: of the chain.
        common: its settings.
        stages: all of them finished; the figures are those of their ``results.json``.
    """
    rows = [_row(stage, stages) for stage in stages]
    seconds = sum(row.pop("seconds") for row in rows)
    scores = [_percent(row["targets"]) for row in rows]
    table = as_markdown(
        [["stage", *scores[0]], *([row["folder"], *own.values()] for row, own in zip(rows, scores, strict=True))]
    )
    print(f"mAP and rank-1 in percent, after each stage:\n{table}", end="")
    header = ["stage", "model", "sources", "begins_from", *scores[0]]
    lines = [
        [row["folder"], row["model"], " ".join(row["sources"]), row["begins_from"], *own.values()]
        for row, own in zip(rows, scores, strict=True)
    ]
    content = {"stages": rows, "provenance": provenance(common, seconds)}
    paths = [folder / name for name in (*SUMMARY, RESULTS)]
    for path, text in zip(paths, (table, as_csv([header, *lines]), as_json(content)), strict=True):
        replace_file(path, text.encode("utf-8", "backslashreplace"))
    return paths


def _row(stage: Stage, stages: Sequence[Stage]) -> dict[str, Any]:
    results, config = stage.run.results(), stage.config
    return {
        "name": stage.name,
        "folder": stage.folder,
        "model": config.model.name,
        "sources": list(config.data.sources),
        "begins_from": config.model.load_weights if stage.start is None else stages[stage.start].folder,
        "targets": {name: results["targets"][name] for name in config.data.targets},
        "seconds": results["provenance"]["seconds"],
    }


def _percent(targets: dict[str, Any]) -> dict[str, str]:
    return {
        f"{name} {figure}": "" if score is None else f"{100 * score:.2f}"
        for name, found in targets.items()
        for figure, score in (("mAP", found["mAP"]), ("rank-1", found["cmc"]["1"]))
    }
