"""A simulated fleet in the layout of DCASE 2023 Task 2 (development set): planned, rendered, written.

The plan fixes every recording with its own seed, so that any of them can be rendered anywhere, in any order.
"""

import csv
import io
import json
import math
import multiprocessing
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ray_asd import store
from ray_asd.config import SAMPLE_RATE
from ray_asd.data.audio import encode_wav
from ray_asd.data.fleet import MACHINES
from ray_asd.data.machines import Fault
from ray_asd.data.sound import record
from ray_asd.errors import StageError, UserError, unknown
from ray_asd.tables import DOMAINS, LABELS

GENERATOR_VERSION = 1  # raised when the same fleet no longer gives the same bytes
MARKER = "fleet.json"  # written last: what lies beside it is complete
SHORTEST = 1.0  # s
Item = TypeVar("Item")


@dataclass(frozen=True)
class Fleet:
    """What to simulate. ``test`` counts clips per domain and label; ``severity`` 0 is healthy, 1 a nominal fault.

    Raises:
        UserError: an unknown machine, or a number out of bounds.
    """

    machines: tuple[str, ...] = tuple(MACHINES)
    train_source: int = 990
    train_target: int = 10
    test: int = 50
    seconds: float = 10.0
    severity: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.machines:
            raise UserError(f"no machines chosen; allowed: {', '.join(MACHINES)}")
        for machine in self.machines:
            if machine not in MACHINES:
                raise unknown("machine", machine, MACHINES)
            if self.machines.count(machine) > 1:
                raise UserError(f"machine {machine!r} is named twice")
        for count in ("train_source", "train_target", "test"):
            if not 1 <= getattr(self, count) <= 10_000:
                raise UserError(f"{count} {getattr(self, count)}: allowed: 1 to 10000 clips")
        if not SHORTEST <= self.seconds < math.inf:
            raise UserError(f"seconds {self.seconds}: allowed: {SHORTEST} or more")
        if not 0 <= self.severity < math.inf:
            raise UserError(f"severity {self.severity}: allowed: 0 (healthy), 1 (nominal fault) or more")
        if self.seed < 0:
            raise UserError(f"seed {self.seed}: allowed: 0 or more")


@dataclass(frozen=True)
class Recording:
    """One planned clip. ``path`` is relative to the data set; ``fault`` is None for a normal clip."""

    machine: str
    path: str
    split: str
    domain: str
    label: str
    attributes: dict[str, str]
    fault: str | None
    severity: float
    seed: tuple[int, ...]


def plan(fleet: Fleet) -> list[Recording]:
    """Every recording of ``fleet``: per machine the training clips, then the test clips, by domain and label."""
    counts = {
        ("train", "source", "normal"): fleet.train_source,
        ("train", "target", "normal"): fleet.train_target,
        **{("test", domain, label): fleet.test for domain in DOMAINS for label in LABELS},
    }
    return [
        recording
        for machine in fleet.machines
        for (split, domain, label), count in counts.items()
        for recording in _recordings(fleet, machine, split, domain, label, count)
    ]


def _recordings(fleet: Fleet, machine: str, split: str, domain: str, label: str, count: int) -> Iterator[Recording]:
    kind = MACHINES[machine]
    conditions = kind.conditions(domain)
    stream = (fleet.seed, zlib.crc32(f"{machine}/{split}/{domain}/{label}".encode()))
    shuffled = np.random.default_rng(stream).permutation(count) % len(conditions)  # balanced, in no order
    for number, condition in enumerate(shuffled):
        attributes = conditions[condition]
        tail = "_".join(f"{name}_{value}" for name, value in attributes.items())
        yield Recording(
            machine=machine,
            path=f"{machine}/{split}/section_00_{domain}_{split}_{label}_{number:04d}_{tail}.wav",
            split=split,
            domain=domain,
            label=label,
            attributes=attributes,
            fault=kind.faults[number % len(kind.faults)] if label == "anomaly" else None,
            severity=fleet.severity if label == "anomaly" else 0.0,
            seed=(*stream, number),
        )


def render(recording: Recording, seconds: float) -> NDArray[np.float32]:
    """The waveform of ``recording``: float32 [T] within [-1, 1] at 16 kHz.

    Machine, fault and room each draw from a stream of their own: changing the severity leaves all else as it was.
    """
    machine = MACHINES[recording.machine]
    motion, damage, room = (np.random.default_rng((*recording.seed, stream)) for stream in range(3))
    fault = Fault(recording.fault, recording.severity, damage)
    sound = machine.sound(recording.attributes, fault, round(seconds * SAMPLE_RATE), motion)
    return record(sound, machine.place(recording.attributes, recording.domain), room)


def write(fleet: Fleet, out: str, workers: int = 1, progress: Callable[[int, int], None] | None = None) -> int:
    """Write ``fleet`` below ``out`` (a path or ``s3://``); the bytes do not depend on ``workers`` (processes).

    Returns the number of WAV files. Nothing is done when the same fleet is already there. ``progress`` is called with
    files done and in all.

    Raises:
        UserError: ``out`` holds something else.
        StageError: a worker process died.
    """
    out = store.absolute(out)
    recordings = plan(fleet)
    tables = {f"{machine}/attributes_00.csv": _attributes(recordings, machine) for machine in fleet.machines}
    description = _description(fleet)
    if stands(out, MARKER, description, {recording.path for recording in recordings} | set(tables)):
        return len(recordings)
    save = partial(_save, seconds=fleet.seconds, out=out)
    for done, _ in enumerate(in_processes(save, recordings, out, workers), 1):
        if progress:
            progress(done, len(recordings))
    for path, table in tables.items():
        store.write(store.join(out, path), table)
    store.write(store.join(out, MARKER), description)
    return len(recordings)


def _description(fleet: Fleet) -> bytes:
    """What ``fleet.json`` holds: equal for fleets of equal content."""
    numbers = {"seconds": float(fleet.seconds), "severity": float(fleet.severity)}
    settings = {**asdict(fleet), **numbers, "machines": sorted(fleet.machines), "generator_version": GENERATOR_VERSION}
    return json.dumps(settings, indent=2).encode()


def stands(out: str, name: str, description: bytes, ours: set[str]) -> bool:
    """Whether the fleet of this description, in the file ``name``, lies in ``out``.

    Raises:
        UserError: anything else does.
    """
    marker = store.join(out, name)
    if store.exists(marker):
        if store.read(marker) != description:
            raise UserError(f"{marker} describes another fleet; allowed: the same settings, or another place")
        return True
    if store.exists(out) and not store.is_folder(out):
        raise UserError(f"{out} is a file; allowed: an empty or new place")
    for entry in store.listing(out):
        if entry.path not in ours:
            raise UserError(f"{out} holds {entry.path}, which is not of this fleet; allowed: an empty or new place")
    return False


def in_processes(save: Callable[[Item], None], items: Sequence[Item], out: str, workers: int) -> Iterator[None]:
    """Each of ``items`` saved below ``out``, in order.

    Raises:
        UserError: no such number of processes.
        StageError: one of them died.
    """
    if workers < 1:
        raise UserError(f"workers {workers}: allowed: 1 or more")
    if workers == 1:
        yield from map(save, items)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(save, items, chunksize=16)
        except BrokenProcessPool as error:
            raise StageError(f"a process that wrote to {out} died; run the same command again") from error


def _save(recording: Recording, seconds: float, out: str) -> None:
    store.write(store.join(out, recording.path), encode_wav(render(recording, seconds), SAMPLE_RATE))


def _attributes(recordings: list[Recording], machine: str) -> bytes:
    """The attributes table of one machine as CSV: file name, then parameter and value in pairs."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    pairs = len(MACHINES[machine].source)
    table.writerow(["file_name", *(f"d{n}{part}" for n in range(1, pairs + 1) for part in "pv")])
    for recording in recordings:
        if recording.machine == machine:
            table.writerow([recording.path, *(text for pair in recording.attributes.items() for text in pair)])
    return file.getvalue().encode()
