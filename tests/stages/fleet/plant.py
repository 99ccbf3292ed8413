"""A small plant whose machines are recorded night by night, and what its nights come to."""

import csv
import io
import wave
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ray_asd import config, store
from ray_asd.build import Output
from ray_asd.data.source import Source
from ray_asd.fleet_tables import Folder as FleetFolder
from ray_asd.scoring.alerts import Persistence
from ray_asd.scoring.rules import Settings
from ray_asd.stages.fleet import alerting, manifests, nightly
from ray_asd.stages.fleet.dates import Arrivals, Calendar
from ray_asd.stages.fleet.manifests import Night
from ray_asd.stages.fleet.nightly import Ended, Watch
from ray_asd.stages.fleet.revisions import Fleet, Rules
from ray_asd.store import ledger
from ray_asd.tables import Folder
from stages import chain

FIRST = date(2026, 3, 1)
TYPES = ("fan", "pump")
UNITS = (("fan", "u1"), ("fan", "u2"), ("pump", "u3"))
RESOURCES = config.usage(config.Usage(), (chain.ONE_WORKER,)).resources
COLUMNS = ("uri", "machine_type", "machine_id", "recorded_at", "split")


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def at(number: int, hour: int) -> datetime:
    """A time of a night."""
    return datetime.combine(day(number), time(hour), UTC)


def sound(seed: int, machine_type: str = "fan", fault: float = 0.0) -> bytes:
    """Half a second of noise and a hum; what is faulty hisses."""
    rng = np.random.default_rng([seed, TYPES.index(machine_type) if machine_type in TYPES else 9])
    seconds = np.arange(8000) / 16000
    samples = rng.normal(size=8000) + 3 * np.sin(2 * np.pi * (120 if machine_type == "fan" else 300) * seconds)
    samples = samples + fault * np.diff(rng.normal(size=8001)) * 3
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16000)
        out.writeframes((samples / 20 * 32767).clip(-32767, 32767).astype("<i2").tobytes())
    return file.getvalue()


@dataclass
class Recorders:
    """Recordings and the CSV file of each night that names them, below ``place``."""

    place: str
    rows: dict[date, list[dict[str, str]]] = field(default_factory=dict)

    def add(self, folder: date, machine: tuple[str, str], at: datetime, content: bytes, name: str = "") -> str:
        """A recording that arrives in the folder of a night."""
        name = name or f"{machine[1]}-{at:%Y%m%dT%H%M%S}.wav"
        store.write(store.join(self.place, folder.isoformat(), name), content)
        row = dict(zip(COLUMNS, (f"{folder}/{name}", *machine, at.isoformat(), "test"), strict=True))
        self.rows.setdefault(folder, []).append(row)
        self._write(folder)
        return f"{self.place}/{folder}/{name}"

    def night(
        self, folder: date, units: Iterable[tuple[str, str]], hours: Iterable[int] = (1, 2), **faults: float
    ) -> None:
        """One recording of each machine at each of these hours."""
        for kind, unit in units:
            for hour in hours:
                seed = int(f"{folder:%m%d}{hour:02d}{int(unit[1:]):02d}")
                moment = datetime.combine(folder, time(hour), UTC)
                self.add(folder, (kind, unit), moment, sound(seed, kind, faults.get(unit, 0.0)))

    def three_nights(self) -> "Recorders":
        """Nights to be disturbed: one, one whose fan fails, and the next with a recording of that one."""
        for number in range(2):
            self.night(day(number), UNITS, u2=float(number))
        self.night(day(2), UNITS, u2=1.0)
        self.add(day(2), UNITS[0], at(1, 7), sound(77))
        return self

    def _write(self, folder: date) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(self.rows.get(folder, []))
        store.write(store.join(self.place, f"{folder}.csv"), text.getvalue().encode())

    @property
    def source(self) -> str:
        return store.join(self.place, "{night:%Y-%m-%d}.csv")


def healthy(folder: Path, root: str, clips: Mapping[str, int] = {"fan": 24, "pump": 24}) -> Output:
    """CLIPS to enrol, so many of each machine type."""
    rows = []
    for kind, count in clips.items():
        for number in range(count):
            (folder / f"{kind}{number}.wav").write_bytes(sound(10_000 + number, kind))
            rows.append(f"{kind}{number}.wav,{kind},train")
    (folder / "healthy.csv").write_text("\n".join(["uri,machine_type,split", *rows]))
    return chain.ingested(str(folder / "healthy.csv"), root)


def fleet(place: str, registry: str, **options: Any) -> Fleet:
    """One whose machines alarm easily, and whose alarms are alerts at once."""
    decisions = Settings(options.pop("rate", 0.5), options.pop("min_nights", 10))
    return Fleet(place, registry, Rules(decisions, Persistence(1, 1)), resources=RESOURCES, **options)


def watch(recorders: Recorders, **options: Any) -> Watch:
    return Watch(Arrivals(Source(recorders.source, split="test")), Calendar(), **options)


def run(place: str, registry: str, recorders: Recorders, night: date, **options: Any) -> Ended:
    tell = options.pop("tell", lambda line: None)
    return nightly.run(fleet(place, registry, **options), watch(recorders), night, tell=tell)


def state(place: str) -> dict[str, Any]:
    """All that nights come to but for times and ids: tables, manifests, alerts and their ledger."""
    found: dict[str, Any] = {}
    for one in manifests.dates(place):
        history = ledger.entries_as(Night, manifests.folder_of(place, one))
        found[f"{one}"] = [night.model_dump(exclude={"id", "when"}) for night in history]
        found |= {f"{one} {name}": table.to_pylist() for name, table in tables(place, one).items()}
    found["latest"] = Night.model_validate_json(store.read(store.join(place, manifests.LATEST))).night
    entries = ledger.entries_as(alerting.State, alerting.folder_of(place))
    found["alerts"] = [entry.model_dump(exclude={"id", "when", "who"}) for entry in entries]
    lines = store.join(place, alerting.LINES)
    found["lines"] = store.read(lines) if store.exists(lines) else b""
    return found


def tables(place: str, night: date) -> dict[str, pa.Table]:
    """All tables of the newest revision of a night."""
    last = newest(place, night)
    output = manifests.output(place, last)
    names = [*(getattr(Folder, name) for name in ("CLIPS", "REJECTS", "SCORES", "UNSCORED")), *_own()]
    return {name: output.table(name) for name in names if output.files(name)}


def _own() -> list[str]:
    return [FleetFolder.NIGHTS, FleetFolder.DECISIONS, FleetFolder.SOUNDS, FleetFolder.DRIFT]


def newest(place: str, night: date) -> Night:
    last = manifests.newest(place, night)
    assert last is not None
    return last
