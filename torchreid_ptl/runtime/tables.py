"""Tables as CSV and as Markdown."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV; the header is the names of the first row, None is an empty cell.

    Example:
        >>> as_csv([{"a": 1, "b": None}])
        'a,b\\r\\n1,\\r\\n'
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as a Markdown table with aligned columns; the first column is aligned to the left, others to the right.

    Example:
        >>> print(as_markdown([{"stage": "1-a", "mAP": "5.00"}]), end="")
        | stage |  mAP |
        | ----- | ---: |
        | 1-a   | 5.00 |
    """
    lines = [list(rows[0]), *([_cell(row[name]) for name in rows[0]] for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    aligned = [
        [line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in (aligned[0], rule, *aligned[1:]))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
