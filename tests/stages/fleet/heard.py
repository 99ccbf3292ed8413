"""Nights of machines of which real recordings lie there, and a detector of healthy ones: tables in place of stages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from ray_asd import build, fleet_tables, store, tables
from ray_asd.build import Attempt, Key, Outcome, Output
from ray_asd.config import Threshold
from ray_asd.data import audio
from ray_asd.fleet_tables import MACHINE
from ray_asd.fleet_tables import Folder as FleetFolder
from ray_asd.scoring.alerts import Machine
from ray_asd.stages.detection import assembly, enroll
from ray_asd.stages.detection.healthy import Source
from ray_asd.stages.fleet import manifests
from ray_asd.stages.training.usage import SPECTRAL, features
from ray_asd.tables import Folder

RATE = 16_000
LAST = date(2026, 11, 25)
Row = dict[str, Any]


def wave(seed: int, tone: float | None = None, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """Noise and hum; with a tone of that many Hz from 0.8 to 1.5 s it is no healthy machine's."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    sound = 0.02 * rng.standard_normal(len(time)) + 0.02 * np.sin(2 * np.pi * 120 * time + rng.random())
    if tone:
        sound += 0.05 * np.sin(2 * np.pi * tone * time) * ((time > 0.8) & (time < 1.5))
    return sound.astype(np.float32)


def recorded(uri: str, machine: Machine, sound: np.ndarray, split: str, rate: int = RATE, **more: Any) -> Row:
    """A recording, and its row of CLIPS."""
    data = audio.encode_wav(sound, rate)
    store.write(uri, data)
    return {
        **dict(zip(MACHINE, machine, strict=True)),
        "clip_id": f"plant/{store.name(uri)}",
        "dataset": "plant",
        "uri": uri,
        "split": split,
        "sample_rate": rate,
        "channels": 1,
        "num_samples": len(sound),
        "size_bytes": len(data),
        "content_hash": audio.content_hash(data),
        "condition": machine[0],
        **more,
    }


def output(root: str, stage: str, name: str, found: Mapping[str, pa.Table], **more: Any) -> Output:
    """What a stage with these tables would have left."""
    inputs = more.pop("inputs", {})
    counts, summary = more.pop("counts", {}), more.pop("summary", {})
    digests = {folder: build.digest_of(str(table.to_pylist())) for folder, table in found.items()}

    def work(attempt: Attempt) -> Outcome:
        files = [attempt.put_table(f"{folder}/00000.parquet", table) for folder, table in found.items()]
        return Outcome(files, counts, summary)

    return build.run(root, Key(stage, name, 1, {"tables": digests, "told": summary}, inputs), work)


def detector(root: str, enrolled: Sequence[Row], tag: str = "") -> Output:
    """Of these healthy CLIPS; its vectors are random."""
    clips = pa.Table.from_pylist(list(enrolled), schema=tables.CLIPS)
    ingested = output(root, "ingest", f"plant{tag}", {Folder.CLIPS: clips}, counts={"train": len(enrolled)})
    vectors = np.random.default_rng(0).standard_normal((len(enrolled), 4), np.float32)
    names = ("machine_type", "section", "clip_id", "content_hash")
    rows = [{name: row[name] for name in names} | {"twins": [], "role": "bank"} for row in enrolled]
    source = Source(pa.Table.from_pylist(rows, schema=tables.HEALTHY), lambda: iter([vectors]))

    def work(attempt: Attempt) -> Outcome:
        member = features(SPECTRAL)
        return assembly.made(attempt, assembly.Plan([member], [[source]], [member.provenance()], Threshold(), {}))

    key = Key("enroll", f"plant{tag}", enroll.CODE_VERSION, {}, {"clips": ingested.source})
    return build.run(root, key, work)


def scored(row: Row, score: float, p_value: float | None, neighbours: Sequence[Row] = ()) -> Row:
    """A row of SCORES."""
    names = ("clip_id", *MACHINE, "split", "content_hash")
    return {name: row[name] for name in names} | {
        "score": score,
        "p_value": p_value,
        "neighbours": [near["clip_id"] for near in neighbours],
        "neighbour_hashes": [near["content_hash"] for near in neighbours],
        "distances": [0.1] * len(neighbours),
        "system": "spectral",
        "model_digest": "made up",
    }


def decided(machine: Machine, statistic: float | None, day: date = LAST, alarm: bool | None = None) -> Row:
    """A row of DECISIONS; an alarm from 3 on. None: the machine is learning."""
    known = statistic is not None
    p_value = float(10 ** -(statistic or 0.0)) if known else None
    return {
        **dict(zip(MACHINE, machine, strict=True)),
        "night": day,
        "clips": 2,
        "rule": "nights" if known else None,
        "statistic": statistic,
        "p_value": p_value,
        "q_value": p_value,
        "smallest": 1e-4 if known else None,
        "could_alarm": known,
        "alarm": (statistic or 0.0) >= 3 if known and alarm is None else alarm,
        "detail": None if known else "3 past nights of 10, and no 20 calibration clips of its kind",
    }


@dataclass
class Nights:
    """A fleet whose nights are made of tables."""

    fleet: str
    detector: Output
    version: str = "v1"
    made: list[Output] = field(default_factory=list)

    def add(
        self,
        day: date,
        decisions: Sequence[Row],
        clips: Sequence[Row] = (),
        scores: Sequence[Row] = (),
        told: Mapping[str, Any] | None = None,
        revision: int = 1,
        **others: pa.Table,
    ) -> Output:
        """A night of the fleet; ``told`` is what its summary says."""
        own = {
            Folder.CLIPS: pa.Table.from_pylist(list(clips), schema=tables.CLIPS),
            Folder.SCORES: pa.Table.from_pylist(list(scores), schema=tables.SCORES),
            Folder.UNSCORED: others.pop("unscored", tables.UNSCORED.empty_table()),
            Folder.REJECTS: others.pop("rejects", tables.REJECTS.empty_table()),
            FleetFolder.DECISIONS: pa.Table.from_pylist(list(decisions), schema=fleet_tables.DECISIONS),
            **others,
        }
        told = {"silent": {}, "unknown": {}, "learning": {}, "repeated": {}, "could_alarm": "", **(told or {})}
        counts = {
            "clips": 2 * len(decisions),
            "scored": 2 * len(decisions),
            "machines": len(decisions),
            **{folder: len(own[folder]) for folder in (Folder.UNSCORED, Folder.REJECTS)},
            **{name: len(told[name]) for name in ("silent", "unknown", "learning", "repeated")},
            "alarms": sum(bool(row["alarm"]) for row in decisions),
        }
        inputs = {"detector": self.detector.source}
        found = output(self.fleet, "night", day.isoformat(), own, counts=counts, summary=told, inputs=inputs)
        entry = manifests.Night(
            night=day,
            revision=revision,
            why="night" if revision == 1 else "late",
            when=datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC) + timedelta(minutes=50),
            detector=self.detector.uri,
            version=self.version,
            output=found.uri.removeprefix(f"{self.fleet}/"),
            counts=counts,
        )
        assert manifests.append(self.fleet, entry)
        self.made.append(found)
        return found
