"""What is decided on the machines of a night, and whether something else has changed, by the nights before it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ray_asd.build import Output, digest_of
from ray_asd.fleet_tables import DECISIONS, NIGHTS, Folder
from ray_asd.stages.fleet.hearing_of_night import machines

if TYPE_CHECKING:
    from ray_asd.scoring.alerts import Alert
    from ray_asd.scoring.rules import Settings

_READERS = 16


@dataclass(frozen=True)
class Past:
    """What a night is decided by: the nights before it, oldest first, and the alerts as they were before it.

    The last ``suspects`` may be the first nights of alerts yet to come; machines that were heard in the last ``recent``
    are missed where they are not.
    """

    nights: Sequence[tuple[date, Output]] = ()
    alerts: "Sequence[Alert]" = ()
    suspects: int = 3
    recent: int = 14

    def said(self) -> dict[str, Any]:
        """For the key of a night: which outputs and alerts these are."""
        spans = [[*alert.machine, alert.state, alert.verdict, *map(str, alert.nights)] for alert in self.alerts]
        ended = [str(alert.changed.when.date()) if alert.changed else None for alert in self.alerts]
        outputs = {day.isoformat(): output.marker.digest[:12] for day, output in self.nights}
        return {"nights": outputs, "alerts": digest_of([spans, ended])[:12], "spans": [self.suspects, self.recent]}

    def table(self, folder: str, schema: pa.Schema) -> pa.Table:
        """That table of all these nights."""
        return joined([output for _, output in self.nights], folder, schema)

    def recently(self, sounds: pa.Table) -> pa.Table:
        """Of SOUNDS of these nights those whose machines are missed where they are not heard."""
        first = min((day for day, _ in self.nights[-self.recent :]), default=date.max)
        return sounds.filter(pc.greater_equal(sounds["night"], pa.scalar(first, pa.date32())))


def joined(outputs: Sequence[Output], folder: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """That table of all ``outputs``, one after the other; of tables of few rows many are read at once. A column that an
    earlier version did not write is null."""
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(lambda output: output.table(folder, schema, columns), outputs))
    empty = schema.empty_table()
    return pa.concat_tables([empty.select(list(columns)) if columns else empty, *found], promote_options="default")


def decisions(output: Output) -> pa.Table:
    """DECISIONS of a night."""
    return output.table(Folder.DECISIONS, DECISIONS)


@dataclass(frozen=True)
class Tonight:
    """What is known of a night: SCORES, CALIBRATION of their detector, SOUNDS, NIGHTS, the share of rejected files."""

    night: date
    scores: pa.Table
    calibration: pa.Table
    sounds: pa.Table
    means: pa.Table
    rejected: float | None


def rejected(clips: int, rejects: int) -> float | None:
    """The share of files that were rejected; None where there were none."""
    return rejects / (clips + rejects) if clips + rejects else None


def decide(tonight: Tonight, past: Past, sounds: pa.Table, settings: "Settings") -> tuple[pa.Table, pa.Table]:
    """DECISIONS and DRIFT of a night, where ``sounds`` are SOUNDS of the nights before it."""
    from ray_asd.scoring import alerts, drift, nights

    means = past.table(Folder.NIGHTS, NIGHTS)
    suspects = [decisions(output) for _, output in past.nights[-past.suspects :]]
    healthy = alerts.healthy(means, past.alerts, suspects)
    decided = nights.decide(tonight.scores, tonight.night, healthy, tonight.calibration, settings)
    alarming = {one for one, alarm in zip(machines(decided), decided["alarm"].to_pylist(), strict=True) if alarm}
    alarming |= {alert.machine for alert in past.alerts if alert.state != "resolved"}
    counts = {day: output.marker.counts for day, output in past.nights}
    shares = {day: rejected(count["clips"], count["rejects"]) for day, count in counts.items()}
    shares[tonight.night] = tonight.rejected
    found = drift.drift(
        tonight.sounds,
        sounds,
        pa.concat_tables([means, tonight.means]),
        tonight.calibration,
        tonight.night,
        alarming,
        {day: share for day, share in shares.items() if share is not None},
    )
    return drift.held_back(decided, found), found
