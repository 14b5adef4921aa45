"""The table of a sweep: mean and spread over seeds of every combination."""

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

SCORES = ("mAP", "rank1")
FIGURES = ("mean", "std", "min", "max")
NOTE = (
    "Scores in percent; std is the standard deviation over runs (n - 1), empty for a single one. Differences smaller "
    "than the spread over seeds are no difference seen."
)


@dataclass(frozen=True)
class Outcome:
    """What came of one run.

    Attributes:
        seed: ``train.seed``.
        scores: mAP and rank-1 of each target, between 0 and 1; empty when the run failed.
        error: why it failed.
    """

    seed: int
    scores: dict[str, tuple[float, float]] = field(default_factory=dict)
    error: str = ""


@dataclass
class Entry:
    """A combination of values.

    Attributes:
        values: text of each swept key's value.
        targets: names of the data sets it is tested on.
        planned: number of seeds.
        outcomes: of the runs so far.
    """

    values: dict[str, str]
    targets: list[str]
    planned: int
    outcomes: list[Outcome] = field(default_factory=list)


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, standard deviation (n - 1), least and greatest; None where there are too few values.

    Example::

        >>> spread([0.5, 0.75])["mean"]
        0.625
        >>> print(spread([0.5])["std"])
        None
    """
    if not values:
        return dict.fromkeys(FIGURES)
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
    }


def rows(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """A row for each combination and target; scores between 0 and 1."""
    return [_row(entry, target) for entry in entries for target in entry.targets]


def _row(entry: Entry, target: str) -> dict[str, Any]:
    found = [outcome.scores[target] for outcome in entry.outcomes if target in outcome.scores]
    row: dict[str, Any] = {**entry.values, "target": target, "runs": len(found), "planned": entry.planned}
    for index, score in enumerate(SCORES):
        figures = spread([scores[index] for scores in found])
        row |= {f"{score}_{name}": value for name, value in figures.items()}
    failed = [f"seed {outcome.seed}: {outcome.error}" for outcome in entry.outcomes if outcome.error]
    return row | {"failed": "; ".join(failed)}


def as_csv(entries: Sequence[Entry]) -> str:
    """The rows as CSV with a header, in full precision."""
    table = rows(entries)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(table[0]))
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def as_markdown(entries: Sequence[Entry]) -> str:
    """The rows as a Markdown table in percent, with what may be read from it."""
    keys = list(entries[0].values)
    titles = [f"{score} {name}" for score in ("mAP", "rank-1") for name in FIGURES]
    lines = [_line([*keys, "target", "runs", *titles, "failed"]), _line(["---"] * (len(keys) + 11))]
    for row in rows(entries):
        figures = [row[f"{score}_{name}"] for score in SCORES for name in FIGURES]
        cells = ["" if value is None else f"{100 * value:.2f}" for value in figures]
        runs = f"{row['runs']} of {row['planned']}"
        lines.append(_line([*(row[key] for key in keys), row["target"], runs, *cells, row["failed"]]))
    return "\n".join([*lines, "", NOTE]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |"
