"""The morning page: what sounded wrong in a night, how sure that is, and what to listen to, in one HTML file."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from ray_asd import reasons
from ray_asd.fleet_tables import Morning
from ray_asd.report import listen
from ray_asd.report.digest import data_notes, digest, drifts, missing_nights
from ray_asd.report.page import Options, Tile, render
from ray_asd.report.section import Chart
from ray_asd.report.states import STATES, Standing, Standings, State, name_of
from ray_asd.report.table import Cell, Table
from ray_asd.report.trends import trend

__all__ = ["Options", "digest", "page"]

_TRENDS = 400  # machines drawn at most
_LINES = 200  # of a table
_MARKS: dict[State, str] = {  # so that no state is told by its colour alone
    "alarming": "!!",
    "suspect": "!",
    "acknowledged": "✓",
    "snoozed": "z",
    "silent": "∅",
    "unscored": "?",
    "learning": "…",
    "healthy": "",
}


@dataclass(frozen=True)
class _Cell:
    """A machine in the grid: its state, what it is called there, and where its nights are."""

    state: State
    mark: str
    name: str
    detail: str
    title: str
    anchor: str | None


def page(morning: Morning, options: Options | None = None) -> bytes:
    """One file that needs nothing else; names are shown as they are, never taken for markup."""
    options = options or Options(listen.MOST)
    standings = Standings(morning)
    drawn = standings.all[:_TRENDS]
    anchors = {one.machine: f"m{number}" for number, one in enumerate(drawn, 1)}
    urgent = standings.of("alarming", "suspect", "acknowledged", "snoozed")
    charts = [(anchors[one.machine], _badge(one), _chart(morning, standings, one)) for one in drawn]
    first = sum(one.state != "healthy" for one in drawn)
    return render(
        "morning.html",
        morning=morning,
        tiles=list(_tiles(standings)),
        grid=list(_grid(standings, anchors)),
        legend=[(state, _MARKS[state], words) for state, words in STATES.items() if standings.of(state)],
        suspects=list(zip(urgent, listen.suspects(morning, urgent, options.clips, options.audio), strict=False)),
        left=len(urgent) - options.clips,
        alerts=list(_alerts(standings)),
        trends=charts[:first],
        healthy=charts[first:],
        undrawn=len(standings.all) - len(drawn),
        changes=drifts(morning),
        notes=data_notes(morning),
        tables=list(_tables(morning, standings)),
        missing=missing_nights(morning),
    )


def _tiles(standings: Standings) -> Iterator[Tile]:
    """What is to be seen at a glance."""
    morning, alarming = standings.morning, standings.of("alarming")
    new = [one for one in alarming if one.alert and morning.night in one.alert.nights and one.alert.count <= 2]
    names = ", ".join(one.name for one in alarming[:3]) + (" ..." if len(alarming) > 3 else "")
    detail = f"{names}{f'; {len(new)} new' if new else ''}" if alarming else "none"
    yield Tile("Alerts that are open", str(len(alarming)), detail, "bad" if alarming else "good")
    suspect = standings.of("suspect")
    yield Tile("Alarms, no alert yet", str(len(suspect)), "on too few nights so far")
    seen = standings.of("acknowledged", "snoozed")
    yield Tile("Acknowledged or snoozed", str(len(seen)), ", ".join(one.name for one in seen[:3]) or "none")
    quiet, counts = standings.of("silent", "unscored"), morning.counts
    yield Tile(
        "Silent or not scored", str(len(quiet)), f"of {len(standings.all)} machines", "bad" if quiet else "plain"
    )
    able = sum(bool(one.decision and one.decision["could_alarm"]) for one in standings.all)
    yield Tile("Could alarm at all", f"{able} of {len(standings.all)}", f"{len(standings.of('learning'))} are learning")
    odd = counts.get("unscored", 0) + counts.get("rejects", 0)
    yield Tile("Recordings", str(counts.get("clips", 0)), f"{odd} not scored or not taken", "plain")


def _grid(standings: Standings, anchors: dict[tuple[str, str, str | None], str]) -> Iterator[tuple[str, list[_Cell]]]:
    """The machines of each type, the most urgent first."""
    order = list(STATES)
    by_type = sorted(
        standings.all,
        key=lambda one: (one.machine[0].lower(), one.machine[0], order.index(one.state), one.name.lower()),
    )
    for machine_type, group in groupby(by_type, key=lambda one: one.machine[0]):
        own = list(group)
        sections = {one.machine[1] for one in own}
        cells = [
            _Cell(
                one.state,
                _MARKS[one.state],
                _short(one, len(sections) > 1),
                _brief(one, standings.morning),
                f"{one.name}: {one.state}{f', {one.detail}' if one.detail else ''}",
                anchors.get(one.machine),
            )
            for one in own
        ]
        yield machine_type, cells


def _short(one: Standing, with_section: bool) -> str:
    machine_type, section, machine_id = one.machine
    parts = [section if with_section or machine_id is None else None, machine_id]
    return " ".join(part for part in parts if part) or machine_type


def _brief(one: Standing, morning: Morning) -> str:
    if one.state == "silent":
        return f"since {morning.silent[one.machine]:%d %b}"
    return "" if one.state in ("healthy", "learning") else one.detail


def _badge(one: Standing) -> str:
    return one.state if not one.detail or one.state == "learning" else f"{one.state}, {one.detail}"


def _chart(morning: Morning, standings: Standings, one: Standing) -> Chart:
    own = [alert for alert in standings.alerts if alert.machine == one.machine]
    rows = standings.history.get(one.machine, [])
    return Chart(one.name, trend(one.name, morning.days, rows, own))


def _alerts(standings: Standings) -> Iterator[Table]:
    """Those that are resolved, with their verdicts."""
    if standings.resolved:
        lines = [
            [
                Cell(name_of(alert.machine)),
                Cell(alert.verdict or "-"),
                Cell(f"{alert.first_seen} to {alert.last_seen}"),
                Cell(str(alert.count)),
                Cell(f"{alert.severity:.1f}"),
                Cell(alert.why or "-"),
            ]
            for alert in standings.resolved
        ]
        yield _cut(Table("Resolved alerts", ["machine", "verdict", "nights", "alarms", "severity", "why"], lines))


def _tables(morning: Morning, standings: Standings) -> Iterator[Table]:
    """What did not run, machine by machine and file by file."""
    for title, states in (
        ("Machines that were not heard or not scored", ("silent", "unscored")),
        ("Learning", ("learning",)),
    ):
        found = standings.of(*states)  # type: ignore[arg-type]
        if found:
            yield _cut(Table(title, ["machine", "detail"], [[Cell(one.name), Cell(one.detail)] for one in found]))
    told = morning.told
    if told.get("unknown"):
        lines = [[Cell(name), Cell(str(count))] for name, count in told["unknown"].items()]
        yield _cut(Table("Machine types that nobody enrolled", ["machine type and section", "recordings"], lines))
    if told.get("repeated"):
        lines = [[Cell(name), Cell(str(count))] for name, count in told["repeated"].items()]
        yield _cut(Table("Recordings with the sound of another one", ["machine", "recordings"], lines))
    rejects = [(row["reason"], row["uri"], row["detail"]) for row in morning.rejects.to_pylist()]
    if rejects:
        yield _by_reason("Files that were rejected", rejects, reasons.REJECTED)
    unscored = [(row["reason"], row["clip_id"], row["detail"]) for row in morning.unscored.to_pylist()]
    if unscored:
        yield _by_reason("Recordings that could not be scored", unscored, reasons.UNSCORED)


def _by_reason(title: str, found: Sequence[tuple[str, str, str]], words: dict[str, str]) -> Table:
    examples = {reason: f"{name}: {detail}" for reason, name, detail in reversed(found)}
    lines = [
        [Cell(reason), Cell(str(count)), Cell(words.get(reason, "")), Cell(examples[reason])]
        for reason, count in Counter(reason for reason, _, _ in found).most_common()
    ]
    return Table(title, ["reason", "files", "means", "example"], lines)


def _cut(table: Table) -> Table:
    left = len(table.rows) - _LINES
    return replace(table, rows=table.rows[:_LINES], notes=[f"{left} more."]) if left > 0 else table
