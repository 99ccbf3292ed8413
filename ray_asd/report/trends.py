"""Each machine's nights as a small drawing: its statistic, on which nights it alarmed, and its alerts with verdicts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Any

from markupsafe import Markup

from ray_asd.report import svg
from ray_asd.scoring.alerts import Alert

_WIDTH, _HEIGHT = 240, 84
_LEFT, _RIGHT, _TOP, _BOTTOM = 4, 4, 15, 6
_LEAST = (-3.0, 5.0)  # standard deviations that are drawn at least
_MOST = 12.0  # and at most

Row = Mapping[str, Any]


@dataclass(frozen=True)
class _Frame:
    """Where nights and statistics are in a drawing."""

    days: Sequence[date]
    low: float
    high: float

    def at_x(self, day: date) -> float:
        place = (day - self.days[0]).days / max((self.days[-1] - self.days[0]).days, 1)
        return _LEFT + place * (_WIDTH - _LEFT - _RIGHT)

    def at_y(self, statistic: float) -> float:
        share = (min(max(statistic, self.low), self.high) - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def trend(name: str, days: Sequence[date], rows: Sequence[Row], alerts: Sequence[Alert]) -> Markup:
    """A machine's DECISIONS on ``days``, in order, and its alerts."""
    known = [row for row in rows if row["statistic"] is not None]
    own = [row["statistic"] for row in known]
    frame = _Frame(days, min([*own, _LEAST[0]]), min(max([*own, _LEAST[1]]), _MOST))
    seen = [alert for alert in alerts if alert.last_seen >= days[0]]
    parts = [*_alerts(frame, seen), *_zero(frame), *_lines(frame, known), *_alarms(frame, known)]
    start = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">')
    return (
        start.format(_WIDTH, _HEIGHT, _told(name, known, seen)) + Markup("").join(map(Markup, parts)) + Markup("</svg>")
    )


def _told(name: str, known: Sequence[Row], alerts: Sequence[Alert]) -> str:
    if not known:
        return f"{name}: nothing was decided in these nights"
    alarms = sum(bool(row["alarm"]) for row in known)
    text = f"{name}: statistics of {len(known)} nights, the last one {known[-1]['statistic']:.1f}; {alarms} alarms"
    for alert in alerts:
        text += f"; alert of {alert.first_seen} to {alert.last_seen}, {alert.verdict or alert.state}"
    return text


def _zero(frame: _Frame) -> Iterator[str]:
    place = f"{frame.at_y(0):.1f}"
    yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{place}" y2="{place}"/>'


def _lines(frame: _Frame, known: Sequence[Row]) -> Iterator[str]:
    """A line through nights that follow one another; a night between two that were not judged is a dot."""
    for _, group in groupby(enumerate(known), key=lambda item: item[1]["night"].toordinal() - item[0]):
        run = [row for _, row in group]
        points = [(frame.at_x(row["night"]), frame.at_y(row["statistic"])) for row in run]
        if len(points) == 1:
            yield f'<circle class="own area" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="1.5"/>'
        else:
            joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            yield f'<polyline class="line own" points="{joined}"/>'


def _alarms(frame: _Frame, known: Sequence[Row]) -> Iterator[str]:
    for row in known:
        if row["alarm"]:
            place = f'cx="{frame.at_x(row["night"]):.1f}" cy="{frame.at_y(row["statistic"]):.1f}"'
            yield f'<circle class="alarm" {place} r="3.5"/>'


def _alerts(frame: _Frame, alerts: Sequence[Alert]) -> Iterator[str]:
    """A shaded span from the first to the last night of each, and what became of it."""
    for alert in alerts:
        left, right = frame.at_x(max(alert.first_seen, frame.days[0])), frame.at_x(min(alert.last_seen, frame.days[-1]))
        kind = alert.verdict or alert.state
        size = f'width="{max(right - left, 1) + 6:.1f}" height="{_HEIGHT - _TOP}"'
        yield f'<rect class="span-of {kind}" x="{left - 3:.1f}" y="{_TOP}" {size}/>'
        anchor, place = ("end", right) if left > _WIDTH / 2 else ("start", left)
        yield svg.text(place, _TOP - 4, kind, anchor)
