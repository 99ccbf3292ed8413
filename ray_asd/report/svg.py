"""Small charts as inline SVG: marks on axes, coloured by the page's style sheet, so that they follow light and dark.

A mark's ``kind`` is the class by which the style sheet colours it. One unit of a drawing is one CSS pixel on a phone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 340, 220
_RIGHT, _TOP, _BOTTOM = 16, 10, 38  # margins
_TICKS = 4  # about as many steps as fit
_PLAIN = (0.05, 1e5)  # magnitudes that are written without a power of ten


@dataclass(frozen=True)
class Axes:
    """What the drawing shows of both axes: range and label; ``height`` of the drawing, ``left`` margin."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    height: int = HEIGHT
    left: int = 52

    def at_x(self, value: float) -> float:
        """Place of a value, from the left."""
        low, high = self.x
        return self.left + (WIDTH - self.left - _RIGHT) * (value - low) / ((high - low) or 1)

    def at_y(self, value: float) -> float:
        """Place of a value, from the top."""
        low, high = self.y
        return self.height - _BOTTOM - (self.height - _TOP - _BOTTOM) * (value - low) / ((high - low) or 1)


def draw(axes: Axes, alt: str, marks: Sequence[str]) -> Markup:
    """The chart; ``alt`` says in words what it shows."""
    parts = [*_grid(axes), *marks]
    start = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, axes.height, alt)
    return start + Markup("").join(Markup(part) for part in parts) + Markup("</svg>")


def line(axes: Axes, xs: Sequence[float], ys: Sequence[float], kind: str) -> str:
    """A line through the points."""
    points = " ".join(f"{axes.at_x(x):.1f},{axes.at_y(y):.1f}" for x, y in zip(xs, ys, strict=True))
    return f'<polyline class="line {kind}" points="{points}"/>'


def bars(axes: Axes, edges: Sequence[float], heights: Sequence[float], kind: str) -> str:
    """A histogram's outline, filled: ``heights`` between consecutive ``edges``."""
    steps = [f"M{axes.at_x(edges[0]):.1f},{axes.at_y(0):.1f}"]
    for right, height in zip(edges[1:], heights, strict=True):
        steps.append(f"V{axes.at_y(height):.1f}H{axes.at_x(right):.1f}")
    return f'<path class="area {kind}" d="{"".join(steps)}V{axes.at_y(0):.1f}Z"/>'


def columns(axes: Axes, heights: Sequence[float], kind: str) -> str:
    """Separate bars at 0, 1, 2, ..."""
    width = 0.7 * (axes.at_x(1) - axes.at_x(0))
    zero, drawn = axes.at_y(0), []
    for place, height in enumerate(heights):
        left, end = axes.at_x(place) - width / 2, axes.at_y(height)
        size = f'width="{width:.1f}" height="{abs(zero - end):.1f}"'
        drawn.append(f'<rect class="area {kind}" x="{left:.1f}" y="{min(end, zero):.1f}" {size}/>')
    return "".join(drawn)


def rule(axes: Axes, x: float, kind: str) -> str:
    """A vertical line over the whole height."""
    place = f"{axes.at_x(x):.1f}"
    return f'<line class="rule {kind}" x1="{place}" x2="{place}" y1="{_TOP}" y2="{axes.height - _BOTTOM}"/>'


def region(axes: Axes, low: float, high: float, kind: str) -> str:
    """A shaded range of x."""
    left, right = axes.at_x(low), axes.at_x(high)
    height = axes.height - _TOP - _BOTTOM
    return f'<rect class="region {kind}" x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" height="{height}"/>'


def span(axes: Axes, low: float, high: float, y: float, kind: str) -> str:
    """A horizontal bar between two values, for an interval."""
    left, right, place = axes.at_x(low), axes.at_x(high), axes.at_y(y)
    return f'<line class="span {kind}" x1="{left:.1f}" x2="{right:.1f}" y1="{place:.1f}" y2="{place:.1f}"/>'


def dot(axes: Axes, x: float, y: float, kind: str) -> str:
    """A round mark."""
    return f'<circle class="dot {kind}" cx="{axes.at_x(x):.1f}" cy="{axes.at_y(y):.1f}" r="4"/>'


def text(x: float, y: float, words: str, anchor: str = "middle", more: str = "") -> str:
    """Words at a place of the drawing, which begin, end or have their middle there."""
    return str(Markup('<text x="{}" y="{}" text-anchor="{}" {}>{}</text>').format(
        f"{x:.1f}", f"{y:.1f}", anchor, Markup(more), escape(words)
    ))  # fmt: skip


def ticks(low: float, high: float) -> list[float]:
    """A few round values from ``low`` to ``high``."""
    rough = (high - low) / _TICKS
    if not rough > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= 0.999 * rough)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _grid(axes: Axes) -> Iterator[str]:
    bottom, right = axes.height - _BOTTOM, WIDTH - _RIGHT
    (unit, name), (y_unit, y_name) = _unit(axes.x), _unit(axes.y)
    for value in ticks(*axes.x):
        yield text(axes.at_x(value), bottom + 15, f"{value / unit:.4g}")
    for value in ticks(*axes.y) if axes.y_label else ():
        place = f"{axes.at_y(value):.1f}"
        yield f'<line class="grid" x1="{axes.left}" x2="{right}" y1="{place}" y2="{place}"/>'
        yield text(axes.left - 6, axes.at_y(value) + 4, f"{value / y_unit:.4g}", "end")
    yield f'<line class="axis" x1="{axes.left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
    yield text((axes.left + right) / 2, axes.height - 6, axes.x_label + name)
    middle = (_TOP + bottom) / 2
    yield text(10, middle, axes.y_label + y_name * bool(axes.y_label), more=f'transform="rotate(-90 10 {middle:.0f})"')


def _unit(of: tuple[float, float]) -> tuple[float, str]:
    """What the numbers on an axis are divided by, and how its label says so."""
    largest = max(map(abs, of))
    if largest == 0 or _PLAIN[0] <= largest < _PLAIN[1]:
        return 1.0, ""
    power = math.floor(math.log10(largest))
    return 10.0**power, f" / 1e{power}"
