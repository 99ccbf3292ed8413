"""Why machines alarm in a night: somebody listens to the worst clip of each, beside the healthy ones nearest to it.

Recordings may be gone or unreadable, and those of the detector's healthy clips, too: then a sentence says what can be
said without them. No night fails for that.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_asd import fleet_tables, store, tables
from ray_asd.build import Attempt, Key, Outcome, Output, archive, find
from ray_asd.build.steps import Step
from ray_asd.config import SAMPLE_RATE, Worker
from ray_asd.data import recordings
from ray_asd.data.explanation import MAX_SECONDS, PASSED, Difference, explain
from ray_asd.data.recordings import Channel, Unheard
from ray_asd.errors import StageError, UserError
from ray_asd.fleet_tables import MACHINE
from ray_asd.fleet_tables import Folder as FleetFolder
from ray_asd.scoring.alerts import Machine, Why
from ray_asd.stages.detection import detector as detectors
from ray_asd.tables import Folder

STAGE, CODE_VERSION = "why", 1
AT_MOST = 20  # machines that are listened to in a night: those that alarm most
NORMALS = 8  # healthy recordings beside a clip: its neighbours, then others of its machine
_THREADS = 4
_OF_A_KIND = 100  # healthy recordings of a machine type and section, for machines that were never enrolled
_WORKER = Worker(memory_gb=2)
_SCORED = ("clip_id", "content_hash", *MACHINE, "score", "p_value", "neighbours", "neighbour_hashes")

Row = Mapping[str, Any]


@dataclass
class _Case:
    """A machine's worst clip: its row of SCORES, its recording, and the healthy ones to hear beside it."""

    machine: Machine
    night: date
    scored: Row
    clip: Row | None = None
    normals: list[Row] = field(default_factory=list)


def step(night: Output, detector: Output) -> Step:
    """WHY of the machines that alarm most in ``night``, which ``detector`` scored."""
    return Step(
        stage=STAGE,
        name=night.marker.name,
        code_version=CODE_VERSION,
        config={"at_most": AT_MOST, "normals": NORMALS},
        inputs={"night": night},
        work=lambda attempt, inputs: _work(attempt, inputs["night"], detector),
        units=min(AT_MOST, night.marker.counts.get("alarms", AT_MOST)),
        worker=_WORKER,
        on_ray=False,
    )


def known(fleet: str, night: Output) -> Output | None:
    """What was found of a night; None where nobody has listened yet."""
    key = Key(STAGE, night.marker.name, CODE_VERSION, {"at_most": AT_MOST, "normals": NORMALS}, {"night": night.source})
    return find(key.folder(fleet))


def told(output: Output) -> dict[Machine, Why]:
    """The sentence and the clip_id of each machine, as alerts tell them."""
    rows = output.table(FleetFolder.WHY, fleet_tables.WHY).to_pylist()
    return {_machine(row): (row["sentence"], row["clip_id"]) for row in rows}


def _work(attempt: Attempt, night: Output, detector: Output) -> Outcome:
    cases = _cases(night)
    channel = detectors.read(detector).members[0].audio.channel
    _look_up(cases, night, detector)
    rows = list(recordings.ahead(lambda case: _explained(case, channel), cases, _THREADS, _THREADS))
    clips = {row["content_hash"]: row for case in cases for row in (case.clip, *case.normals) if row}
    files = [
        attempt.put_table(f"{FleetFolder.WHY}/00000.parquet", pa.Table.from_pylist(rows, fleet_tables.WHY)),
        attempt.put_table(f"{Folder.CLIPS}/00000.parquet", pa.Table.from_pylist(list(clips.values()), tables.CLIPS)),
    ]
    return Outcome(files, {"machines": len(rows), "plain": sum(row["kind"] != "nothing" for row in rows)})


def _machine(row: Row) -> Machine:
    return row["machine_type"], row["section"], row["machine_id"]


def _cases(night: Output) -> list[_Case]:
    """The machines that alarm most, each with its least healthy clip: of the lowest p-value the highest score."""
    decisions = night.table(FleetFolder.DECISIONS, fleet_tables.DECISIONS).to_pylist()
    alarming = [row for row in decisions if row["alarm"]]
    alarming.sort(key=lambda row: (row["q_value"], row["p_value"], -row["statistic"], *_named(row)))
    wanted = {_machine(row): row["night"] for row in alarming[:AT_MOST]}
    if not wanted:
        return []
    worst: dict[Machine, Row] = {}
    for row in _rows(
        night, Folder.SCORES, _SCORED, tables.SCORES, _among("machine_type", (machine[0] for machine in wanted))
    ):
        machine = _machine(row)
        if machine in wanted and (machine not in worst or _healthiness(row) < _healthiness(worst[machine])):
            worst[machine] = row
    return [_Case(machine, day, worst[machine]) for machine, day in wanted.items() if machine in worst]


def _named(row: Row) -> tuple[str, ...]:
    return tuple(row[name] or "" for name in MACHINE)


def _healthiness(row: Row) -> tuple[float, float, str]:
    return 1.0 if row["p_value"] is None else row["p_value"], -row["score"], row["clip_id"]


def _among(name: str, values: Iterable[str]) -> pc.Expression:
    return pc.field(name).isin(pa.array(sorted(set(values)), pa.string()))


def _rows(
    output: Output, folder: str, names: Sequence[str], schema: pa.Schema, where: pc.Expression
) -> Iterator[dict[str, Any]]:
    """Rows of a table that may be large, of which few are wanted, one file after the other."""
    for file in output.files(folder):
        content = pa.BufferReader(output.read(file.path))
        there = pq.read_schema(content).names
        table = pq.read_table(content, columns=[name for name in names if name in there], filters=where)
        for name in set(names) - set(there):
            table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
        yield from table.to_pylist()


def _look_up(cases: Sequence[_Case], night: Output, detector: Output) -> None:
    """Give each case the CLIPS rows of its recordings, as far as they are known."""
    wanted = [case.scored["content_hash"] for case in cases]
    heard = {
        (row["content_hash"], _machine(row), row["clip_id"]): row
        for row in _rows(night, Folder.CLIPS, tables.CLIPS.names, tables.CLIPS, _among("content_hash", wanted))
    }
    enrolled = _enrolled(cases, detector)
    healthy: dict[tuple[str, str], dict[str, Row]] = {group: {} for group in enrolled}
    for row in _recordings(cases, detector, enrolled):
        group = row["machine_type"], row["section"]
        if group in healthy and row["content_hash"] in enrolled[group]:
            healthy[group].setdefault(row["content_hash"], row)
    for case in cases:
        scored = case.scored
        case.clip = heard.get((scored["content_hash"], case.machine, scored["clip_id"]))
        case.normals = _normals(case, healthy[case.machine[:2]])


def _neighbours(cases: Iterable[_Case]) -> Iterator[str]:
    for case in cases:
        yield from case.scored["neighbour_hashes"] or []


def _enrolled(cases: Sequence[_Case], detector: Output) -> dict[tuple[str, str], set[str]]:
    """Contents of the healthy recordings that a detector knows, of each machine type and section that is wanted."""
    found: dict[tuple[str, str], set[str]] = {case.machine[:2]: set() for case in cases}
    kinds = _among("machine_type", (machine_type for machine_type, _ in found))
    folder = store.join(detectors.member_folder(0), Folder.HEALTHY)
    for row in _rows(detector, folder, ["machine_type", "section", "content_hash"], tables.HEALTHY, kinds):
        group = row["machine_type"], row["section"]
        if group in found:
            found[group].add(row["content_hash"])
    return found


def _recordings(
    cases: Sequence[_Case], detector: Output, enrolled: Mapping[tuple[str, str], set[str]]
) -> Iterator[Row]:
    """CLIPS rows of neighbours, of the machines' own recordings and of some of their kind, among all that the detector
    was made from, as far as that still is."""
    some = {content for contents in enrolled.values() for content in sorted(contents)[:_OF_A_KIND]}
    where = _among("content_hash", some | set(_neighbours(cases)))
    where |= _among("machine_id", (machine_id for *_, machine_id in (case.machine for case in cases) if machine_id))
    try:
        for output in archive.lineage(detector):
            yield from _rows(output, Folder.CLIPS, tables.CLIPS.names, tables.CLIPS, where)
    except (StageError, UserError, OSError):
        return


def _normals(case: _Case, healthy: Mapping[str, Row]) -> list[Row]:
    """The nearest first, then others of the same machine and of the condition that the nearest are of."""
    machine_id = case.machine[2]
    near = dict.fromkeys(case.scored["neighbour_hashes"] or [])
    nearest = [healthy[content] for content in near if content in healthy]
    conditions = {row["condition"] for row in nearest}
    left_out = {*near, case.scored["content_hash"]}
    others = [row for content, row in healthy.items() if content not in left_out]
    others = [row for row in others if row["machine_id"] == machine_id] or others
    others.sort(key=lambda row: (row["condition"] not in conditions, row["content_hash"]))
    return [*nearest, *others][:NORMALS]


def _explained(case: _Case, channel: Channel) -> dict[str, Any]:
    """A row of WHY."""
    found, heard = _difference(case, channel)
    low, high = found.band or (None, None)
    return {
        **dict(zip(MACHINE, case.machine, strict=True)),
        **{name: case.scored[name] for name in ("clip_id", "content_hash")},
        **{name: getattr(found, name) for name in ("sentence", "kind", "decibels")},
        **dict(zip(("low", "high", "begin", "end"), (low, high, *found.seconds), strict=True)),
        "night": case.night,
        "normals": [row["content_hash"] for row in heard],
    }


def _difference(case: _Case, channel: Channel) -> tuple[Difference, list[Row]]:
    """What the case's clip has that the normals have not, and which of these could be heard."""
    clip = _heard(case.clip, channel)
    if isinstance(clip, Unheard):
        return Difference(f"its recording cannot be heard any more: {clip.detail}", "nothing", (0.0, 0.0)), []
    sounds = [(row, _heard(row, channel)) for row in case.normals]
    there = [(row, sound) for row, sound in sounds if isinstance(sound, np.ndarray)]
    rates = [row["sample_rate"] for row in (case.clip or {}, *(row for row, _ in there))]
    lowest = min(rates, default=SAMPLE_RATE)
    highest = PASSED * lowest / 2 if lowest < SAMPLE_RATE else math.inf
    return explain(clip, [sound for _, sound in there], SAMPLE_RATE, highest), [row for row, _ in there]


def _heard(row: Row | None, channel: Channel) -> np.ndarray | Unheard:
    if row is None:
        return Unheard("recording_gone", "no table tells where it lies")
    try:
        sound = next(recordings.heard([row], channel))
        return sound if isinstance(sound, Unheard) else sound[: MAX_SECONDS * SAMPLE_RATE].copy()
    except (StageError, UserError, OSError) as error:
        return Unheard("recording_unreadable", str(error))
