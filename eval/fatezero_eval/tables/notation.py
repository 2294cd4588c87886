"""Tables of texts as Markdown, and as one HTML page that loads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from re import sub

from fatezero.system.terminal import printable

_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 100rem; padding: 0 1rem; }
body { color: #1c1e21; background: #fff; }
.wide { overflow-x: auto; }
table { font-size: 13px; border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0 1.5rem; }
th, td { padding: .25rem clamp(.25rem, .3vw, .7rem); text-align: right; }
th, td { border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; position: sticky; left: 0; background: #fff; }
th { cursor: pointer; border-bottom: 2px solid #888; vertical-align: bottom; }
tbody tr:hover { background: #f2f5f9; }
p { max-width: 50rem; }
@media (prefers-color-scheme: dark) {
  body { color: #e4e6ea; background: #17191c; }
  th, td { border-color: #3a3d42; }
  th:first-child, td:first-child { background: #17191c; }
  tbody tr:hover { background: #22262b; }
}
</style>
<h1>{title}</h1>
"""
_SORT = """<script>
document.querySelectorAll("th").forEach(th => th.addEventListener("click", () => {
  const column = th.cellIndex, body = th.closest("table").tBodies[0];
  const sign = th.dataset.sign = th.dataset.sign === "1" ? "-1" : "1";
  const number = text => { const value = parseFloat(text); return isNaN(value) ? Infinity : value; };
  body.append(...[...body.rows].sort((a, b) => {
    const [x, y] = [a, b].map(row => row.cells[column].textContent);
    const [m, n] = [number(x), number(y)];
    return m === n ? sign * x.localeCompare(y) : m === Infinity ? 1 : n === Infinity ? -1 : sign * (m - n);
  }));
}));
</script>
</html>
"""


@dataclass(frozen=True)
class Grid:
    """A table of texts under a title, ready for any notation.

    Attributes:
        title: heading; empty for none.
        header: one text for each column.
        lines: cells, line by line; the first column holds names.
        notes: sentences below the heading.
        level: the heading's level, 2 for the largest.
    """

    title: str
    header: Sequence[str] = ()
    lines: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = field(default=())
    level: int = 3


def html_page(grids: Iterable[Grid], title: str = "Leaderboard") -> str:
    """A whole page; columns sort on a click."""
    return _HEAD.replace("{title}", escape(title)) + "\n".join(_html(grid) for grid in grids) + _SORT


def markdown(grid: Grid) -> str:
    """The table in Markdown, its heading and notes first."""
    parts = [f"{'#' * grid.level} {_plain(grid.title)}\n"] if grid.title else []
    parts += [f"{_plain(note)}\n" for note in grid.notes]
    if grid.header:
        rule = "|---|" + "---:|" * (len(grid.header) - 1)
        parts.append("\n".join([_line(grid.header), rule, *map(_line, grid.lines)]) + "\n")
    return "\n".join(parts)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """Names come from users: nothing in them may end a cell or begin HTML."""
    one_line = printable(" ".join(text.splitlines()))
    return escape(one_line, quote=False).replace("\\", "\\\\").replace("|", "\\|")


def _html(grid: Grid) -> str:
    parts = [f"<h{grid.level}>{escape(grid.title)}</h{grid.level}>"] if grid.title else []
    parts += [f"<p>{_with_code(escape(note))}</p>" for note in grid.notes]
    if grid.header:
        head = "".join(f"<th>{_breakable(escape(cell))}</th>" for cell in grid.header)
        body = "\n".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in line)}</tr>" for line in grid.lines)
        parts.append(f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>')
    return "\n".join(parts)


def _with_code(note: str) -> str:
    """What Markdown sets as code, as HTML does."""
    return sub(r"`([^`]+)`", r"<code>\1</code>", note)


def _breakable(name: str) -> str:
    """A column's name that may break at underscores, slashes and its version, so that sixteen columns fit a screen."""
    return sub(r"(?<=[_/])|(?=@)", "<wbr>", name)
