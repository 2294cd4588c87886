"""Normalised scores as a picture: a spoke for each metric, a line for each method, in SVG that stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import cos, pi, sin

from fatezero.system.terminal import printable, shortened
from fatezero_eval.tables.weighing import Weighing, WeightedScore

_WIDTH, _HEIGHT, _RADIUS = 860, 520, 200  # pixels: of the chart, with room for metrics' names, and of its circle
_LEGEND, _LINE = 300, 20  # of the methods' names, of one of them
_COLOURS = ("#0b6e99", "#d1495b", "#3a7d44", "#8a5a9e", "#c77d0a", "#5c6670", "#7a4a2b", "#d267a5")
_LONGEST = 40  # characters of a method's name
FEWEST_SPOKES = 3  # that span an area


def radar(weighings: Sequence[Weighing]) -> str:
    """One chart for each table, one below the other; values beyond the ends are drawn at the ends.

    Methods that lack a metric have no line. There are `FEWEST_SPOKES` metrics or more. Equal weighings give equal
    bytes.
    """
    most = max(len(_whole(weighing)) for weighing in weighings)
    each = max(_HEIGHT, _LINE * (most + 4))
    several = len(weighings) > 1
    height, width = each * len(weighings), _WIDTH + _LEGEND
    charts = [
        f'<g transform="translate(0 {each * place})">\n{_chart(weighing)}\n{_caption(place if several else None)}\n</g>'
        for place, weighing in enumerate(weighings)
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="13">'
    )
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="#fff"/>', *charts, "</svg>\n"])


def _caption(table: int | None) -> str:
    said = "centre: the stated worst value, rim: the best"
    title = said if table is None else f"Table {table + 1}; {said}"
    return f'<text x="20" y="{_HEIGHT - 12}" fill="#555">{title}</text>'


def _chart(weighing: Weighing) -> str:
    count = len(weighing.weights)
    rings = [_outline([share] * count, 'stroke="#ddd"') for share in (0.25, 0.5, 0.75, 1.0)]
    spokes = []
    for place, weighted in enumerate(weighing.weights):
        x, y = _point(place, count, 1.0)
        spokes.append(f'<line x1="{_WIDTH // 2}" y1="{_HEIGHT // 2}" x2="{x:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        x, y = _point(place, count, 1.08)
        anchor = "middle" if abs(x - _WIDTH / 2) < 1 else "start" if x > _WIDTH / 2 else "end"
        name = escape(printable(weighted.metric.partition("@")[0]))
        spokes.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">{name}</text>')
    lines = [part for place, score in enumerate(_whole(weighing)) for part in _method(place, score)]
    return "\n".join([*rings, *spokes, *lines])


def _whole(weighing: Weighing) -> list[WeightedScore]:
    """The methods that have every metric, over all edits."""
    return [score for score in weighing.scores if not score.category and not score.missing]


def _method(place: int, score: WeightedScore) -> list[str]:
    colour = _COLOURS[place % len(_COLOURS)]
    dashes = f' stroke-dasharray="{4 * (place // len(_COLOURS))} 4"' if place >= len(_COLOURS) else ""
    style = f'stroke="{colour}" stroke-width="2"{dashes}'
    values = [min(max(part or 0.0, 0.0), 1.0) for part in score.parts.values()]
    y = 40 + _LINE * place
    name = escape(shortened(printable(score.variant), _LONGEST))
    return [
        _outline(values, style),
        f'<line x1="{_WIDTH}" x2="{_WIDTH + 24}" y1="{y}" y2="{y}" {style}/>',
        f'<text x="{_WIDTH + 32}" y="{y + 4}">{name}</text>',
    ]


def _outline(values: Sequence[float], style: str) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (_point(i, len(values), v) for i, v in enumerate(values)))
    return f'<polygon points="{points}" fill="none" {style}/>'


def _point(place: int, count: int, value: float) -> tuple[float, float]:
    """Where a spoke has a value; the first spoke points up, the others follow clockwise."""
    angle = 2 * pi * place / count
    return _WIDTH / 2 + _RADIUS * value * sin(angle), _HEIGHT / 2 - _RADIUS * value * cos(angle)
