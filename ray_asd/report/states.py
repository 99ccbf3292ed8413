"""How each machine of a fleet is after a night, most urgent first: for the page and for the terminal alike."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pyarrow.compute as pc

from ray_asd.fleet_tables import MACHINE, Morning
from ray_asd.scoring.alerts import Alert, Machine, from_table

State = Literal["alarming", "suspect", "acknowledged", "snoozed", "silent", "unscored", "learning", "healthy"]
STATES: Mapping[State, str] = {  # most urgent first
    "alarming": "an alert is open",
    "suspect": "alarms, on too few nights for an alert",
    "acknowledged": "an alert that somebody has seen",
    "snoozed": "an alert that is not to be heard of for a while",
    "silent": "was heard before, but not in this night",
    "unscored": "was heard, but could not be scored",
    "learning": "too little is known of it to decide on it",
    "healthy": "no alarm",
}
_OF_ALERTS: Mapping[str, State] = {"open": "alarming", "acknowledged": "acknowledged", "snoozed": "snoozed"}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Standing:
    """A machine in a night: its state in a word and in a few, its decision, and its alert that is not resolved."""

    machine: Machine
    state: State
    detail: str
    decision: Row | None = None
    alert: Alert | None = None
    why: Row | None = None

    @property
    def name(self) -> str:
        return name_of(self.machine)

    @property
    def statistic(self) -> float | None:
        return self.decision["statistic"] if self.decision else None

    @property
    def urgency(self) -> tuple[float, ...]:
        """Sorts the most urgent first."""
        severity = self.alert.severity if self.alert else self.statistic
        return list(STATES).index(self.state), -(severity if severity is not None else -99.0)

    @property
    def sentence(self) -> str | None:
        """What is heard, as the alert tells it, or else this night."""
        if self.alert and self.alert.why:
            return self.alert.why
        return self.why["sentence"] if self.why else None


class Standings:
    """Those of all machines that a morning tells of, and alerts that are resolved."""

    def __init__(self, morning: Morning) -> None:
        self.morning = morning
        self.alerts = from_table(morning.alerts)
        self.all = sorted(self._standings(), key=lambda one: (*one.urgency, one.name.lower()))

    def of(self, *states: State) -> list[Standing]:
        """Those in one of these states."""
        return [one for one in self.all if one.state in states]

    @cached_property
    def resolved(self) -> list[Alert]:
        """Alerts of the nights looked back on that are resolved, the last ones first."""
        first = min(self.morning.days)
        found = [alert for alert in self.alerts if alert.state == "resolved" and alert.last_seen >= first]
        return sorted(found, key=lambda alert: alert.last_seen, reverse=True)

    @cached_property
    def history(self) -> dict[Machine, list[Row]]:
        """DECISIONS of each machine, by night."""
        found: dict[Machine, list[Row]] = {}
        for row in self.morning.decisions.sort_by("night").to_pylist():
            found.setdefault(machine_of(row), []).append(row)
        return found

    def _standings(self) -> Iterator[Standing]:
        morning = self.morning
        tonight = morning.decisions.filter(pc.equal(morning.decisions["night"], morning.night))
        decided = {machine_of(row): row for row in tonight.to_pylist()}
        open_ones = {alert.machine: alert for alert in reversed(self.alerts) if alert.state != "resolved"}
        heard = {machine_of(row): row for row in morning.sounds.to_pylist()}
        told = self._heard_of()
        for machine in dict.fromkeys([*open_ones, *decided, *heard, *morning.silent]):
            alert, decision = open_ones.get(machine), decided.get(machine)
            state, detail = self._state(machine, alert, decision)
            yield Standing(machine, state, detail, decision, alert, _told_of(told.get(machine, []), alert))

    def _state(self, machine: Machine, alert: Alert | None, decision: Row | None) -> tuple[State, str]:
        last = self.morning.silent.get(machine)
        if alert:
            seen = f"{alert.count} {'night' if alert.count == 1 else 'nights'}"
            if alert.snoozed_until and alert.state == "snoozed":
                seen += f", until {alert.snoozed_until:%d %b}"
            return _OF_ALERTS[alert.state], f"{seen}, now silent" if last else seen
        if last:
            return "silent", f"last heard {last}"
        if decision is None:
            return "unscored", "no clip scored"
        if decision["alarm"]:
            return "suspect", "first alarm"
        if decision["alarm"] is None:
            return "learning", str(decision["detail"] or "learning")
        return "healthy", ""

    def _heard_of(self) -> dict[Machine, list[Row]]:
        found: dict[Machine, list[Row]] = {}
        for row in self.morning.why.to_pylist():
            found.setdefault(machine_of(row), []).append(row)
        return found


def _told_of(rows: list[Row], alert: Alert | None) -> Row | None:
    """What was heard of a machine: in the clip that its alert names, or else last."""
    named = [row for row in rows if alert and row["clip_id"] == alert.clip_id]
    return max(named or rows, key=lambda row: row["night"], default=None)


def machine_of(row: Row) -> Machine:
    """Which machine a row is of."""
    machine_type, section, machine_id = (row[name] for name in MACHINE)
    return machine_type, section, machine_id


def name_of(machine: Machine) -> str:
    """For people."""
    return " ".join(part for part in machine if part)
