"""The driver's memory as archives grow: listed, ingested and scored, by hundreds of thousands and millions of clips.

    python -m ray_asd.benchmarks.planning
    python -m ray_asd.benchmarks.planning --clips 1000000 --clips 10000000 --folder /mnt/large

The recordings are there, as hard links to a few: listing finds each by its own name. What they hold was found by an
earlier ingest, which is made up, each another content but for one copy in a hundred; so none is decoded, while all
else of an ingest is done. Scoring compares every clip with a real bank, but by an embedding that stands in for the
model. Each size has a process of its own as driver, on a Ray of its own.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import numpy as np
import pyarrow as pa

from ray_asd import build, store, tables
from ray_asd.benchmarks.own_process import last_line, peak_mib
from ray_asd.build import Attempt, File, Key, Outcome, Output, steps
from ray_asd.config import SAMPLE_RATE, Resources, Worker
from ray_asd.data.audio import encode_wav
from ray_asd.data.source import Source
from ray_asd.engine.progress import silent
from ray_asd.stages.detection import enroll, score
from ray_asd.stages.recordings import ingest
from ray_asd.stages.training import usage
from ray_asd.tables import Folder

if TYPE_CHECKING:
    from ray_asd.stages.detection.stream import Clips

HEALTHY = 40  # real recordings behind the detector
IN_FOLDER = 5_000  # recordings of one folder
LINKS = 50_000  # of one file; file systems have bounds
KNOWN = 512  # rows of a file of INSPECTED
COPIES = 100  # one in so many has the content of another
_MIB = 1 << 20
_Made = TypeVar("_Made")


@click.group(invoke_without_command=True)
@click.option("--clips", "sizes", default=[20_000, 200_000], multiple=True, show_default=True, help="Repeatable.")
@click.option("--folder", type=click.Path(file_okay=False), help="Where all is written; a temporary one by default.")
@click.option("--score/--no-score", "scores", default=True, show_default=True, help="Whether they are scored too.")
@click.pass_context
def main(context: click.Context, sizes: tuple[int, ...], folder: str | None, scores: bool) -> None:
    """List, ingest and score archives of growing size; print the driver's largest memory after each."""
    if context.invoked_subcommand:
        return
    from ray_asd.benchmarks import measure  # torch, which drivers do not load

    found = {}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        if scores:
            last_line(__spec__.name, "enrol", place)
        for size in sizes:
            last_line(__spec__.name, "write", place, size)
            found[size] = json.loads(last_line(__spec__.name, "run", place, size))
            store.remove(store.join(place, str(size)))
    click.echo(measure.hardware("ray", "pyarrow"))
    phases = list(found[sizes[0]])
    rows = [[f"{size:,}", *(f"{mib:.0f}, {seconds:.0f}" for mib, seconds in found[size].values())] for size in sizes]
    click.echo(measure.table(["clips", *(f"{phase}: MiB, s" for phase in phases)], rows) + "\n")
    first, last = sizes[0], sizes[-1]
    if last > first:
        for phase in phases:
            before, after = found[first][phase][0], found[last][phase][0]
            per_clip = (after - before) * _MIB / (last - first)
            click.echo(f"{phase}: {after / before:.2f} times the memory, {per_clip:.1f} bytes a clip")


@main.command(hidden=True)
@click.argument("folder")
def enrol(folder: str) -> None:
    """A detector, to score all archives with."""
    from ray_asd.engine import connection

    source, root = store.join(folder, "healthy"), store.join(folder, "root")
    for number in range(HEALTHY):
        name = f"section_00_source_train_normal_{number:04d}.wav"
        store.write(store.join(source, "fan", "train", name), _tone(number))
    with connection.connected():
        healthy = steps.ensure(ingest.step(Source(source, "dcase2023"), Worker(), silent), root)
        detector = steps.ensure(enroll.step(usage.use_together(["spectral"], None, ()), healthy, silent), root)
    Path(folder, "detector").write_text(detector.uri)


@main.command(hidden=True)
@click.argument("folder")
@click.argument("clips", type=int)
def write(folder: str, clips: int) -> None:
    """An archive of so many recordings, and what an earlier ingest knew of them."""
    source, root = _places(folder, clips)
    key = Key("ingest", Source(source).name, ingest.CODE_VERSION, {"source": source}, {})
    build.run(root, key, lambda attempt: _known(attempt, source, clips))


def _tone(number: int) -> bytes:
    time_axis = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    noise = np.random.default_rng(number).standard_normal(SAMPLE_RATE) / 50
    return encode_wav((0.1 * np.sin(2 * np.pi * 440 * time_axis) + noise).astype(np.float32), SAMPLE_RATE)


def _linked(source: str, clips: int) -> Iterator[range]:
    """The numbers of the recordings that are in one folder, once they are there."""
    content, original = _tone(0), ""
    for first in range(0, clips, IN_FOLDER):
        numbers = range(first, min(first + IN_FOLDER, clips))
        if first % LINKS == 0:
            original = store.join(source, f".original{first}")  # hidden: no recording
            store.write(original, content)
            os.utime(original, (0, 0))
        os.makedirs(store.parent(_place(source, first)))
        for number in numbers:
            os.link(original, _place(source, number))
        yield numbers


def _place(source: str, number: int) -> str:
    return f"{source}/{number // IN_FOLDER:06d}/fan/test/section_00_source_test_normal_{number:08d}.wav"


def _known(attempt: Attempt, source: str, clips: int) -> Outcome:
    """INSPECTED of all recordings."""
    facts = {"version": "0.0", "size_bytes": len(_tone(0)), "sample_rate": SAMPLE_RATE, "channels": 1}
    facts |= {"num_samples": SAMPLE_RATE, "level": -20.0, "clipped": 0.0}
    facts |= dict.fromkeys(("reason", "detail", "dead_channels", "streamed"))
    files: list[File] = []
    for folder in _linked(source, clips):
        for numbers in (folder[start : start + KNOWN] for start in range(0, len(folder), KNOWN)):
            columns: dict[str, Any] = {name: [fact] * len(numbers) for name, fact in facts.items()}
            columns["uri"] = [_place(source, number) for number in numbers]
            columns["content_hash"] = [_content(number) for number in numbers]
            table = pa.table({name: columns[name] for name in tables.INSPECTED.names}, schema=tables.INSPECTED)
            files.append(attempt.put_table(f"{Folder.INSPECTED}/{len(files):05d}.parquet", table))
    return Outcome(files, {"clips": 0})


def _content(number: int) -> str:
    return hashlib.sha256(str(number - number % COPIES if number % COPIES == 1 else number).encode()).hexdigest()


def _places(folder: str, clips: int) -> tuple[str, str]:
    return store.join(folder, str(clips), "fleet"), store.join(folder, str(clips), "root")


@main.command(hidden=True)
@click.argument("folder")
@click.argument("clips", type=int)
def run(folder: str, clips: int) -> None:
    """One archive's driver; prints the largest memory so far in MiB and the seconds of each phase."""
    from ray_asd.engine import connection

    source, root = _places(folder, clips)
    enrolled = Path(folder, "detector")
    measured: dict[str, tuple[float, float]] = {}

    def timed(phase: str, work: Callable[[], _Made]) -> _Made:
        begun = time.monotonic()
        made = work()
        measured[phase] = peak_mib(), time.monotonic() - begun
        return made

    step = timed("listed", lambda: ingest.step(Source(source, "dcase2023"), Worker(), silent))
    with connection.connected():
        recordings = timed("ingested", lambda: steps.ensure(step, root))
        for count, expected in (("clips", clips), ("taken_over", clips), ("duplicates", -(-(clips - 1) // COPIES))):
            _check(recordings, count, expected)
        if enrolled.exists():
            detector = build.resolve(enrolled.read_text(), "enroll")
            scoring = score.step(detector, recordings, Resources(), silent, _unheard())
            _check(timed("scored", lambda: steps.ensure(scoring, root)), "clips", clips)
    click.echo(json.dumps(measured))


def _unheard() -> "type[Clips]":
    """Scores by an embedding that is the same for every clip: recordings are neither read nor heard."""
    from ray_asd.stages.detection.hearing import Heard
    from ray_asd.stages.detection.stream import Clips

    class Unheard(Clips):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            dim = self.card.members[0].dim
            self.models = [lambda rows: Heard(np.arange(rows.num_rows), np.full((rows.num_rows, dim), 0.5, np.float32))]  # type: ignore[list-item]

    return Unheard


def _check(output: Output, count: str, expected: int) -> None:
    found = output.marker.counts.get(count, 0)
    if found != expected:
        raise click.ClickException(f"{found} {count} of {expected} came out: {output.uri}")


if __name__ == "__main__":
    main()
