"""The table of a sweep: mean and spread over seeds of every combination."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..runtime.tables import as_csv, as_markdown
from .run import Run

SCORES = ("mAP", "rank1")
FIGURES = ("mean", "std", "min", "max")
NOTE = (
    "Scores in percent; std is the standard deviation over runs (n - 1), empty for a single one. Differences smaller "
    "than the spread over seeds are no finding."
)


@dataclass(frozen=True)
class Outcome:
    """The outcome of one run.

    Attributes:
        seed: ``train.seed``.
        scores: mAP and rank-1 of each target, between 0 and 1; empty when the run failed.
        error: why it failed.
    """

    seed: int
    scores: dict[str, tuple[float, float]] = field(default_factory=dict)
    error: str = ""


@dataclass
class Combination:
    """A combination of values.

    Attributes:
        values: text of each swept key's value.
        runs: one for each seed.
        outcomes: of the runs so far.
    """

    values: dict[str, str]
    runs: Sequence[Run]
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def targets(self) -> list[str]:
        """Names of the data sets it is tested on."""
        return list(self.runs[0].config.data.targets)


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


def rows(combinations: Sequence[Combination]) -> list[dict[str, Any]]:
    """A row for each combination and target; scores between 0 and 1."""
    return [_row(combination, target) for combination in combinations for target in combination.targets]


def _row(combination: Combination, target: str) -> dict[str, Any]:
    found = [outcome.scores[target] for outcome in combination.outcomes if target in outcome.scores]
    row: dict[str, Any] = {**combination.values, "target": target, "runs": len(found), "planned": len(combination.runs)}
    for index, score in enumerate(SCORES):
        figures = spread([scores[index] for scores in found])
        row |= {f"{score}_{name}": value for name, value in figures.items()}
    failed = [f"seed {outcome.seed}: {outcome.error}" for outcome in combination.outcomes if outcome.error]
    return row | {"failed": "; ".join(failed)}


def table_csv(combinations: Sequence[Combination]) -> str:
    """The rows as CSV with a header, in full precision."""
    table = rows(combinations)
    return as_csv([list(table[0]), *(list(row.values()) for row in table)])


def table_markdown(combinations: Sequence[Combination]) -> str:
    """The rows as a Markdown table in percent, with a note on its reading."""
    table = []
    for row in rows(combinations):
        cells = {key: row[key] for key in (*combinations[0].values, "target")}
        cells["runs"] = f"{row['runs']} of {row['planned']}"
        for score, title in zip(SCORES, ("mAP", "rank-1"), strict=True):
            for name in FIGURES:
                value = row[f"{score}_{name}"]
                cells[f"{title} {name}"] = "" if value is None else f"{100 * value:.2f}"
        table.append({**cells, "failed": row["failed"]})
    return f"{as_markdown([list(table[0]), *(list(row.values()) for row in table)])}\n{NOTE}\n"
