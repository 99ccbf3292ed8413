"""A morning in the terminal: some thirty lines, the most important first."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ray_asd.fleet_tables import MACHINE, Morning
from ray_asd.report.states import STATES, Standing, Standings
from ray_asd.report.table import visible

_ALERTS, _MORE = 10, 4  # lines of a kind at most


def digest(morning: Morning) -> list[str]:
    """What somebody should know of a night, in lines for a terminal."""
    standings = Standings(morning)
    lines = [
        *_head(morning, standings),
        *_alerts(standings),
        *_machines(standings),
        *_changed(morning),
        *_data(morning),
    ]
    lines += _nights(morning)
    return [visible(line) for line in lines]


def _head(morning: Morning, standings: Standings) -> Iterator[str]:
    counted = Counter(one.state for one in standings.all)
    states = ", ".join(f"{counted[state]} {state}" for state in STATES if counted[state]) or "no machines"
    yield f"night {morning.night}, revision {morning.revision}, scored by {morning.version or morning.detector}"
    yield f"  {len(standings.all)} machines: {states}"
    yield from (f"  {line}" for line in [morning.told.get("could_alarm")] if line)


def _alerts(standings: Standings) -> Iterator[str]:
    found = standings.of("alarming")
    yield from _some(f"alerts that are open: {len(found)}", map(_alert, found), _ALERTS)
    found = standings.of("suspect")
    if found:
        yield from _some(f"alarms, no alert yet: {len(found)}", map(_alert, found), _MORE)
    found = standings.of("acknowledged", "snoozed")
    if found:
        yield from _some(f"acknowledged or snoozed: {len(found)}", map(_alert, found), _MORE)


def _alert(one: Standing) -> str:
    since = f"since {one.alert.first_seen}, {one.detail}" if one.alert else one.detail
    severity = one.alert.severity if one.alert else one.statistic or 0.0
    return f"{one.name}: {since}, severity {severity:.1f}: {one.sentence or 'nobody has listened to it'}"


def _machines(standings: Standings) -> Iterator[str]:
    for state in ("silent", "unscored", "learning"):
        found = standings.of(state)  # type: ignore[arg-type]
        if found:
            lines = (f"{one.name}: {one.detail}" for one in found)
            yield from _some(f"{state}: {len(found)}", lines, _MORE)


def _changed(morning: Morning) -> Iterator[str]:
    rows = drifts(morning)
    if rows:
        yield from _some(
            f"drift: {len(rows)}", (f"{who}: {detail}; {advice}" for who, _, detail, advice in rows), _MORE
        )


def _data(morning: Morning) -> Iterator[str]:
    found = [f"{count} {what}" for what, count in data_notes(morning)]
    if found:
        yield f"recordings: {', '.join(found)}"


def _nights(morning: Morning) -> Iterator[str]:
    missing = missing_nights(morning)
    if missing:
        shown = ", ".join(missing[-_ALERTS:])
        yield f"nights that were not scored, of the last {len(morning.days)}: {len(missing)} ({shown})"


def _some(title: str, lines: Iterable[str], most: int) -> Iterator[str]:
    found = list(lines)
    yield title
    shown = found if len(found) <= most else found[: most - 1]
    yield from (f"  {line}" for line in shown)
    if len(shown) < len(found):
        yield f"  and {len(found) - len(shown)} more"


def drifts(morning: Morning) -> list[tuple[str, str, str, str]]:
    """Whose, what, detail and advice of each notice, those of the whole fleet first."""
    rows: Sequence[dict[str, Any]] = morning.drift.to_pylist()
    found = []
    for row in sorted(rows, key=lambda row: (row["machine_type"] is not None, *(row[name] or "" for name in MACHINE))):
        who = " ".join(row[name] for name in MACHINE if row[name]) or "the whole fleet"
        found.append((who, row["what"], row["detail"], row["advice"]))
    return found


def data_notes(morning: Morning) -> list[tuple[str, int]]:
    """What was odd of a night's recordings, and how often."""
    counts, told = morning.counts, morning.told
    repeated = sum(told.get("repeated", {}).values())
    found = [
        ("taken", counts.get("clips", 0)),
        ("files rejected", counts.get("rejects", 0)),
        ("not scored", counts.get("unscored", 0)),
        ("with the sound of another one", repeated),
        ("of machine types that nobody enrolled", sum(told.get("unknown", {}).values())),
    ]
    return [(what, count) for what, count in found if count or what == "taken"]


def missing_nights(morning: Morning) -> list[str]:
    """Dates of the nights looked back on that were not scored."""
    return [day.isoformat() for day in morning.days if day not in morning.scored]
