"""A morning made by hand: machines in every state, two of them with recordings, and names that look like markup."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ray_asd import fleet_tables, tables
from ray_asd.data import audio
from ray_asd.fleet_tables import MACHINE, Morning
from ray_asd.scoring import alerts
from ray_asd.scoring.alerts import Alert, Change, Machine

RATE = 16_000
LAST = date(2026, 11, 25)
DAYS = [LAST - timedelta(days=back) for back in range(9, -1, -1)]
MISSING = DAYS[4]
ODD = "<script>alert('1')</script> & \"co\""
OPEN, SEEN, RESOLVED = ("fan", "00", ODD), ("fan", "00", "f2"), ("fan", "00", "f3")
SUSPECT, SILENT = ("pump", "00", None), ("valve", "01", "v1")
LEARNING, UNSCORED = ("valve", "01", "v2"), ("valve", "01", "v3")
SENTENCE = "a tone near 3.1 kHz, 12 dB above its nearest normals, 0.2 to 0.6 s"
Row = dict[str, Any]


def morning(folder: Path | None = None, healthy: int = 3, **others: Any) -> Morning:
    """The recordings lie in ``folder``; without one they are gone."""
    clips, why = _heard(folder or Path("/nowhere"), folder is not None)
    found = Morning(
        fleet="/fleet",
        night=LAST,
        revision=2,
        made_at=datetime(2026, 11, 26, 0, 50, tzinfo=UTC),
        version="v7",
        detector="/registry/versions/v7",
        output="/fleet/night/2026-11-25-0123456789ab",
        channel=0,
        days=DAYS,
        scored=frozenset(DAYS) - {MISSING},
        counts={"clips": 40, "rejects": 3, "unscored": 2, "machines": 5 + healthy},
        told={
            "could_alarm": "7 of 9 machines could alarm alone",
            "unknown": {"drill 00": 2},
            "repeated": {"fan 00 f2": 4},
        },
        silent={SILENT: DAYS[-3]},
        decisions=pa.Table.from_pylist(list(_decisions(healthy)), schema=fleet_tables.DECISIONS),
        alerts=alerts.to_table(known()),
        why=pa.Table.from_pylist(why, schema=fleet_tables.WHY),
        clips=pa.Table.from_pylist(clips, schema=tables.CLIPS),
        sounds=pa.Table.from_pylist(
            [_of(UNSCORED) | {"night": LAST, "clips": 2, "unscored": 2, "repeated": 0}], schema=fleet_tables.SOUNDS
        ),
        drift=pa.Table.from_pylist(_drift(), schema=fleet_tables.DRIFT),
        rejects=pa.Table.from_pylist(
            [{"uri": f"s3://in/{ODD}{one}.wav", "reason": "silent", "detail": "all equal"} for one in range(3)],
            schema=tables.REJECTS,
        ),
        unscored=pa.Table.from_pylist(
            [
                {"clip_id": f"x/{one}.wav", "machine_type": "valve", "section": "01"}
                | {"reason": "no_bank", "detail": "-"}
                for one in range(2)
            ],
            schema=tables.UNSCORED,
        ),
    )
    return replace(found, **others)


def known() -> list[Alert]:
    """Alerts: one open, one acknowledged, one that was false."""
    when = datetime(2026, 11, 20, 9, tzinfo=UTC)
    return alerts.in_order(
        [
            Alert("20261123-a", OPEN, (DAYS[-3], DAYS[-1]), 5.5, 1e-5, why=SENTENCE, clip_id="plant/open.wav"),
            Alert(
                *("20261121-b", SEEN, (DAYS[-5], DAYS[-2]), 4.5, 1e-4),
                state="acknowledged",
                changed=Change(f"bob {ODD}", when, f"ordered {ODD}"),
            ),
            Alert(
                *("20261117-c", RESOLVED, (DAYS[1], DAYS[2]), 4.0, 1e-3),
                state="resolved",
                verdict="false",
                changed=Change("ann", when, ""),
                why="noise above 2.0 kHz",
            ),
        ]
    )


def _of(machine: Machine) -> Row:
    return dict(zip(MACHINE, machine, strict=True))


def _decisions(healthy: int) -> Any:
    units = [OPEN, SEEN, RESOLVED, SUSPECT, LEARNING, *(("fan", "00", f"h{one:03d}") for one in range(healthy))]
    alarms: Mapping[Machine, set[date]] = {one.machine: set(one.nights) for one in known()} | {SUSPECT: {LAST}}
    for day in DAYS:
        if day == MISSING:
            continue
        for number, machine in enumerate(units):
            is_known = machine != LEARNING
            alarm = day in alarms.get(machine, set())
            statistic = (4.0 if alarm else 0.1 * number % 2 - 0.5) if is_known else None
            yield {
                **_of(machine),
                "night": day,
                "clips": 4,
                "rule": "nights" if is_known else None,
                "statistic": statistic,
                "p_value": (1e-4 if alarm else 0.5) if is_known else None,
                "q_value": (1e-3 if alarm else 0.5) if is_known else None,
                "could_alarm": is_known,
                "alarm": alarm if is_known else None,
                "detail": None if is_known else "3 past nights of 10",
            }


def _heard(folder: Path, are_there: bool) -> tuple[list[Row], list[Row]]:
    clips, why = [], []
    for name, machine, tone in (("open", OPEN, 3100.0), ("suspect", SUSPECT, 900.0)):
        rows = [_recorded(folder / f"{name}{one}.wav", machine, one, tone * (one == 0), are_there) for one in range(3)]
        rows[0]["clip_id"] = f"plant/{name}.wav"
        clips += rows
        why.append(
            _of(machine)
            | {name: rows[0][name] for name in ("clip_id", "content_hash")}
            | {"night": LAST, "sentence": SENTENCE, "kind": "tone", "low": 0.9 * tone, "high": 1.1 * tone}
            | {"decibels": 12.0, "begin": 0.2, "end": 0.6, "normals": [row["content_hash"] for row in rows[1:]]}
        )
    return clips, why


def _recorded(path: Path, machine: Machine, seed: int, tone: float, is_there: bool) -> Row:
    time = np.arange(RATE) / RATE
    noise = 0.01 * np.random.default_rng([seed, len(path.name)]).standard_normal(RATE)
    data = audio.encode_wav(noise + 0.2 * np.sin(2 * np.pi * tone * time), RATE)
    if is_there:
        path.write_bytes(data)
    return _of(machine) | {
        "clip_id": f"plant/{path.name} {ODD}",
        "split": "test",
        "uri": str(path),
        "dataset": "plant",
        "sample_rate": RATE,
        "channels": 1,
        "num_samples": RATE,
        "size_bytes": len(data),
        "content_hash": audio.content_hash(data),
    }


def _drift() -> list[Row]:
    one = {"night": LAST, "before": -30.0, "now": -24.0, "p_value": 1e-4}
    own = _of(SEEN) | one | {"what": "scores", "detail": f"its scores {ODD} are higher", "advice": "enrol it again"}
    return [own, one | {"what": "level", "detail": "the fleet is 6 dB louder", "advice": "check the microphones"}]
