"""Tables as text."""

import csv
import io
from collections.abc import Sequence


def as_csv(rows: Sequence[Sequence[object]], line_end: str = "\r\n") -> str:
    r"""Rows as CSV, the header first; numbers in full precision, None as an empty cell.

    Example:
        >>> as_csv([["run", "mAP"], ["a", 0.5], ["b", None]])
        'run,mAP\r\na,0.5\r\nb,\r\n'
    """
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=line_end).writerows(rows)
    return text.getvalue()


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table, the header first; columns are aligned, all but the first to the right.

    Example:
        >>> print(as_markdown([["run", "mAP"], ["first", "50.00"]]), end="")
        | run   |   mAP |
        | ----- | ----: |
        | first | 50.00 |
    """
    cells = [[" ".join(cell.split()).replace("|", r"\|") for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))
