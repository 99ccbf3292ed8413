"""The alerts of a fleet, as they are after each night and each change that somebody made.

FLEET/alerts/000017.json        all of them after the seventeenth change; the newest entry counts (``store.ledger``)
      alerts.parquet, .jsonl    ALERTS of the newest entry, for readers that know nothing of entries

Any number of nights and people may change them at once: each reads, decides and appends, and where another one was
faster decides again on what there is then. An alert that was resolved more than a year ago is in older entries only.
"""

import difflib
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from ray_asd import store
from ray_asd.errors import UserError
from ray_asd.scoring import alerts
from ray_asd.scoring.alerts import Alert, Machine, Persistence, Why
from ray_asd.stages.fleet import registry
from ray_asd.store import ledger

ALERTS, TABLE, LINES = "alerts", "alerts.parquet", "alerts.jsonl"
KEPT = timedelta(days=365)  # that a resolved alert stays, for the nights that its machine may have again


class State(BaseModel):
    """All alerts after a change, most urgent first. ``cause`` is the night that was followed, or what somebody did.

    Nights up to ``forgotten``, the end of an alert that is left out by now, are followed no more.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    number: int
    cause: str
    who: str
    when: datetime = Field(default_factory=lambda: datetime.now(UTC))
    forgotten: date | None = None
    alerts: tuple[Alert, ...]


def folder_of(fleet: str) -> str:
    """Where the entries stand."""
    return store.join(fleet, ALERTS)


def newest(fleet: str) -> State | None:
    """The entry that counts; None before the first alert.

    Raises:
        StageError: it is damaged.
    """
    folder = folder_of(fleet)
    number = ledger.newest(folder)
    return ledger.entry_as(State, folder, number) if number else None


def current(fleet: str) -> list[Alert]:
    """All alerts, most urgent first."""
    state = newest(fleet)
    return list(state.alerts) if state else []


def history(fleet: str, alert_id: str) -> list[tuple[State, Alert]]:
    """What became of an alert that there is: the entries that changed it, oldest first."""
    folder = folder_of(fleet)
    found: list[tuple[State, Alert]] = []
    for number in range(ledger.newest(folder), 0, -1):
        state = ledger.entry_as(State, folder, number)
        alert = next((alert for alert in state.alerts if alert.alert_id == alert_id), None)
        if alert is None:  # it was not there yet
            break
        if found and found[-1][1] == alert:
            found.pop()
        found.append((state, alert))
    return found[::-1]


def follow_night(
    fleet: str,
    decisions: Sequence[pa.Table],
    persistence: Persistence | None = None,
    why: Mapping[Machine, Why] | None = None,
) -> list[Alert]:
    """All alerts after a night, which is followed once however often this is done; most urgent first.

    After late recordings have changed a night, each night after it that counts for ``persistence`` is to be followed
    again, in their order.

    Args:
        decisions: DECISIONS of the last nights, that night's at the end.
        why: what was heard of the machines that alarm in it.
    """
    tonight = max((night for table in decisions for night in table["night"].to_pylist()), default=None)

    def followed(before: State | None) -> State | None:
        known = before.alerts if before else ()
        forgotten = before.forgotten if before else None
        if tonight is None or (forgotten and tonight <= forgotten):
            return None
        found = alerts.follow(known, decisions, persistence, why)
        if found == list(known):
            return None
        old = [alert for alert in found if alert.state == "resolved" and _end(alert) < tonight - KEPT]
        forgotten = max([*(_end(alert) for alert in old), *([forgotten] if forgotten else [])], default=None)
        kept = tuple(alert for alert in found if alert not in old)
        return _next(before, f"night {tonight}", registry.whoever(), kept, forgotten)

    return list(_changed(fleet, followed))


def _end(alert: Alert) -> date:
    """Of a resolved alert."""
    return max(alert.last_seen, alert.changed.when.date()) if alert.changed else alert.last_seen


def change(
    fleet: str, alert_ids: Sequence[str], action: Callable[[Alert], Alert], cause: str, who: str | None = None
) -> list[Alert]:
    """Those alerts after ``action``; all of them are changed or none.

    Raises:
        UserError: there is no such alert, or it is in no state for this.
    """

    def acted(before: State | None) -> State | None:
        known = before.alerts if before else ()
        find(known, alert_ids)
        found = alerts.in_order(action(alert) if alert.alert_id in alert_ids else alert for alert in known)
        forgotten = before.forgotten if before else None
        return _next(before, cause, who or registry.whoever(), tuple(found), forgotten)

    return find(_changed(fleet, acted), alert_ids)


def find(known: Iterable[Alert], alert_ids: Sequence[str]) -> list[Alert]:
    """The alerts of these ids, in their order.

    Raises:
        UserError: there is none of an id.
    """
    by_id = {alert.alert_id: alert for alert in known}
    for alert_id in alert_ids:
        if alert_id not in by_id:
            near = difflib.get_close_matches(alert_id, by_id, n=3, cutoff=0.5) or list(by_id)[:3]
            more = f" and {len(by_id) - len(near)} more, which `alerts list` tells" if len(by_id) > len(near) else ""
            allowed = ", ".join(near) + more if near else "none: there are no alerts"
            raise UserError(f"unknown alert {alert_id!r}; allowed: {allowed}")
    return [by_id[alert_id] for alert_id in alert_ids]


def _next(before: State | None, cause: str, who: str, found: tuple[Alert, ...], forgotten: date | None) -> State:
    number = before.number + 1 if before else 1
    return State(number=number, cause=cause, who=who, alerts=found, forgotten=forgotten)


def _changed(fleet: str, decide: Callable[[State | None], State | None]) -> tuple[Alert, ...]:
    """All alerts after what ``decide`` makes of the newest state, None being no change."""
    while True:
        before = newest(fleet)
        after = decide(before)
        if after is None:
            break
        if ledger.append(folder_of(fleet), after.number, after.model_dump(mode="json")):
            break
    tell(fleet)
    now = after or before
    return now.alerts if now else ()


def tell(fleet: str) -> None:
    """Write ``TABLE`` and ``LINES``, until what was written is what there is: others may change it meanwhile."""
    told: State | None = None
    while (state := newest(fleet)) and state != told:
        table = pa.BufferOutputStream()
        pq.write_table(alerts.to_table(state.alerts), table)
        store.write(store.join(fleet, TABLE), table.getvalue().to_pybytes())
        lines = (json.dumps(row) + "\n" for row in rows(state.alerts))
        store.write(store.join(fleet, LINES), "".join(lines).encode())
        told = state


def rows(known: Iterable[Alert]) -> list[dict[str, Any]]:
    """ALERTS as JSON has it: dates and times as text."""
    return [{name: _plain(value) for name, value in row.items()} for row in alerts.to_table(known).to_pylist()]


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.isoformat() if isinstance(value, date) else value
