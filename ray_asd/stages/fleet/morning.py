"""What is told of a fleet in the morning: a night, those before it, alerts, and what was heard of them, in one."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any, Literal

import pyarrow as pa

from ray_asd import build, fleet_tables, store, tables
from ray_asd.build import Output
from ray_asd.errors import StageError, UserError
from ray_asd.fleet_tables import MACHINE, Morning
from ray_asd.fleet_tables import Folder as FleetFolder
from ray_asd.scoring import alerts
from ray_asd.scoring.alerts import Machine
from ray_asd.stages.detection import detector as detectors
from ray_asd.stages.fleet import alerting, explain, manifests
from ray_asd.stages.fleet.hearing_of_night import label, machines
from ray_asd.tables import Folder

DAYS = 30  # that are looked back on
_READERS = 16


def collect(fleet: str, night: date | None = None) -> Morning:
    """Of that night, by default the last one; alerts are as they are now.

    Raises:
        UserError: there is no such night.
        StageError: what its manifest names is not there any more.
    """
    known = manifests.dates(fleet)
    entry = _entry(fleet, night, known)
    tonight = manifests.output(fleet, entry)
    days = [entry.night - timedelta(days=back) for back in range(DAYS - 1, -1, -1)]
    before = manifests.all_newest(fleet, [day for day in days if day in known and day < entry.night])
    outputs = {one.night: output for one in before if (output := build.find(store.join(fleet, one.output)))}
    outputs[entry.night] = tonight
    decisions = _all(outputs.values(), FleetFolder.DECISIONS, fleet_tables.DECISIONS)
    open_ones = [alert for alert in alerting.current(fleet) if alert.first_seen <= entry.night]
    heard = [day for alert in open_ones if alert.state != "resolved" for day in alert.nights if day in outputs]
    listened = [found for day in sorted({entry.night, *heard}) if (found := explain.known(fleet, outputs[day]))]
    first = min(known)
    return Morning(
        fleet=fleet,
        night=entry.night,
        revision=entry.revision,
        made_at=entry.when,
        version=entry.version,
        detector=entry.detector,
        output=tonight.uri,
        channel=_channel(entry.detector),
        days=[day for day in days if day >= first] or [entry.night],
        scored=frozenset({*(one.night for one in before), entry.night}),
        counts=entry.counts,
        told=tonight.marker.summary,
        silent=_silent(tonight.marker.summary.get("silent", {}), decisions),
        decisions=decisions,
        alerts=alerts.to_table(open_ones),
        why=_all(listened, FleetFolder.WHY, fleet_tables.WHY),
        clips=_all(listened, Folder.CLIPS, tables.CLIPS),
        **{name: _own(tonight, *named) for name, named in _TONIGHT.items()},
    )


_TONIGHT = {
    "sounds": (FleetFolder.SOUNDS, fleet_tables.SOUNDS),
    "drift": (FleetFolder.DRIFT, fleet_tables.DRIFT),
    "rejects": (Folder.REJECTS, tables.REJECTS),
    "unscored": (Folder.UNSCORED, tables.UNSCORED),
}


def _entry(fleet: str, night: date | None, known: Sequence[date]) -> manifests.Night:
    """
    Raises:
        UserError: there is none.
    """
    for day in reversed(known) if night is None else [night]:
        entry = manifests.newest(fleet, day)
        if entry:
            return entry
    if night is None:
        raise UserError(f"{fleet} has no nights; allowed: the --out of `ray-asd nightly`")
    near = ", ".join(day.isoformat() for day in [day for day in known if day != night][-5:]) or "none yet"
    raise UserError(f"night {night}: {fleet} has no such night; allowed: one that was scored, such as {near}")


def _all(outputs: Iterable[Output], folder: str, schema: pa.Schema) -> pa.Table:
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(lambda output: _own(output, folder, schema), outputs))
    return pa.concat_tables([schema.empty_table(), *found])


def _own(output: Output, folder: str, schema: pa.Schema) -> pa.Table:
    """A table, with what one of an earlier version lacks as nulls."""
    found = output.table(folder, schema)
    for field in schema:
        if field.name not in found.column_names:
            found = found.append_column(field, pa.nulls(found.num_rows, field.type))
    return found.select(schema.names)


def _silent(told: Mapping[str, Any], decisions: pa.Table) -> dict[Machine, date]:
    """The machines that are told of by their names."""
    known = {
        label(machine): machine
        for machine in machines(decisions.select(list(MACHINE)).group_by(list(MACHINE)).aggregate([]))
    }
    return {known.get(name, (name, "", None)): date.fromisoformat(night) for name, night in told.items()}


def _channel(uri: str) -> int | Literal["mean"]:
    """Which channel the detector hears; the first where it is gone."""
    try:
        detector = build.find(uri)
        return detectors.read(detector).members[0].audio.channel if detector else 0
    except (StageError, UserError, OSError):
        return 0
