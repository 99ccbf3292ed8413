"""A plant: many units of the simulated types that are recorded night after night, some of which begin to fail.

    OUT/enrol/train/fan/fan-003/20250221T010203.wav    of healthy nights before the first one
    OUT/enrol/calibration/...                          and of the last of these, which no bank should hold
    OUT/2025-03-01/fan/fan-003/20250301T010203.wav     of each night
    OUT/faults.csv                                     the truth: which unit begins to fail when, and how

Everything follows from the seed, so that any night of any unit can be rendered by itself.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial

import numpy as np

from ray_asd import store
from ray_asd.config import SAMPLE_RATE
from ray_asd.data import simulate
from ray_asd.data.audio import encode_wav
from ray_asd.data.fleet import MACHINES
from ray_asd.data.simulate import SHORTEST
from ray_asd.data.unit_sound import Seed, Session, Unit, render
from ray_asd.errors import UserError, unknown

GENERATOR_VERSION = 1  # raised when the same plant no longer gives the same bytes
PATTERN = "{machine_type}/{machine_id}/{recorded_at:%Y%m%dT%H%M%S}.wav"
ENROL, FAULTS = "enrol", "faults.csv"
_MARKER = "plant.json"  # written last
_HOURS = 6  # from midnight on, in which a night's clips are recorded
_NIGHTS_LEFT = 3  # of nominal severity, at least
_UNIT, _SESSION, _CLIP, _FAULTS, _TIMES = range(5)  # streams of random numbers


@dataclass(frozen=True)
class Plant:
    """What to simulate. ``faulty`` is the share of units that fail; ``growth`` counts the nights from the first with a
    fault to the first at ``severity``, where 1 is that of a data set's anomalies (``simulate``), of clips five times as
    long. Of the ``healthy`` nights before, the last third is for calibration.

    Raises:
        UserError: an unknown machine type, or a number out of bounds.
    """

    units: int = 200
    nights: int = 20
    clips: int = 8
    seconds: float = 2.0
    healthy: int = 8
    faulty: float = 0.1
    growth: int = 4
    severity: float = 3.0
    machines: tuple[str, ...] = tuple(MACHINES)
    first: date = date(2025, 3, 1)
    seed: int = 0

    def __post_init__(self) -> None:
        for machine in self.machines:
            if machine not in MACHINES:
                raise unknown("machine", machine, MACHINES)
        if not self.machines or len(set(self.machines)) < len(self.machines):
            raise UserError(
                f"machines {','.join(self.machines) or 'none'}: allowed: each once, of {', '.join(MACHINES)}"
            )
        for name, least, most in (
            ("units", 1, 100_000),
            ("nights", 1, 3650),
            ("clips", 1, 1000),
            ("healthy", 3, 365),
            ("growth", 0, 3650),
        ):
            if not least <= getattr(self, name) <= most:
                raise UserError(f"{name} {getattr(self, name)}: allowed: {least} to {most}")
        if not SHORTEST <= self.seconds < math.inf:
            raise UserError(f"seconds {self.seconds}: allowed: {SHORTEST} or more")
        if not 0 <= self.severity < math.inf:
            raise UserError(f"severity {self.severity}: allowed: 0 (healthy), 1 (nominal fault) or more")
        if not 0 <= self.faulty <= 1:
            raise UserError(f"faulty {self.faulty}: allowed: a share of the units, 0 to 1")
        if self.seed < 0:
            raise UserError(f"seed {self.seed}: allowed: 0 or more")

    @property
    def dates(self) -> list[date]:
        """Of the nights, in order."""
        return [self.first + timedelta(number) for number in range(self.nights)]

    def machine(self, unit: int) -> tuple[str, str]:
        """Machine type and machine_id of a unit."""
        machine_type = self.machines[unit % len(self.machines)]
        return machine_type, f"{machine_type}-{unit:03d}"


@dataclass(frozen=True)
class Failure:
    """What happens to a unit: from ``first`` on it has a fault, which is as bad as it will get from ``nominal`` on."""

    unit: int
    kind: str
    first: date
    nominal: date

    def severity(self, night: date) -> float:
        """What of its last severity is reached."""
        grown = (night - self.first).days + 1, (self.nominal - self.first).days + 1
        return min(max(grown[0] / grown[1], 0.0), 1.0)


@dataclass(frozen=True)
class _Job:
    """A night of a unit; before the first night in a folder for its split."""

    unit: int
    night: date
    folder: str


def faults(plant: Plant) -> list[Failure]:
    """Which units fail, in order.

    First nights are spread, from when two fifths of the nights are over up to when as many are left as it takes to
    get bad and be heard.
    """
    rng = np.random.default_rng((plant.seed, _FAULTS))
    count = round(plant.faulty * plant.units)
    earliest = plant.nights * 2 // 5
    latest = max(plant.nights - plant.growth - _NIGHTS_LEFT, earliest)
    begins = earliest + np.arange(count) * (latest + 1 - earliest) // max(count, 1)
    failing = rng.permutation(plant.units)[:count]
    found = []
    for unit, begin in zip(failing.tolist(), begins.tolist(), strict=True):
        kinds = MACHINES[plant.machine(unit)[0]].faults
        first = plant.first + timedelta(min(begin, plant.nights - 1))
        found.append(Failure(unit, kinds[rng.integers(len(kinds))], first, first + timedelta(plant.growth)))
    return sorted(found, key=lambda one: one.unit)


def write(plant: Plant, out: str, workers: int = 1, progress: Callable[[int, int], None] | None = None) -> int:
    """Write ``plant`` below ``out`` (a path or ``s3://``); the bytes do not depend on ``workers`` (processes).

    Returns the number of WAV files. Nothing is done when the same plant is already there. ``progress`` is called with
    files done and in all.

    Raises:
        UserError: ``out`` holds something else.
        StageError: a worker process died.
    """
    out = store.absolute(out)
    jobs = list(_jobs(plant))
    total = len(jobs) * plant.clips
    description, marker = _description(plant), store.join(out, _MARKER)
    ours = {path for job in jobs for path in _paths(plant, job)}
    if simulate.stands(out, _MARKER, description, ours | {FAULTS}):
        return total
    for done, _ in enumerate(simulate.in_processes(partial(_save, plant=plant, out=out), jobs, out, workers), 1):
        if progress:
            progress(done * plant.clips, total)
    store.write(store.join(out, FAULTS), _truth(plant))
    store.write(marker, description)
    return total


def _jobs(plant: Plant) -> Iterator[_Job]:
    train = plant.healthy - plant.healthy // 3
    for number in range(-plant.healthy, plant.nights):
        night = plant.first + timedelta(number)
        split = "train" if number + plant.healthy < train else "calibration"
        folder = night.isoformat() if number >= 0 else store.join(ENROL, split)
        yield from (_Job(unit, night, folder) for unit in range(plant.units))


def _paths(plant: Plant, job: _Job) -> list[str]:
    machine_type, machine_id = plant.machine(job.unit)
    rng = np.random.default_rng(_seed(plant, _TIMES, job))
    between = _HOURS * 3600 / plant.clips
    begins = [between * (clip + rng.random()) for clip in range(plant.clips)]
    midnight = datetime.combine(job.night, datetime.min.time(), UTC)
    names = [f"{midnight + timedelta(seconds=math.floor(begin)):%Y%m%dT%H%M%S}.wav" for begin in begins]
    return [store.join(job.folder, f"{machine_type}/{machine_id}/{name}") for name in names]


def _seed(plant: Plant, stream: int, job: _Job) -> Seed:
    return (plant.seed, stream, job.unit, job.night.toordinal())


def _save(job: _Job, plant: Plant, out: str) -> None:
    unit = Unit.drawn(plant.machine(job.unit)[0], (plant.seed, _UNIT, job.unit))
    session = Session.drawn(_seed(plant, _SESSION, job))
    failure = next((one for one in faults(plant) if one.unit == job.unit), None)
    severity = plant.severity * failure.severity(job.night) if failure else 0.0
    fault = (failure.kind if failure else None, severity)
    samples = round(plant.seconds * SAMPLE_RATE)
    for number, path in enumerate(_paths(plant, job)):
        sound = render(unit, session, fault, samples, (*_seed(plant, _CLIP, job), number))
        store.write(store.join(out, path), encode_wav(sound, SAMPLE_RATE))


def _truth(plant: Plant) -> bytes:
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["machine_type", "machine_id", "fault", "first_night", "nominal_night"])
    for one in faults(plant):
        table.writerow([*plant.machine(one.unit), one.kind, one.first, one.nominal])
    return file.getvalue().encode()


def _description(plant: Plant) -> bytes:
    settings = asdict(plant) | {name: float(getattr(plant, name)) for name in ("seconds", "severity", "faulty")}
    settings |= {"first": plant.first.isoformat(), "generator_version": GENERATOR_VERSION}
    return json.dumps(settings, indent=2).encode()
