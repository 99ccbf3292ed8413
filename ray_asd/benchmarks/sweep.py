"""Throughput of a sweep: fine-tunings one at a time on one CPU, against as many as two CPUs hold at once.

    python -m ray_asd.benchmarks.sweep compare

Each run has a Ray of its own with that many CPUs, and every worker one CPU and one torch thread. Trainings of another
seed share the decoded clips and nothing else. Prints seconds.
"""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import click

from ray_asd import grid
from ray_asd.benchmarks.own_process import last_line
from ray_asd.build import steps
from ray_asd.config import Worker
from ray_asd.data import simulate
from ray_asd.data.simulate import Fleet
from ray_asd.data.source import Source
from ray_asd.engine import connection
from ray_asd.engine.graph import Engine
from ray_asd.stages.recordings import ingest
from ray_asd.stages.training import systems

FLEET = Fleet(machines=("fan", "valve"), train_source=20, train_target=4, test=2, seconds=4.0)
GRID = "- {backbone: hubert, WS: true, SA: false, TFP: false}\n"


@click.group()
def main() -> None:
    """Measure the throughput of a sweep."""


@main.command()
@click.option("--cells", default=2, show_default=True, help="Fine-tunings.")
@click.option("--steps", "training_steps", default=1600, show_default=True, help="Of each.")
@click.option("--cpus", "counts", default=[1, 2], multiple=True, show_default=True, help="At once; repeatable.")
@click.option("--against", type=click.Path(exists=True, file_okay=False), help="A checkout of another version.")
def compare(cells: int, training_steps: int, counts: tuple[int, ...], against: str | None) -> None:
    """Time the same sweep on one CPU and on several, and by another version."""
    versions = {"this version": None} | ({against: against} if against else {})
    with tempfile.TemporaryDirectory() as folder:
        simulate.write(FLEET, f"{folder}/fleet")
        Path(folder, "grid.yaml").write_text(GRID)
        for cpus in counts:
            seconds = {name: _timed(folder, cpus, cells, training_steps, place) for name, place in versions.items()}
            for name, taken in seconds.items():
                click.echo(f"{cells} fine-tunings of {training_steps} steps, {cpus} at a time, {name}: {taken:.1f} s")


def _timed(folder: str, cpus: int, cells: int, training_steps: int, checkout: str | None) -> float:
    """Of a process that runs this module, or that of ``checkout``, below a root of its own."""
    environment = os.environ | ({"PYTHONPATH": str(Path(checkout).absolute())} if checkout else {})
    sweep = ("run", folder, cpus, cells, training_steps)
    taken = last_line(__spec__.name, *sweep, environment=environment, folder=checkout)
    shutil.rmtree(f"{folder}/root{cpus}")
    return float(json.loads(taken))


@main.command(hidden=True)
@click.argument("folder")
@click.argument("cpus", type=int)
@click.argument("cells", type=int)
@click.argument("training_steps", type=int)
def run(folder: str, cpus: int, cells: int, training_steps: int) -> None:
    """One sweep on a Ray of that many CPUs; prints the seconds of its trainings."""
    root = f"{folder}/root{cpus}"
    with connection.connected(cpus):
        engine = Engine(root)
        clips = steps.ensure(ingest.step(Source(f"{folder}/fleet"), Worker(), engine.progress), root)
        settings = ("training.workers=1", f"training.steps={training_steps}", "training.batch_size=8")
        planned = grid.load(f"{folder}/grid.yaml", "tiny", settings, seeds=range(cells))
        trainings = [systems.system(cell.recipe, clips, engine.progress) for cell in planned]
        for source in trainings[0].inputs.values():  # what all of them share comes before the clock
            steps.ensure(source, root)
        for training in trainings:
            engine.add(training)
        begun = time.monotonic()
        engine.run(lambda: None)
        taken = time.monotonic() - begun
    failed = [node.error for node in engine.nodes.values() if node.state == "failed"]
    if failed:
        raise click.ClickException(str(failed[0]))
    click.echo(json.dumps(taken))


if __name__ == "__main__":
    main()
