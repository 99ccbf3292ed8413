"""A night: the tables of all its recordings so far, what each machine sounded like, and what is decided on it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ray_asd import fleet_tables, tables
from ray_asd.build import Attempt, File, Outcome, Output, digest_of
from ray_asd.build.steps import Step
from ray_asd.config import Worker
from ray_asd.errors import StageError, UserError
from ray_asd.fleet_tables import MACHINE
from ray_asd.stages.detection import detector as detectors
from ray_asd.tables import Folder

if TYPE_CHECKING:
    from ray_asd.scoring.alerts import Alert

STAGE = "night"
CODE_VERSION = 1
_RECORDINGS, _SCORES, _DETECTOR = "recordings_", "scores_", "detector"  # (first parts of) the names of inputs
_GB_PER_CLIP = 6e-6  # of memory
_READERS = 16
_TOLD = (*MACHINE, "clip_id", "content_hash", "recorded_at")
SCORED = (*MACHINE, "domain", "model_digest", "score")


@dataclass(frozen=True)
class Rate:
    """As ``scoring.nights.Settings``, which is there once a night is decided on: a rerun asks for less.

    Raises:
        UserError: one of them makes no sense.
    """

    rate: float = 0.1
    min_nights: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise UserError(f"--rate {self.rate}; allowed: a share between 0 and 1")
        if self.min_nights < 2:
            raise UserError(f"--min-nights {self.min_nights}; allowed: 2 or more")


@dataclass(frozen=True)
class Past:
    """What a night is decided by: the nights before it, oldest first, and the alerts as they were before it.

    ``suspects`` of the nights may be the first ones of alerts yet to come, the machines of ``heard`` are missed where
    they are not there; both are counted from the end.
    """

    nights: Sequence[tuple[date, Output]] = ()
    alerts: "Sequence[Alert]" = ()
    suspects: int = 3
    heard: int = 14

    def said(self) -> dict[str, Any]:
        """For the key of a night: which outputs and alerts these are."""
        spans = [[*alert.machine, alert.state, alert.verdict, *map(str, alert.nights)] for alert in self.alerts]
        ended = [str(alert.changed.when.date()) if alert.changed else None for alert in self.alerts]
        outputs = {day.isoformat(): output.marker.digest[:12] for day, output in self.nights}
        return {"nights": outputs, "alerts": digest_of([spans, ended])[:12], "spans": [self.suspects, self.heard]}


def step(
    night: date,
    recordings: Sequence[Output],
    scores: Sequence[Output],
    detector: Output,
    past: Past,
    settings: Rate,
) -> Step:
    """The tables of ``night``: what ``recordings_of_night`` gave each of its revisions, and SCORES of those."""
    inputs = {f"{_RECORDINGS}{number:03d}": output for number, output in enumerate(recordings)}
    inputs |= {f"{_SCORES}{number:03d}": output for number, output in enumerate(scores)}
    clips = sum(output.marker.counts["clips"] for output in recordings)
    return Step(
        stage=STAGE,
        name=night.isoformat(),
        code_version=CODE_VERSION,
        config={"night": night.isoformat(), **asdict(settings), "past": past.said(), **detectors.released(detector)},
        inputs={**inputs, _DETECTOR: detector},
        work=lambda attempt, inputs: _work(attempt, inputs, night, past, settings),
        units=clips,
        worker=Worker(memory_gb=round(0.5 + _GB_PER_CLIP * clips, 3)),
        on_ray=False,
    )


def _work(attempt: Attempt, inputs: Mapping[str, Output], night: date, past: Past, settings: Rate) -> Outcome:
    from ray_asd.scoring import alerts, nights
    from ray_asd.stages.fleet import hearing_of_night as hearing

    recordings, scored = (
        [output for name, output in sorted(inputs.items()) if name.startswith(first)]
        for first in (_RECORDINGS, _SCORES)
    )
    clips = joined(recordings, Folder.CLIPS, tables.CLIPS, _TOLD)
    copies = hearing.copies(clips)
    files = [*_with_copies(attempt, recordings, copies), *_copied(attempt, recordings[-1:], Folder.REJECTS)]
    files += [file for folder in (Folder.SCORES, Folder.UNSCORED) for file in _copied(attempt, scored, folder)]
    scores = joined(scored, Folder.SCORES, tables.SCORES, SCORED)
    unscored = joined(scored, Folder.UNSCORED, tables.UNSCORED)
    if len(scores) + len(unscored) != len(clips):
        raise StageError(f"{len(clips)} clips went in; {len(scores)} scores and {len(unscored)} unscored came out")
    calibration = inputs[_DETECTOR].table(Folder.CALIBRATION, tables.CALIBRATION)
    before = [output for _, output in past.nights]
    means = joined(before, fleet_tables.Folder.NIGHTS, fleet_tables.NIGHTS)
    suspects = [decisions(output) for output in before[-past.suspects :]]
    decided = nights.decide(
        scores, night, alerts.healthy(means, past.alerts, suspects), calibration, nights.Settings(**asdict(settings))
    )
    sounds = hearing.sounds(clips, unscored, copies, night)
    heard = joined(before[-past.heard :], fleet_tables.Folder.SOUNDS, fleet_tables.SOUNDS)
    own = fleet_tables.Folder
    made = {own.NIGHTS: nights.summary(scores, night), own.DECISIONS: decided, own.SOUNDS: sounds}
    files += [attempt.put_table(f"{folder}/00000.parquet", table) for folder, table in made.items()]
    told = hearing.told(sounds, heard, unscored, decided)
    return Outcome(
        files, _counts(recordings, scored, told, decided), told | {"could_alarm": nights.could_alarm(decided)}
    )


def joined(outputs: Sequence[Output], folder: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """That table of all ``outputs``, one after the other; of tables of few rows many are read at once."""
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(lambda output: output.table(folder, schema, columns), outputs))
    empty = schema.empty_table()
    return pa.concat_tables([empty.select(list(columns)) if columns else empty, *found])


def decisions(output: Output) -> pa.Table:
    """DECISIONS of a night."""
    return output.table(fleet_tables.Folder.DECISIONS, fleet_tables.DECISIONS)


def _with_copies(attempt: Attempt, recordings: Sequence[Output], copies: Mapping[int, str]) -> list[File]:
    """CLIPS file by file, each recording that has the content of another one of its machine saying which."""
    files, first = [], 0
    for number, output in enumerate(recordings):
        for file in output.files(Folder.CLIPS):
            part = output.part(file.path)
            place = part.column_names.index("duplicate_of")
            column = pa.array([copies.get(first + row) for row in range(len(part))], pa.string())
            part = part.set_column(place, tables.CLIPS.field("duplicate_of"), column)
            files.append(attempt.put_table(_path(number, file), part))
            first += len(part)
    return files or [attempt.put_table(f"{Folder.CLIPS}/none.parquet", tables.CLIPS.empty_table())]


def _copied(attempt: Attempt, outputs: Sequence[Output], folder: str) -> list[File]:
    return [
        attempt.put(_path(number, file), output.read(file.path), file.rows)
        for number, output in enumerate(outputs)
        for file in output.files(folder)
    ]


def _path(number: int, file: File) -> str:
    folder, _, name = file.path.partition("/")
    return f"{folder}/{number:03d}-{name}"


def _counts(
    recordings: Sequence[Output], scored: Sequence[Output], told: Mapping[str, Any], decided: pa.Table
) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for output in recordings:
        counts.update({name: value for name, value in output.marker.counts.items() if _of_clips(name)})
    for output in scored:
        unscored = {name: value for name, value in output.marker.counts.items() if name.startswith("unscored")}
        counts.update({**unscored, "scored": output.marker.counts["clips"]})
    alarms = sum(bool(alarm) for alarm in decided["alarm"].to_pylist())
    return {
        **dict.fromkeys(("clips", "scored", "unscored"), 0),
        **counts,
        **{name: value for name, value in recordings[-1].marker.counts.items() if name.startswith("reject")},
        "machines": len(decided),
        "alarms": alarms,
        "repeated": sum(told["repeated"].values()),
        **{name: len(told[name]) for name in ("silent", "unknown", "learning")},
    }


def _of_clips(name: str) -> bool:
    return name in ("clips", "test") or name.endswith("_samples")
