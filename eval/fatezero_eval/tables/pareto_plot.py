"""Quality over cost as a picture, in SVG that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, isfinite, log2

from fatezero.system.terminal import printable
from fatezero_eval.tables.cost_grids import CostedVariant, pareto_front

_WIDTH, _HEIGHT, _LEFT, _TOP = 640, 380, 70, 40  # pixels: of the plane, and where it begins
_FRONT, _BEHIND = "#1a7f37", "#8a949e"


def pareto_plot(costed: Sequence[CostedVariant], metric: str) -> str:
    """A dot for each variant, seconds on a scale of powers of two, a bar for the interval of its difference.

    The front's dots are named and joined. Equal variants give equal bytes.

    Args:
        costed: with defined qualities or without, which are left out.
        metric: what quality is, for people.
    """
    shown = [one for one in costed if isfinite(one.quality.value)]
    plane = _Plane(shown)
    front = pareto_front(shown)
    width, height = _LEFT + _WIDTH + 90, _TOP + _HEIGHT + 60
    path = " ".join(f"{plane.x(one):.1f},{plane.y(one.quality.value):.1f}" for one in front)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'font-family="system-ui, sans-serif" font-size="12">',
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            *plane.axes(escape(printable(metric))),
            f'<polyline points="{path}" fill="none" stroke="{_FRONT}" stroke-width="1.5"/>',
            *(part for one in shown if one not in front for part in _dot(plane, one, _BEHIND)),
            *(part for one in front for part in _dot(plane, one, _FRONT)),
            *(_name(plane, one) for one in front),
            "</svg>\n",
        ]
    )


class _Plane:
    """Where seconds and differences lie in the picture."""

    def __init__(self, shown: Sequence[CostedVariant]) -> None:
        logs = [log2(one.seconds) for one in shown]
        self._first, self._last = floor(min(logs)), max(ceil(max(logs)), floor(min(logs)) + 1)
        ends = [end for one in shown for end in (one.quality.value, one.quality.low, one.quality.high) if isfinite(end)]
        margin = max(max(ends) - min(ends), 0.1) * 0.08
        self._low, self._high = min(ends) - margin, max(ends) + margin

    def x(self, one: CostedVariant) -> float:
        return self._across(log2(one.seconds))

    def _across(self, power: float) -> float:
        return _LEFT + (power - self._first) / (self._last - self._first) * _WIDTH

    def y(self, difference: float) -> float:
        return _TOP + (self._high - difference) / (self._high - self._low) * _HEIGHT

    def axes(self, metric: str) -> list[str]:
        """Lines at powers of two and at round differences, with what they say."""
        from matplotlib.ticker import MaxNLocator  # noqa: PLC0415  (half a second to import)

        parts = []
        for power in range(self._first, self._last + 1):
            x = self._across(power)
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_TOP + _HEIGHT}" stroke="#e4e6ea"/>')
            parts.append(f'<text x="{x:.1f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{2.0**power:g}</text>')
        for value in MaxNLocator(5).tick_values(self._low, self._high):
            if not self._low <= value <= self._high:
                continue
            y = self.y(value)
            parts.append(f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e6ea"/>')
            parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:+g}</text>')
        middle = _LEFT + _WIDTH // 2
        parts.append(f'<text x="{middle}" y="{_TOP + _HEIGHT + 42}" text-anchor="middle">CPU seconds a frame</text>')
        parts.append(f'<text x="{_LEFT}" y="{_TOP - 16}">{metric}, difference to the reference</text>')
        return parts


def _dot(plane: _Plane, one: CostedVariant, colour: str) -> list[str]:
    x, parts = plane.x(one), []
    if one.quality.known:
        ends = f'y1="{plane.y(one.quality.low):.1f}" y2="{plane.y(one.quality.high):.1f}"'
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" {ends} stroke="{colour}" stroke-opacity="0.5"/>')
    title = f"<title>{escape(printable(one.variant))}</title>"
    y = plane.y(one.quality.value)
    return [*parts, f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}">{title}</circle>']


def _name(plane: _Plane, one: CostedVariant) -> str:
    x, y = plane.x(one) + 7, plane.y(one.quality.value) - 6
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{_FRONT}">{escape(printable(one.variant))}</text>'
