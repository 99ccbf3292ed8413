"""A night of a fleet against the same recordings ingested and scored plainly: seconds, and the driver's memory.

    python -m ray_asd.benchmarks.night
    python -m ray_asd.benchmarks.night --clips 5000 --clips 20000

Short recordings and a tiny random backbone, so that what counts is everything but the model. Each run has a process
and a Ray of its own, in turns; the detector was enrolled and released before. A night does more than the other: it
looks which recordings are new, decides machine by machine, follows alerts and explains them, and writes the morning
page.
"""

import json
import statistics
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import click
import numpy as np

from ray_asd import config, store
from ray_asd.benchmarks import measure
from ray_asd.benchmarks.archive import HEALTHY, RATE, SETTINGS
from ray_asd.benchmarks.own_process import last_line, peak_mib
from ray_asd.build import steps
from ray_asd.cli import nights
from ray_asd.data.audio import encode_wav
from ray_asd.data.source import Source
from ray_asd.engine import connection
from ray_asd.engine.progress import silent
from ray_asd.stages.detection import enroll, score
from ray_asd.stages.fleet import nightly, registry, release
from ray_asd.stages.fleet.dates import Arrivals
from ray_asd.stages.fleet.nightly import Watch
from ray_asd.stages.fleet.revisions import Fleet
from ray_asd.stages.recordings import ingest
from ray_asd.stages.training import systems
from ray_asd.stages.training.usage import planned

NIGHT = date(2026, 1, 5)
PATTERN = "{machine_type}_{machine_id}_{recorded_at:%Y%m%dT%H%M%S}.wav"
RECIPE = config.load("tiny", SETTINGS)


@click.group(invoke_without_command=True)
@click.option("--clips", "sizes", default=[2_000, 20_000], multiple=True, show_default=True, help="Repeatable.")
@click.option("--machines", default=100, show_default=True)
@click.option("--seconds", default=0.5, show_default=True, help="Of each clip.")
@click.option("--repetitions", default=3, show_default=True)
@click.pass_context
def main(context: click.Context, sizes: tuple[int, ...], machines: int, seconds: float, repetitions: int) -> None:
    """Time nights of growing size, and the same recordings ingested and scored."""
    if context.invoked_subcommand:
        return
    click.echo(measure.hardware("ray", "transformers"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "healthy"), HEALTHY, machines, seconds, NIGHT - timedelta(1))
        detector = last_line(__spec__.name, "release", folder)
        for size in sizes:
            write(Path(folder, f"in{size}"), size, machines, seconds, NIGHT)
            plain, night = _in_turns(folder, detector, size, repetitions)
            cells = (f"{run[name]:.0f}" for run in (night, plain) for name in ("scored", "seconds", "mib"))
            rows.append([f"{size:,}", *cells, f"{plain['seconds'] / night['seconds']:.2f}"])
    of_a_run = ("scored", "s", "driver, MiB")
    header = [
        "clips",
        *(f"{run}: {what}" for run in ("night", "plain") for what in of_a_run),
        "throughput of the night",
    ]
    click.echo(measure.table(header, rows))


def _in_turns(folder: str, detector: str, size: int, repetitions: int) -> list[dict[str, float]]:
    """The medians of plain runs and of nights, each below places of its own."""
    found: dict[str, list[dict[str, float]]] = {"plain": [], "night": []}
    for repetition in range(repetitions):
        for what, runs in found.items():
            runs.append(json.loads(last_line(__spec__.name, "run", what, folder, detector, size, repetition)))
    return [{name: statistics.median(run[name] for run in runs) for name in runs[0]} for runs in found.values()]


def write(folder: Path, clips: int, machines: int, seconds: float, day: date) -> None:
    """So many recordings of noise by so many machines, evenly over a day."""
    folder.mkdir()
    random, midnight = np.random.default_rng(clips), datetime(day.year, day.month, day.day, tzinfo=UTC)
    for number in range(clips):
        turn, machine = divmod(number, machines)
        recorded_at = midnight + timedelta(days=turn / (clips // machines + 1))
        noise = random.standard_normal(round(seconds * RATE), np.float32) * np.float32(0.1)
        (folder / f"fan_{machine:03d}_{recorded_at:%Y%m%dT%H%M%S}.wav").write_bytes(encode_wav(noise, RATE))


@main.command("release", hidden=True)
@click.argument("folder")
def _release(folder: str) -> None:
    """Enrol the healthy recordings and make the detector current."""
    root, releases = store.join(folder, "root"), store.join(folder, "registry")
    source = Source(store.join(folder, "healthy"), pattern=PATTERN, split="train")
    with connection.connected():
        clips = steps.ensure(ingest.step(source, RECIPE.resources.ingest, silent), root)
        model = steps.ensure(systems.system(RECIPE, clips, silent), root)
        detector = steps.ensure(enroll.step([planned(model, RECIPE, clips)], clips, silent), root)
        order = release.Order(registry.whoever())
        release.make_current(release.add(detector, releases, order), releases, order)
    click.echo(detector.uri)


@main.command("run", hidden=True)
@click.argument("what", type=click.Choice(["plain", "night"]))
@click.argument("folder")
@click.argument("detector")
@click.argument("size")
@click.argument("repetition")
def _run(what: str, folder: str, detector: str, size: str, repetition: str) -> None:
    """One night, or one plain scoring; prints its seconds, the largest memory in MiB and how many clips it scored."""
    source = Source(store.join(folder, f"in{size}"), pattern=PATTERN, split="test")
    place = store.join(folder, f"{what}{size}-{repetition}")
    begun = time.monotonic()
    with connection.connected():
        scored = _plain(source, place, detector) if what == "plain" else _night(source, place, folder)
    click.echo(json.dumps({"seconds": time.monotonic() - begun, "mib": peak_mib(), "scored": scored}))


def _plain(source: Source, root: str, detector: str) -> int:
    clips = steps.ensure(ingest.step(source, RECIPE.resources.ingest, silent), root)
    scoring = score.step(registry.detector(detector), clips, RECIPE.resources, silent)
    return steps.ensure(scoring, root).marker.counts["clips"]


def _night(source: Source, place: str, folder: str) -> int:
    fleet = Fleet(place, store.join(folder, "registry"), resources=RECIPE.resources)
    ended = nightly.run(fleet, Watch(Arrivals(source), look_back=0), NIGHT)
    assert ended.night
    if problems := list(nights.pages(fleet, ended)):
        raise click.ClickException(problems[0])
    return ended.night.counts["scored"]


if __name__ == "__main__":
    main()
