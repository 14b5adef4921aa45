"""One HTML file that shows an evaluation: scores, queries with what was retrieved, curves, thresholds, provenance."""

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from jinja2 import Environment, PackageLoader
from PIL import Image

from ...runtime.files import replace_file
from .curves import RIGHT_SIGN, WRONG_SIGN
from .ranklist import JUNK_NOTE, LEGEND, Match, RankRow, css, read_image, short

# A caption and the bytes of a PNG file.
Picture: TypeAlias = tuple[str, bytes]
# A caption, the names of the columns and the rows, each as long as the header.
Table: TypeAlias = tuple[str, Sequence[str], Sequence[Sequence[object]]]

# The size at which tiles are shown; eleven of them take 30 to 50 KB.
_THUMBNAIL, _QUALITY = (80, 160), 85
_NUMBER = re.compile(r"[-+]?\d[\d.,]*(e[-+]?\d+)?( ?%)?|nan|\u2013")


@dataclass(frozen=True)
class QueryScore:
    """A line of the table of queries.

    Attributes:
        path: the query's image.
        identity: its label.
        camera: as people count it.
        average_precision: a share of 0 to 1; NaN without match.
        first_hit: rank of the first match, counted from 1; 0 without match.
    """

    path: str | Path
    identity: int
    camera: int
    average_precision: float
    first_hit: int


@dataclass(frozen=True)
class Comparison:
    """A query and what several systems retrieved for it, one list below the other.

    Attributes:
        query_path: the query's image.
        caption: a line above it.
        lists: by name of the system, what it retrieved, nearest first.
    """

    query_path: str | Path
    caption: str
    lists: Mapping[str, Sequence[Match]]


@dataclass(frozen=True)
class TargetReport:
    """The part of a report on one data set; empty fields are not shown.

    Attributes:
        name: of the data set.
        scores: the headline, as it is to be read: ``{"mAP": "39.84 %"}``.
        counts: of queries, gallery images, identities, cameras, queries without match.
        notes: sentences one must know to read the scores.
        rank_heading: how the queries below were chosen.
        rank_rows: queries and what was retrieved, in the order shown; the first six are open.
        worst: lines for a table of queries, in the order shown.
        pictures: curves.
        tables: TAR at FAR, the threshold and the like.
        comparisons: by heading, queries on which systems differ, in the order shown.
    """

    name: str
    scores: Mapping[str, str]
    counts: Mapping[str, object] = field(default_factory=dict)
    notes: Sequence[str] = ()
    rank_heading: str = "Queries and what was retrieved"
    rank_rows: Sequence[RankRow] = ()
    worst: Sequence[QueryScore] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    comparisons: Mapping[str, Sequence[Comparison]] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """An evaluation.

    Attributes:
        title: a line above everything.
        targets: data sets, in the order shown.
        facts: provenance and settings, by name, what matters most first; the first twelve are open.
        overview: heading of the table that compares several targets, and what one of them is.
    """

    title: str
    targets: Sequence[TargetReport]
    facts: Mapping[str, str] = field(default_factory=dict)
    overview: tuple[str, str] = ("All data sets", "data set")


def save_report(path: str | Path, report: Report) -> None:
    """Writes a report into one HTML file that needs no network, no script and no other file.

    The file appears complete or not at all. An image that cannot be read becomes a grey tile that says so.

    Args:
        path: the file; its folder is created.
        report: what it shows.

    Raises:
        ValueError: the name does not end in .html, there is no target, or a row of a table does not fit its header.
    """
    target = Path(path)
    if target.suffix.lower() != ".html":
        raise ValueError(f"a report is an HTML file; give a name that ends in .html, got {target.name!r}")
    if not report.targets:
        raise ValueError("nothing to report: targets is empty; give one TargetReport for each data set")
    pages = Environment(
        loader=PackageLoader("torchreid_ptl.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters.update(as_text=_as_text, overview_tables=_overview, query_table=_query_table, css=css, short=short)
    pages.filters.update(file_name=lambda path: Path(path).name, picture=_picture, thumbnail=_thumbnail)
    pages.globals.update(right_sign=RIGHT_SIGN, wrong_sign=WRONG_SIGN, legend=LEGEND, junk_note=JUNK_NOTE)
    # The lines of a table and the rank lists that are shown at once.
    page = pages.get_template("report.html").render(report=report, open_lines=12, open_queries=6)
    # Names of files that are no UTF-8 are written with their bytes' numbers.
    replace_file(target, page.encode("utf-8", "backslashreplace"))


def _overview(report: Report) -> list[Table]:
    """The scores of all targets, a table for those that share some."""
    groups: list[list[TargetReport]] = []
    for target in report.targets:
        alike = next((group for group in groups if target.scores.keys() & _names(group)), None)
        if alike is None:
            groups.append([target])
        else:
            alike.append(target)
    return [
        ("", [report.overview[1], *_names(group)], [[t.name, *map(t.scores.get, _names(group))] for t in group])
        for group in groups
    ]


def _names(targets: Sequence[TargetReport]) -> dict[str, None]:
    """The scores that some of the targets have, in order."""
    return dict.fromkeys(name for target in targets for name in target.scores)


def _query_table(scores: Sequence[QueryScore]) -> Table:
    lines = [
        (score.identity, score.camera, _percent(score.average_precision), score.first_hit or None, score.path)
        for score in scores
    ]
    return "Queries as a table", ["identity", "camera", "AP", "first hit", "query"], lines


def _percent(share: float) -> str | None:
    return None if math.isnan(share) else f"{100 * share:.1f} %"


def _as_text(table: Table) -> tuple[Sequence[str], list[list[str]], list[bool]]:
    """The header and the cells of a table, and which columns hold numbers and are aligned to the right."""
    caption, header, rows = table
    lines = [[_written(value) for value in row] for row in rows]
    for line in lines:
        if len(line) != len(header):
            raise ValueError(f"table {caption!r} must have rows of {len(header)} cells, got {len(line)}: {line}")
    return header, lines, [all(_NUMBER.fullmatch(line[column]) for line in lines) for column in range(len(header))]


def _written(value: object) -> str:
    if value is None:
        return "\u2013"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _thumbnail(path: str | Path) -> str | None:
    """The address of a small copy of an image, or None if it cannot be read."""
    image = read_image(path)
    if image is None:
        return None
    image.thumbnail(_THUMBNAIL, Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=_QUALITY, optimize=True)
    return _data_uri("jpeg", packed.getvalue())


def _picture(png: bytes) -> tuple[str, int, int] | None:
    """The address, width and height in pixels of a picture, or None if it is no PNG."""
    image = read_image(io.BytesIO(png)) if png.startswith(b"\x89PNG") else None
    return None if image is None else (_data_uri("png", png), image.width, image.height)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
