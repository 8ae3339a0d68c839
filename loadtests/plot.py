"""Small line charts as SVG, one below the other; nothing is needed to draw them or to look at them but a browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720, 120, 70, 24, 20


@dataclass(frozen=True, slots=True)
class Line:
    """One chart: (seconds, value) of something."""

    title: str
    points: Sequence[tuple[float, float]]


def svg(lines: Sequence[Line], warm: float) -> str:
    """The document. What lies before `warm` seconds has a grey ground."""
    each = _TOP + _HEIGHT + _BOTTOM
    drawn = "\n".join(_chart(line, index * each, warm) for index, line in enumerate(lines))
    size = f'width="{_LEFT + _WIDTH + 10}" height="{each * len(lines) + 10}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">\n{drawn}\n</svg>\n'


def _chart(line: Line, top: float, warm: float) -> str:
    values = [value for _, value in line.points] or [0.0]
    last = max((at for at, _ in line.points), default=1.0) or 1.0
    low, high = min(0.0, *values), max(values) or 1.0
    above = top + _TOP

    def place(at: float, value: float) -> str:
        return f"{_LEFT + _WIDTH * at / last:.1f},{above + _HEIGHT * (1 - (value - low) / (high - low)):.1f}"

    path = " ".join(place(at, value) for at, value in line.points)
    frame = f'x="{_LEFT}" y="{above}" height="{_HEIGHT}"'
    return "\n".join(
        [
            f'<text x="{_LEFT}" y="{above - 6}" font-weight="bold">{escape(line.title)}</text>',
            f'<rect {frame} width="{_WIDTH * min(1.0, warm / last):.1f}" fill="#eee"/>',
            f'<rect {frame} width="{_WIDTH}" fill="none" stroke="#999"/>',
            f'<polyline points="{path}" fill="none" stroke="#06c"/>',
            f'<text x="{_LEFT - 4}" y="{above + 10}" text-anchor="end">{high:.4g}</text>',
            f'<text x="{_LEFT - 4}" y="{above + _HEIGHT}" text-anchor="end">{low:.4g}</text>',
            f'<text x="{_LEFT + _WIDTH}" y="{above + _HEIGHT + 14}" text-anchor="end">{last:.0f} s</text>',
        ]
    )
