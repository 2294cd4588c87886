"""Correlations with their intervals as a picture: one line for each metric, in SVG that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from fatezero.system.terminal import printable
from fatezero_eval.validity.findings import Finding

_NAMES, _WIDTH, _LINE, _TOP = 300, 420, 22, 56  # pixels: of the names, of the axis, of a line, above the first
_COLOURS = {"strong": "#1a7f37", "fair": "#4c8bc4", "weak": "#b07d00"}
_ELSE, _UNKNOWN = "#b3261e", "#777"
_TITLE = "Spearman's coefficient with nearness by"
_KEY = {**_COLOURS, "says nothing, or points away": _ELSE}


def forest_plot(found: Sequence[Finding], distance: str) -> str:
    """A dot for each metric's ρ over all edits, a bar for its interval; equal findings give equal bytes.

    Args:
        found: one line each, from the top.
        distance: id of the metric that says how near a version is to the true edit.
    """
    height = _TOP + _LINE * (len(found) + 1) + 10
    width = _NAMES + _WIDTH + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{_at(0)}" y="16" text-anchor="middle">{_TITLE} {escape(distance)}</text>',
        *_axis(height),
        *(part for row, finding in enumerate(found) for part in _line(finding, _TOP + _LINE * row + _LINE // 2)),
    ]
    return "\n".join([*parts, *_key(height - 12), "</svg>\n"])


def _key(y: int) -> list[str]:
    """What the colours say."""
    x, parts = _NAMES - 60, []
    for word, colour in _KEY.items():
        parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 15}" y="{y}">{word}</text>')
        x += 80
    return parts


def _axis(height: int) -> list[str]:
    marks = []
    for value in (-1.0, -0.5, 0.0, 0.5, 1.0):
        x, colour = _at(value), "#555" if value == 0 else "#ddd"
        marks.append(f'<line x1="{x}" x2="{x}" y1="{_TOP - 8}" y2="{height - _LINE - 8}" stroke="{colour}"/>')
        marks.append(f'<text x="{x}" y="{_TOP - 14}" text-anchor="middle">{value:g}</text>')
    return marks


def _line(finding: Finding, y: int) -> list[str]:
    interval = finding.agreements[""].spearman
    name = escape(printable(finding.metric)) + (" *" if finding.sees_truth else "")
    parts = [f'<text x="{_NAMES - 12}" y="{y + 4}" text-anchor="end">{name}</text>']
    if interval is None:
        return parts
    colour = _COLOURS.get(finding.verdict, _ELSE) if interval.known else _UNKNOWN
    if interval.known:
        ends = f'x1="{_at(interval.low)}" x2="{_at(interval.high)}"'
        parts.append(f'<line {ends} y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>')
    return [*parts, f'<circle cx="{_at(interval.value)}" cy="{y}" r="4.5" fill="{colour}"/>']


def _at(value: float) -> str:
    return f"{_NAMES + (value + 1) / 2 * _WIDTH:.1f}"
