"""What a chain leaves beside its stages: one table, a row for each stage and two columns for each target."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from ..report.files import provenance
from ..runtime.files import replace_file
from .chain_plan import Chain
from .record import SUMMARY


def summarise(chain: Chain) -> list[Path]:
    """Prints the table, and writes it as ``chain.md``, ``chain.csv`` and, with all figures, ``results.json``.

    Args:
        chain: all of whose stages are done; the figures are those of their ``results.json``.

    Returns:
        The files.
    """
    rows = [_row(chain, index) for index in range(len(chain.stages))]
    table = as_markdown(rows)
    print(f"mAP and rank-1 in percent, after each stage:\n{table}", end="")
    seconds = sum(row.pop("seconds") for row in rows)
    content = {"stages": rows, "provenance": provenance(chain.common, seconds)}
    texts = (table, _as_csv(rows), json.dumps(content, indent=2) + "\n")
    paths = [chain.folder / name for name in (*SUMMARY, "results.json")]
    for path, text in zip(paths, texts, strict=True):
        replace_file(path, text.encode("utf-8", "backslashreplace"))
    return paths


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table, its columns aligned."""
    cells = [[row["folder"], *_percent(row)] for row in rows]
    head = ["stage", *_columns(rows)]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = [
        [
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in (head, *cells)
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))


def _as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["stage", "model", "sources", "begins_from", *_columns(rows)])
    for row in rows:
        writer.writerow([row["folder"], row["model"], " ".join(row["sources"]), row["begins_from"], *_percent(row)])
    return text.getvalue()


def _row(chain: Chain, index: int) -> dict[str, Any]:
    stage, start = chain.stages[index], chain.starts[index]
    results = json.loads((chain.place(index) / "results.json").read_text())
    return {
        "name": stage.name,
        "folder": stage.folder,
        "model": stage.config.model.name,
        "sources": list(stage.config.data.sources),
        "begins_from": start.weights if start.stage is None else chain.stages[start.stage].folder,
        "targets": {name: results["targets"][name] for name in stage.config.data.targets},
        "seconds": results["provenance"]["seconds"],
    }


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return [f"{target} {figure}" for target in rows[0]["targets"] for figure in ("mAP", "rank-1")]


def _percent(row: dict[str, Any]) -> list[str]:
    scores = [score for target in row["targets"].values() for score in (target["mAP"], target["cmc"]["1"])]
    return [f"{100 * score:.2f}" for score in scores]
