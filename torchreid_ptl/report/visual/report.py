"""One HTML file that shows an evaluation: scores, queries with what was retrieved, curves, thresholds, provenance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from ...runtime.files import replace_file
from .page import OPEN_LINES, Table, draw_table, drawing, foldable, more, page, photograph, text
from .ranklist import JUNK_NOTE, LEGEND, RIGHT_SIGN, WRONG_SIGN, Match, RankRow, css, short

# A caption and the bytes of a PNG file.
Picture: TypeAlias = tuple[str, bytes]

# Rank lists that are shown at once.
_OPEN_QUERIES = 6


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
        tables: TAR at FAR, recommended threshold and the like.
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
    # Names of files that are no UTF-8 are written with their bytes' numbers.
    replace_file(target, page(report.title, _content(report)).encode("utf-8", "backslashreplace"))


def _content(report: Report) -> str:
    parts = [_overview(report.targets, *report.overview)] if len(report.targets) > 1 else []
    parts += [_target(index, target) for index, target in enumerate(report.targets)]
    return "".join([*parts, _facts(report.facts)])


def _overview(targets: Sequence[TargetReport], heading: str, kind: str) -> str:
    """The scores of all targets, in a table for those that share some, and where to find each."""
    groups: list[list[TargetReport]] = []
    for target in targets:
        alike = next((group for group in groups if target.scores.keys() & _names(group)), None)
        if alike is None:
            groups.append([target])
        else:
            alike.append(target)
    tables = "".join(
        draw_table(("", [kind, *_names(group)], [[t.name, *map(t.scores.get, _names(group))] for t in group]))
        for group in groups
    )
    links = "".join(f'<a href="#target-{index}">{text(target.name)}</a>' for index, target in enumerate(targets))
    return f"<section><h2>{text(heading)}</h2>\n{tables}<nav>Go to{links}</nav></section>\n"


def _names(targets: Sequence[TargetReport]) -> dict[str, None]:
    """The scores that some of the targets have, in order."""
    return dict.fromkeys(name for target in targets for name in target.scores)


def _target(index: int, target: TargetReport) -> str:
    parts = [
        f'<h2 id="target-{index}">{text(target.name)}</h2>\n',
        _headline(target),
        _queries(target.rank_heading, list(map(_rank_row, target.rank_rows))),
        _query_table(target.worst),
        _curves(target.pictures),
        *map(foldable, target.tables),
        *(_queries(heading, list(map(_comparison, rows))) for heading, rows in target.comparisons.items()),
    ]
    return f"<section>{''.join(parts)}</section>\n"


def _headline(target: TargetReport) -> str:
    scores = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in target.scores.items())
    counts = " \u00b7 ".join(f"{text(name)}\u00a0{text(value)}" for name, value in target.counts.items())
    notes = "".join(f"<li>{text(note)}</li>" for note in target.notes)
    return (
        (f'<dl class="scores">{scores}</dl>\n' if scores else "")
        + (f'<p class="faint">{counts}</p>\n' if counts else "")
        + (f'<ul class="notes">{notes}</ul>\n' if notes else "")
    )


def _queries(heading: str, rows: Sequence[str]) -> str:
    """Queries below a heading and the legend of their frames; the first ones are open. Nothing without queries."""
    if not rows:
        return ""
    colours = "".join(f'<span style="color: {css(colour)}">\u25a0 {text(words)}</span>' for colour, words in LEGEND)
    legend = f'{colours}<span class="faint">{JUNK_NOTE}</span><span class="faint">number below: distance</span>'
    first, rest = rows[:_OPEN_QUERIES], rows[_OPEN_QUERIES:]
    folded = more("".join(rest), f"{len(rest)} more queries") if rest else ""
    return f'<h3>{text(heading)}</h3>\n<p class="legend">{legend}</p>\n{"".join(first)}{folded}'


def _rank_row(row: RankRow) -> str:
    return _article(row.query_path, row.caption, _matches(row.matches))


def _comparison(row: Comparison) -> str:
    lists = [f"<h5>{text(system)}</h5>\n{_matches(matches)}" for system, matches in row.lists.items()]
    return _article(row.query_path, row.caption, f'<div class="lists">{"".join(lists)}</div>')


def _article(path: str | Path, caption: str, found: str) -> str:
    query = _tile(path, "query", "query", "<b>query</b>")
    return (
        f'<article><h4>{text(caption)} <span class="faint">{text(Path(path).name)}</span></h4>\n'
        f'<div class="row">{query}{found}</div></article>\n'
    )


def _matches(matches: Sequence[Match]) -> str:
    tiles = "".join(_match(rank, match) for rank, match in enumerate(matches, 1))
    return f'<div class="matches">{tiles or "nothing retrieved"}</div>'


def _match(rank: int, match: Match) -> str:
    kind, sign, who = ("right", RIGHT_SIGN, "same") if match.correct else ("wrong", WRONG_SIGN, "other")
    below = f"<b>{rank}\u00a0{sign}</b><span>{short(match.distance)}</span><i>cam {text(match.camera)}</i>"
    return _tile(match.path, kind, f"rank {rank}, {who} person", below)


def _tile(path: str | Path, kind: str, words: str, below: str) -> str:
    """An image in a frame; pointing at it shows its path."""
    shown = photograph(path, words)
    return f'<figure class="tile {kind}" title="{text(path)}">{shown}<figcaption>{below}</figcaption></figure>'


def _query_table(scores: Sequence[QueryScore]) -> str:
    if not scores:
        return ""
    lines = [
        (score.identity, score.camera, _percent(score.average_precision), score.first_hit or None, score.path)
        for score in scores
    ]
    return foldable(("Queries as a table", ["identity", "camera", "AP", "first hit", "query"], lines), folded=True)


def _curves(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    figures = "".join(
        f"<figure>{drawing(png, caption)}<figcaption>{text(caption)}</figcaption></figure>\n"
        for caption, png in pictures
    )
    return f'<h3>Curves</h3>\n<div class="pictures">{figures}</div>\n'


def _facts(facts: Mapping[str, str]) -> str:
    if not facts:
        return ""
    lines = [f'<tr><th scope="row">{text(name)}</th><td>{text(value)}</td></tr>\n' for name, value in facts.items()]
    first, rest = (
        f'<div class="wide"><table class="facts">{"".join(part)}</table></div>\n'
        for part in (lines[:OPEN_LINES], lines[OPEN_LINES:])
    )
    folded = more(rest, f"{len(lines) - OPEN_LINES} more") if len(lines) > OPEN_LINES else ""
    return f"<section><h2>Settings and provenance</h2>\n{first}{folded}</section>\n"


def _percent(share: float) -> str | None:
    return None if math.isnan(share) else f"{100 * share:.1f} %"
