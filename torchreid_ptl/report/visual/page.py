"""Pieces of an HTML page that needs no other file: tables, embedded images, folded parts, the style."""

import base64
import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TypeAlias

from .ranklist import QUERY_COLOUR, RIGHT_COLOUR, WRONG_COLOUR, css, read_image

# A caption, the names of the columns and the rows, each as long as the header.
Table: TypeAlias = tuple[str, Sequence[str], Sequence[Sequence[object]]]

# Lines of a table that are shown at once.
OPEN_LINES = 12
# The size at which tiles are shown; eleven of them take 30 to 50 KB.
_THUMBNAIL, _QUALITY = (80, 160), 85
_NUMBER = re.compile(r"[-+]?\d[\d.,]*(e[-+]?\d+)?( ?%)?|nan|\u2013")
_MISSING = '<div class="missing">unreadable</div>'


def page(title: str, content: str) -> str:
    """A complete document, which may load nothing."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style></head>\n"
        f"<body><main>\n<h1>{text(title)}</h1>\n{content}</main></body></html>\n"
    )


def text(value: object) -> str:
    """A value as text, never as markup."""
    return escape(str(value), quote=True)


def more(content: str, summary: str) -> str:
    """Content that is folded away behind a line."""
    return f"<details><summary>{text(summary)}</summary>\n{content}</details>\n"


def foldable(table: Table, folded: bool = False) -> str:
    """A table; a long one behind its caption."""
    caption, header, rows = table
    if not folded and len(rows) <= OPEN_LINES:
        return draw_table(table)
    return more(draw_table(("", header, rows)), f"{caption} ({len(rows)} {'row' if len(rows) == 1 else 'rows'})")


def draw_table(table: Table) -> str:
    """A table; columns of numbers are aligned to the right.

    Raises:
        ValueError: a row does not fit the header.
    """
    caption, header, rows = table
    lines = [[_written(value) for value in row] for row in rows]
    for line in lines:
        if len(line) != len(header):
            raise ValueError(f"table {caption!r} must have rows of {len(header)} cells, got {len(line)}: {line}")
    numeric = [all(_NUMBER.fullmatch(line[column]) for line in lines) for column in range(len(header))]
    title = f"<h3>{text(caption)}</h3>\n" if caption else ""
    head = _cells("th", header, numeric)
    body = "\n".join(f"<tr>{_cells('td', line, numeric)}</tr>" for line in lines)
    return f'{title}<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n'


def photograph(path: str | Path, words: str) -> str:
    """A small copy of an image, `words` for those who do not see it; a tile that says so if it cannot be read."""
    from PIL import Image

    image = read_image(path)
    if image is None:
        return _MISSING
    image.thumbnail(_THUMBNAIL, Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=_QUALITY, optimize=True)
    return f'<img src="{_data_uri("jpeg", packed.getvalue())}" alt="{text(words)}">'


def drawing(png: bytes, words: str) -> str:
    """A picture as it is, `words` for those who do not see it; a tile that says so if it is no PNG."""
    image = read_image(io.BytesIO(png)) if png.startswith(b"\x89PNG") else None
    if image is None:
        return _MISSING
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img src="{_data_uri("png", png)}" {size} alt="{text(words)}">'


def _cells(tag: str, texts: Iterable[str], numeric: Sequence[bool]) -> str:
    kinds = [' class="number"' if number else "" for number in numeric]
    return "".join(f"<{tag}{kind}>{text(cell)}</{tag}>" for cell, kind in zip(texts, kinds, strict=True))


def _written(value: object) -> str:
    if value is None:
        return "\u2013"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


_STYLE = (
    f"""
:root {{ --query: {css(QUERY_COLOUR)}; --right: {css(RIGHT_COLOUR)}; --wrong: {css(WRONG_COLOUR)}; --tile: 80px; }}
"""
    + """
* { box-sizing: border-box; }
body { margin: 0; background: #f3f4f6; color: #222; font: 15px/1.45 system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 20px 24px 48px; }
h1 { font-size: 26px; margin: 8px 0 16px; }
h2 { font-size: 21px; margin: 0 0 14px; }
h3 { font-size: 17px; font-weight: 600; margin: 28px 0 6px; }
h4 { font-size: 14px; font-weight: 600; margin: 0 0 6px; }
h5 { font-size: 13px; font-weight: 600; color: #444; margin: 0 0 4px; }
.lists { display: flex; flex-direction: column; gap: 2px; min-width: 0; }
.lists .matches + h5 { margin-top: 8px; }
h1, h2, h3, h4, h5, li, summary { overflow-wrap: anywhere; }
section { background: white; border: 1px solid #e1e3e7; border-radius: 8px; padding: 20px 24px; margin: 0 0 20px; }
dl, table, .tile { font-variant-numeric: tabular-nums; }
a { color: #1f5ac8; }
nav { margin: 0 0 18px; }
nav a { margin: 0 6px; }
.faint, i { color: #666; font-weight: 400; font-style: normal; }
.scores { display: flex; flex-wrap: wrap; gap: 10px; margin: 0 0 10px; }
.scores div { background: #f3f6fc; border-radius: 6px; padding: 8px 16px; min-width: 112px; }
.scores dt { color: #555; font-size: 13px; }
.scores dd { margin: 0; font-size: 24px; font-weight: 600; white-space: nowrap; }
.notes { margin: 10px 0; padding: 8px 12px 8px 30px; background: #fff8e5; border-radius: 6px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; margin: 0 0 14px; font-size: 14px; }
article { border-top: 1px solid #e8e8e8; padding: 10px 0 12px; }
.row { display: flex; gap: 16px; }
.matches { display: flex; flex-wrap: wrap; gap: 10px 8px; min-width: 0; }
.tile { margin: 0; width: calc(var(--tile) + 8px); flex: none; font-size: 12px; line-height: 1.3; }
.tile img, .tile .missing { display: block; box-sizing: content-box; width: var(--tile); height: calc(2 * var(--tile));
  border: 4px solid var(--frame); border-radius: 3px; object-fit: contain; background: #eee; }
.tile figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; padding: 2px 3px 0; }
.tile b { color: var(--frame); white-space: nowrap; }
.tile i { width: 100%; }
.query { --frame: var(--query); }
.right { --frame: var(--right); }
.wrong { --frame: var(--wrong); }
.missing, .tile .missing { display: flex; align-items: center; justify-content: center; background: #aaa; color: #222; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 18px; }
.pictures figure { margin: 0; max-width: 720px; }
.pictures img { display: block; width: 100%; height: auto; }
.pictures .missing { aspect-ratio: 7 / 5; }
.pictures figcaption { font-size: 14px; color: #444; padding: 2px 4px; }
.wide { overflow-x: auto; margin: 6px 0 14px; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: 4px 18px 4px 0; border-bottom: 1px solid #e8e8e8; }
thead th { border-bottom: 2px solid #ccc; color: #444; font-size: 13px; vertical-align: bottom; }
.number { text-align: right; white-space: nowrap; }
td:not(.number) { min-width: 9em; }
.facts th { font-weight: 600; white-space: nowrap; }
.facts td { overflow-wrap: anywhere; white-space: pre-wrap; }
details { margin: 14px 0; }
summary { cursor: pointer; color: #1f5ac8; font-weight: 600; padding: 6px 0; }
@media (max-width: 640px) {
  :root { --tile: 52px; }
  main { padding: 10px 8px 32px; }
  section { padding: 14px 12px; }
  h1 { font-size: 21px; }
  h2 { font-size: 19px; }
  .scores { gap: 8px; }
  .scores div { padding: 6px 10px; min-width: 0; flex: 1 0 28%; }
  .scores dd { font-size: 20px; }
  .row { gap: 10px; }
  .matches { gap: 8px 5px; }
  .tile { font-size: 10.5px; }
  .tile figcaption { padding: 2px 0 0; }
  .tile .missing { font-size: 10px; }
  th, td { padding-right: 11px; font-size: 13px; }
  .facts th { white-space: normal; min-width: 90px; }
}
"""
)
