"""Whether something other than a machine's condition has changed: its recorder, its microphone, or what is usual.

The unit is machine and night, as of ``nights``: clips of one night share what made them. The last nights are compared
with earlier ones (``shifts``), the p-values of all machines and figures corrected by Benjamini and Hochberg; and the
difference has to be one that matters, since with nights enough any is significant. A notice is repeated for about a
week of nights, until the new is part of what is usual.

What moves the median machine as far as one would have to move is of the fleet: one notice without machine, and none for
machines that moved the same way. Alarms of such a night are ``held_back``.

A fault raises scores, and enrolling again would teach it to the detector. So nothing is said of the scores and
embeddings of machines that alarm or have an alert. What their recordings are like is told all the same, for a
microphone that was moved sounds like a fault; but the notice says that it may be the machine.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from ray_asd.fleet_tables import DRIFT, MACHINE
from ray_asd.scoring import figures, neighbourhoods, shifts
from ray_asd.scoring.alerts import Machine
from ray_asd.scoring.figures import Figure, Series
from ray_asd.scoring.shifts import MIN_FLEET, Shift
from ray_asd.scoring.standards import Bools, Floats
from ray_asd.scoring.verdicts import adjusted

RATE = 0.05  # of false ones among notices by test, on average, were any difference large enough
STUCK = 0.5  # share of a night's recordings that repeat another one
SEEN = 3  # earlier nights that say what a sample rate was
OUTSTANDING = 4.0  # deviations above the median machine that are an alarm although the whole fleet has moved

_ALARMS_TOO = "; it alarms as well: it may be the machine itself"
_OF_FLEET = "look for what all have in common: software or settings of recorders, the season; enrol again if it stays"
_RECORDER = "check the recorder's settings; enrol again with recordings of this sample rate if it is to stay so"
_HELD = "no alarm: the scores of the whole fleet have moved (DRIFT)"
_STUCK = "restart the recorder: it sends what it has sent before"

Row = dict[str, Any]


def drift(
    tonight: pa.Table,
    past_sounds: pa.Table,
    nights: pa.Table,
    calibration: pa.Table,
    night: date,
    alarming: Collection[Machine] = (),
    rejected: Mapping[date, float] | None = None,
) -> pa.Table:
    """DRIFT of a night: notices of the fleet first, then by machine.

    Args:
        tonight: SOUNDS of the night.
        past_sounds: SOUNDS of nights before it.
        nights: NIGHTS of it and of nights before it.
        calibration: CALIBRATION of the detector that scored it.
        alarming: machines that alarm in it, or have an alert that is not resolved.
        rejected: the share of files that were rejected, of it and of nights before it.
    """
    known = figures.series(pa.concat_tables([past_sounds, tonight]), nights, calibration, night)
    alarms = np.array([machine in alarming for machine in known.machines], bool)
    embeddings = neighbourhoods.shift(nights, known.machines, night, figures.EMBEDDINGS.recent)
    found = [*_by_test(known, embeddings, alarms), *_by_sight(known), *_rejected(known, rejected or {})]
    found.sort(key=lambda row: ("machine_type" in row, [str(row.get(name)) for name in MACHINE]))
    return pa.Table.from_pylist([{"night": night} | row for row in found], DRIFT)


def _significant(p_values: Sequence[Floats]) -> list[Bools]:
    """Which of all these are discoveries."""
    together = np.concatenate(p_values)
    found = adjusted([float(value) if np.isfinite(value) else None for value in together])
    real = np.array([value is not None and value <= RATE for value in found], bool)
    return np.split(real, np.cumsum([len(values) for values in p_values])[:-1])


@dataclass(frozen=True)
class _Compared:
    figure: Figure
    own: Shift
    fleet: Shift

    @property
    def is_of_scores(self) -> bool:
        return self.figure in (figures.SCORES, figures.CALIBRATION, figures.EMBEDDINGS)

    def row(self, before: float, now: float, p_value: float, detail: str, advice: str) -> Row:
        """Of two values in the figure's scale; ``detail`` has a place for the text of each."""
        before, now = (self.figure.plain(value) for value in (before, now))
        told = detail.format(label=self.figure.label, before=self.figure.shown(before), now=self.figure.shown(now))
        figures_ = {"before": before, "now": now, "p_value": float(p_value)}
        return {"what": self.figure.what, **figures_, "detail": told, "advice": advice}


def _by_test(known: Series, embeddings: Shift, alarms: Bools) -> Iterator[Row]:
    compared = []
    for figure in (*figures.OF_SOUNDS, figures.SCORES):
        values = known.values[figure.what]
        own, fleet = shifts.of_machines(values, figure.floor, figure.recent), shifts.of_fleet(values, figure.floor)
        compared.append(_Compared(figure, own, fleet))
    scores = known.values["scores"]
    own, fleet = (shifts.from_zero(values, figures.CALIBRATION.recent) for values in (scores, shifts.median(scores)))
    compared.append(_Compared(figures.CALIBRATION, own, fleet))
    compared.append(_Compared(figures.EMBEDDINGS, embeddings, neighbourhoods.of_fleet(embeddings)))
    real = _significant([one.own.p_value for one in compared])
    real_of_fleet = _significant([one.fleet.p_value for one in compared])
    told = np.zeros(len(alarms), bool)  # of whose scores something has been said
    for one, is_real, is_fleet in zip(compared, real, real_of_fleet, strict=True):
        moved = is_real & one.figure.moved(one.own)
        if is_fleet[0] and one.figure.moved(one.fleet)[0]:
            yield _of_fleet(one)
            moved &= np.sign(one.own.now - one.own.before) != np.sign(one.fleet.now - one.fleet.before)
        if one.is_of_scores:
            moved &= ~(alarms | told)
            told |= moved
        for place in np.flatnonzero(moved).tolist():
            row = _of_machine(one, place, bool(alarms[place]))
            yield row | dict(zip(MACHINE, known.machines[place], strict=True))


def _of_machine(one: _Compared, place: int, alarms: bool) -> Row:
    own, of = one.own, f"{one.own.nights[place]} earlier ones"
    since = f"its last {one.figure.recent} nights"
    if one.figure is figures.CALIBRATION:
        since, of = f"its last {own.nights[place]} nights", "calibration clips"
    detail = f"{{label}} {{now}} in {since}, {{before}} in {of}{_ALARMS_TOO if alarms else ''}"
    return one.row(own.before[place], own.now[place], own.p_value[place], detail, one.figure.advice)


def _of_fleet(one: _Compared) -> Row:
    before, now = np.nanmedian(one.own.before), np.nanmedian(one.own.tonight)
    of = "calibration clips" if one.figure is figures.CALIBRATION else "earlier nights"
    detail = (
        f"{{label}} {{now}} tonight, {{before}} in {of}: the median of {np.isfinite(one.own.tonight).sum()} machines"
    )
    return one.row(float(before), float(now), one.fleet.p_value[0], detail, _OF_FLEET)


def _by_sight(known: Series) -> Iterator[Row]:
    """What needs no test: another sample rate than most earlier nights had, and recorders that are stuck."""
    usual = np.array([_commonest(rates[:-1]) for rates in known.values["sample_rate"]])
    rates, repeated = known.values["sample_rate"][:, -1], known.values["repeated"][:, -1]
    changed = np.isfinite(usual) & np.isfinite(rates) & (usual != rates)
    yield from _all(known, "sample_rate", changed, usual, rates, "{:.0f} Hz".format, _RECORDER)
    before = np.array([_commonest(shares[:-1]) for shares in known.values["repeated"]])
    copies = np.nan_to_num(repeated * known.values["clips"][:, -1])
    contents = known.values["contents"]
    seen = (contents[:, :-1] == contents[:, -1:]).any(axis=1)  # unknown ones are equal to none
    stuck = seen | ((np.nan_to_num(repeated) >= STUCK) & (copies >= 2))
    repeated = np.where(seen, 1.0, repeated)
    yield from _all(known, "repeated", stuck, before, repeated, "{:.0%} repeated".format, _STUCK)


def _all(
    known: Series, what: str, found: Bools, before: Floats, now: Floats, shown: Callable[[float], str], advice: str
) -> Iterator[Row]:
    """Notices of these machines, or the one of the fleet if they are most of it."""

    def row(before: float, now: float, detail: str, advice: str) -> Row:
        earlier = f", {shown(before)} before" if np.isfinite(before) else ""
        told = {"before": before if np.isfinite(before) else None, "now": now}
        return {"what": what, **told, "detail": shown(now) + earlier + detail, "advice": advice}

    there = int(np.isfinite(now).sum())
    count = int(found.sum())
    if there >= MIN_FLEET and 2 * count > there:
        yield row(_median(before[found]), _median(now[found]), f" ({count} of {there} machines)", _OF_FLEET)
        return
    for place in np.flatnonzero(found).tolist():
        notice = row(float(before[place]), float(now[place]), "", advice)
        yield notice | dict(zip(MACHINE, known.machines[place], strict=True))


def _median(values: Floats) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else float("nan")


def _commonest(values: Floats) -> float:
    """NaN where there are few."""
    found, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    return float(found[np.argmax(counts)]) if counts.sum() >= SEEN else float("nan")


def _rejected(known: Series, shares: Mapping[date, float]) -> Iterator[Row]:
    values = np.array([[shares.get(day, np.nan) for day in known.nights]])
    shift = shifts.of_machines(values, figures.REJECTED.floor, 1)
    if figures.REJECTED.moved(shift)[0] and shift.p_value[0] <= RATE:
        detail = f"{{now}} of {{label}}, {{before}} in {shift.nights[0]} earlier nights"
        one = _Compared(figures.REJECTED, shift, shift)
        yield one.row(shift.before[0], shift.now[0], shift.p_value[0], detail, figures.REJECTED.advice)


def held_back(decisions: pa.Table, drift: pa.Table) -> pa.Table:
    """DECISIONS of a night, without most of the alarms of one in which the scores of the whole fleet have moved.

    Their machines are taken as not judged, but those that stand out of the fleet as it is now.
    """
    rows = drift.select(["machine_type", "what"]).to_pylist()
    if not any(row["machine_type"] is None and row["what"] == figures.SCORES.what for row in rows):
        return decisions
    statistics = decisions["statistic"].to_numpy().astype(float)
    outstanding = statistics - np.nanmedian(statistics) >= OUTSTANDING
    alarms = decisions["alarm"].to_pylist()
    held = [bool(alarm) and not out for alarm, out in zip(alarms, outstanding, strict=True)]
    told = {
        "alarm": [None if hold else alarm for hold, alarm in zip(held, alarms, strict=True)],
        "detail": [_HELD if hold else why for hold, why in zip(held, decisions["detail"].to_pylist(), strict=True)],
    }
    for name, values in told.items():
        field = decisions.schema.field(name)
        decisions = decisions.set_column(decisions.column_names.index(name), field, pa.array(values, field.type))
    return decisions
