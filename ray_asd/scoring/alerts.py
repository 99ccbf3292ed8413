"""Alerts: of all nights on which a machine alarms one event, from the first of them until somebody resolves it.

    (m alarms in n nights) --> open <--> acknowledged
                                 ^\\--> snoozed --(its date passes)--> open
                                 any of them --> resolved: real, false or maintenance

Everything here is a function of its arguments: following a night twice, or once more after late recordings have changed
its decisions, changes nothing that should stay. An alert's id is its machine and first night, whoever works it out.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Literal, get_args

import pyarrow as pa

from ray_asd.errors import UserError, unknown
from ray_asd.fleet_tables import ALERTS, MACHINE

State = Literal["open", "acknowledged", "snoozed", "resolved"]
Verdict = Literal["real", "false", "maintenance"]
STATES: tuple[State, ...] = get_args(State)  # most urgent first
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
_AS_THEY_ARE = ("severity", "p_value", "state", "verdict", "snoozed_until", "why", "clip_id")  # columns of ALERTS
SUSPECT = 0.01  # p-value of a night that may be the first of an alert

Machine = tuple[str, str, str | None]
"""Machine type, section and machine_id."""
Why = tuple[str | None, str | None]
"""What is heard in a sentence, and the clip_id of the clip that sounds least healthy."""


@dataclass(frozen=True)
class Persistence:
    """An alert begins with the ``m``-th alarm of a machine in the last ``n`` nights on which it was judged.

    Raises:
        UserError: no such number of nights.
    """

    m: int = 2
    n: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.m <= self.n:
            raise UserError(f"{self.m} of {self.n} nights; allowed: m of n with 1 <= m <= n, such as 2 of 3")


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes alerts, when and why."""

    who: str
    when: datetime
    note: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """What is wrong with a machine: the ``nights`` on which it alarmed, in order, and what became of it.

    ``severity`` is its highest statistic, ``p_value`` its lowest; ``why`` and ``clip_id`` are of the worst night to
    which anybody listened. ``changed`` tells of the last change by anybody.
    """

    alert_id: str
    machine: Machine
    nights: tuple[date, ...]
    severity: float
    p_value: float
    state: State = "open"
    verdict: Verdict | None = None
    snoozed_until: date | None = None
    changed: Change | None = None
    why: str | None = None
    clip_id: str | None = None

    @property
    def first_seen(self) -> date:
        return self.nights[0]

    @property
    def last_seen(self) -> date:
        return self.nights[-1]

    @property
    def count(self) -> int:
        """Nights on which it alarmed."""
        return len(self.nights)


@dataclass(frozen=True, slots=True)
class _Alarm:
    night: date
    alarm: bool
    statistic: float
    p_value: float


def follow(
    alerts: Iterable[Alert],
    decisions: Sequence[pa.Table],
    persistence: Persistence | None = None,
    why: Mapping[Machine, Why] | None = None,
) -> list[Alert]:
    """``alerts`` after the last night of ``decisions``, in order of severity.

    Args:
        alerts: after the night before.
        decisions: DECISIONS of each of the last nights, oldest first: as many as it takes for ``persistence.n`` on
            which a machine was judged; those before are looked at no more.
        why: what was heard of machines in the last night, as far as anybody listened.
    """
    persistence, why = persistence or Persistence(), why or {}
    of_machine: dict[Machine, list[Alert]] = {}
    for alert in alerts:
        of_machine.setdefault(alert.machine, []).append(alert)
    tonight = max((night for table in decisions for night in table["night"].to_pylist()), default=None)
    if tonight is None:
        return in_order(alert for own in of_machine.values() for alert in own)
    judged = _judged(decisions)
    for machine in {*of_machine, *judged}:
        own = of_machine.setdefault(machine, [])
        own[:] = [_awake(alert, tonight) for alert in own]
        alarms = judged.get(machine, [])
        if alarms and alarms[-1].night == tonight:
            heard = why.get(machine, (None, None))
            of_machine[machine] = _followed(own, machine, alarms, persistence, heard)
    return in_order(alert for own in of_machine.values() for alert in own)


def _judged(decisions: Sequence[pa.Table]) -> dict[Machine, list[_Alarm]]:
    """Of each machine the nights on which it was judged, in order."""
    found: dict[Machine, list[_Alarm]] = {}
    for table in sorted((table for table in decisions if len(table)), key=lambda table: table["night"][0].as_py()):
        columns = (table[name].to_pylist() for name in (*MACHINE, "night", "alarm", "statistic", "p_value"))
        for kind, section, unit, night, alarm, statistic, p_value in zip(*columns, strict=True):
            if alarm is not None:
                found.setdefault((kind, section, unit), []).append(_Alarm(night, alarm, statistic, p_value))
    return found


def _awake(alert: Alert, tonight: date) -> Alert:
    if alert.state == "snoozed" and alert.snoozed_until is not None and alert.snoozed_until < tonight:
        return replace(alert, state="open", snoozed_until=None)
    return alert


def _followed(
    own: list[Alert], machine: Machine, alarms: list[_Alarm], persistence: Persistence, why: Why
) -> list[Alert]:
    """A machine's alerts after a night on which it was judged, the last of ``alarms``."""
    now = alarms[-1]
    going_on = next((alert for alert in own if alert.state != "resolved"), None)
    if going_on:
        return [_seen(alert, now, why) if alert is going_on else alert for alert in own]
    if any(now.night in alert.nights for alert in own):
        return own  # resolved after this night, which is followed once more
    resolved = [alert.changed.when.date() for alert in own if alert.changed]
    since = max([*resolved, *(alert.last_seen for alert in own)], default=date.min)
    counted = [one for one in alarms[-persistence.n :] if one.alarm and one.night > since]
    if not now.alarm or len(counted) < persistence.m:
        return own
    return [*own, _begun(machine, counted, why)]


def _begun(machine: Machine, alarms: list[_Alarm], why: Why) -> Alert:
    first = alarms[0].night
    digest = hashlib.sha256(json.dumps([*machine, first.isoformat()]).encode()).hexdigest()
    severity, p_value = max(one.statistic for one in alarms), min(one.p_value for one in alarms)
    nights = tuple(one.night for one in alarms)
    alert = Alert(f"{first:%Y%m%d}-{digest[:10]}", machine, nights, severity, p_value)
    return replace(alert, why=why[0], clip_id=why[1])


def _seen(alert: Alert, now: _Alarm, why: Why) -> Alert:
    """An unresolved alert after a night of its machine, which may have been followed before, with another decision."""
    if now.alarm:
        nights = tuple(sorted({*alert.nights, now.night}))
        severity, p_value = max(alert.severity, now.statistic), min(alert.p_value, now.p_value)
        is_worst = now.statistic == severity
        if any(why) and (is_worst or alert.clip_id is None):
            alert = replace(alert, why=why[0], clip_id=why[1])
        return replace(alert, nights=nights, severity=severity, p_value=p_value)
    nights = tuple(night for night in alert.nights if night != now.night)
    return replace(alert, nights=nights) if nights else alert


def acknowledge(alert: Alert, change: Change) -> Alert:
    """Somebody has seen it.

    Raises:
        UserError: it is resolved.
    """
    return replace(_unresolved(alert), state="acknowledged", snoozed_until=None, changed=change)


def snooze(alert: Alert, until: date, change: Change) -> Alert:
    """It is not to be heard of up to that night; its nights are counted all the same.

    Raises:
        UserError: it is resolved, or that night is over.
    """
    if until < change.when.date():
        raise UserError(f"snooze until {until}: that is over; allowed: {change.when.date()} or later")
    return replace(_unresolved(alert), state="snoozed", snoozed_until=until, changed=change)


def resolve(alert: Alert, verdict: str, change: Change) -> Alert:
    """It is over, and what it was; another verdict may be given later. The machine's next alarms are a new alert.

    Raises:
        UserError: there is no such verdict.
    """
    for known in VERDICTS:
        if known == verdict:
            return replace(alert, state="resolved", verdict=known, snoozed_until=None, changed=change)
    raise unknown("verdict", verdict, VERDICTS)


def _unresolved(alert: Alert) -> Alert:
    if alert.state == "resolved":
        allowed = ", ".join(state for state in STATES if state != "resolved")
        raise UserError(f"alert {alert.alert_id} is resolved ({alert.verdict}); allowed: alerts that are {allowed}")
    return alert


def in_order(alerts: Iterable[Alert]) -> list[Alert]:
    """Most urgent first: by state, severity, number of nights, and the longest standing."""
    return sorted(
        alerts,
        key=lambda one: (STATES.index(one.state), -one.severity, -one.count, one.first_seen, one.alert_id),
    )


def healthy(past: pa.Table, alerts: Iterable[Alert], decisions: Sequence[pa.Table] = ()) -> pa.Table:
    """NIGHTS without those of machines that were not healthy: from an alert's first night to its last, or to its end.

    Args:
        decisions: DECISIONS of the few last nights, whose alerts may still be to come: where a machine's p-value was
            ``SUSPECT`` or less that night is left out, lest a fault become its own standard before anybody is told.

    Nights of alerts that were false stay: they are what healthy nights look like, too. So do suspect nights once they
    are old. Without them the calibration would lose its highest values, and the limit would sink from night to night.
    """
    left_out: dict[Machine, list[tuple[date, date]]] = {}
    for alert in alerts:
        if alert.verdict != "false":
            end = alert.changed.when.date() if alert.state == "resolved" and alert.changed else alert.last_seen
            left_out.setdefault(alert.machine, []).append((alert.first_seen, max(alert.last_seen, end)))
    for machine, judged in _judged(decisions).items():
        left_out.setdefault(machine, []).extend((one.night, one.night) for one in judged if one.p_value <= SUSPECT)
    columns = (past[name].to_pylist() for name in (*MACHINE, "night"))
    kept = [
        not any(first <= night <= last for first, last in left_out.get((kind, section, unit), []))
        for kind, section, unit, night in zip(*columns, strict=True)
    ]
    return past.filter(pa.array(kept, pa.bool_()))


def to_table(alerts: Iterable[Alert]) -> pa.Table:
    """ALERTS, in this order."""
    return pa.Table.from_pylist([_row(alert) for alert in alerts], schema=ALERTS)


def _row(alert: Alert) -> dict[str, Any]:
    changed = alert.changed
    return {
        "alert_id": alert.alert_id,
        **dict(zip(MACHINE, alert.machine, strict=True)),
        **{name: getattr(alert, name) for name in ("state", "verdict", "first_seen", "last_seen", "count", "severity")},
        "nights": list(alert.nights),
        **{name: getattr(alert, name) for name in ("p_value", "why", "clip_id", "snoozed_until")},
        "changed_at": changed.when if changed else None,
        "changed_by": changed.who if changed else None,
        "note": changed.note if changed else None,
    }


def from_table(table: pa.Table) -> list[Alert]:
    """The alerts of ALERTS, in this order."""
    return [
        Alert(
            alert_id=row["alert_id"],
            machine=(row["machine_type"], row["section"], row["machine_id"]),
            nights=tuple(row["nights"]),
            changed=Change(row["changed_by"], row["changed_at"], row["note"]) if row["changed_by"] else None,
            **{name: row[name] for name in _AS_THEY_ARE},
        )
        for row in table.to_pylist()
    ]
