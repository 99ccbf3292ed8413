"""A night: the tables of all its recordings so far, what each machine sounded like, and what is decided on it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

import pyarrow as pa

from ray_asd import fleet_tables, tables
from ray_asd.build import Attempt, File, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.config import Worker
from ray_asd.errors import StageError
from ray_asd.fleet_tables import MACHINE
from ray_asd.scoring.rules import Settings
from ray_asd.stages.detection import detector as detectors
from ray_asd.stages.fleet import deciding
from ray_asd.stages.fleet import hearing_of_night as hearing
from ray_asd.stages.fleet.deciding import Past, Tonight, joined
from ray_asd.tables import Folder

STAGE = "night"
CODE_VERSION = 1
_RECORDINGS, _SCORES, _DETECTOR = "recordings_", "scores_", "detector"  # (first parts of) the names of inputs
_GB_PER_CLIP = 6e-6  # of memory
_HEARD = (*MACHINE, "clip_id", "content_hash", "recorded_at", "sample_rate", "num_samples", "level", "clipped")
SCORED = (*MACHINE, "domain", "model_digest", "score", "neighbour_hashes")


def step(
    night: date,
    recordings: Sequence[Output],
    scores: Sequence[Output],
    detector: Output,
    past: Past,
    settings: Settings,
) -> Step:
    """The tables of ``night``: what ``recordings_of_night`` gave each of its revisions, and SCORES of those."""
    inputs = {f"{_RECORDINGS}{number:03d}": output for number, output in enumerate(recordings)}
    inputs |= {f"{_SCORES}{number:03d}": output for number, output in enumerate(scores)}
    clips = sum(output.marker.counts["clips"] for output in recordings)
    return Step(
        stage=STAGE,
        name=night.isoformat(),
        code_version=CODE_VERSION,
        config={
            "night": night.isoformat(),
            **asdict(settings),
            "past": past.said(),
            "rejects": recordings[-1].marker.summary["rejects"],
            **detectors.released(detector),
        },
        inputs={**inputs, _DETECTOR: detector},
        work=lambda attempt, inputs: _work(attempt, inputs, night, past, settings),
        units=clips,
        worker=Worker(memory_gb=round(0.5 + _GB_PER_CLIP * clips, 3)),
        on_ray=False,
    )


def _work(attempt: Attempt, inputs: Mapping[str, Output], night: date, past: Past, settings: Settings) -> Outcome:
    from ray_asd.scoring import figures, nights

    recordings, scored = (
        [output for name, output in sorted(inputs.items()) if name.startswith(first)]
        for first in (_RECORDINGS, _SCORES)
    )
    clips = joined(recordings, Folder.CLIPS, tables.CLIPS, _HEARD)
    files = [
        *_with_copies(attempt, recordings, hearing.copies(clips)),
        *_copied(attempt, recordings[-1:], Folder.REJECTS),
    ]
    files += [file for folder in (Folder.SCORES, Folder.UNSCORED) for file in _copied(attempt, scored, folder)]
    scores = joined(scored, Folder.SCORES, tables.SCORES, SCORED)
    unscored = joined(scored, Folder.UNSCORED, tables.UNSCORED)
    if len(scores) + len(unscored) != len(clips):
        raise StageError(f"{len(clips)} clips went in; {len(scores)} scores and {len(unscored)} unscored came out")
    sounds, means = figures.sounds(clips, unscored, night), nights.summary(scores, night)
    calibration = inputs[_DETECTOR].table(Folder.CALIBRATION, tables.CALIBRATION)
    rejected = deciding.rejected(len(clips), recordings[-1].marker.counts["rejects"])
    own = fleet_tables.Folder
    before = past.table(own.SOUNDS, fleet_tables.SOUNDS)
    tonight = Tonight(night, scores, calibration, sounds, means, rejected)
    decided, drift = deciding.decide(tonight, past, before, settings)
    made = {own.NIGHTS: means, own.DECISIONS: decided, own.SOUNDS: sounds, own.DRIFT: drift}
    files += [attempt.put_table(f"{folder}/00000.parquet", table) for folder, table in made.items()]
    told = hearing.told(sounds, past.recently(before), unscored, decided)
    summary = told | {"could_alarm": nights.could_alarm(decided)}
    return Outcome(files, _counts(recordings, scored, told, decided, drift), summary)


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
    recordings: Sequence[Output], scored: Sequence[Output], told: Mapping[str, Any], decided: pa.Table, drift: pa.Table
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
        "drift_fleet": drift["machine_type"].null_count,
        "drift_machines": len(set(hearing.machines(drift.filter(drift["machine_type"].is_valid())))),
        "repeated": sum(told["repeated"].values()),
        **{name: len(told[name]) for name in ("silent", "unknown", "learning")},
    }


def _of_clips(name: str) -> bool:
    return name in ("clips", "test") or name.endswith("_samples")
