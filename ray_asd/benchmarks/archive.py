"""Archive scoring from end to end: against a script that one would write instead, as archives grow, and with workers.

    python -m ray_asd.benchmarks.archive compare
    python -m ray_asd.benchmarks.archive compare --gpu --size base --clips 4000 --seconds 10
    python -m ray_asd.benchmarks.archive scaling

By default short recordings and a tiny random backbone, so that what is measured is everything but the model. Every run
has a process and a Ray of its own; what it made before (ingest, the model, the bank) comes before the clock.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import faiss
import numpy as np
import soundfile

from ray_asd import build, config, store
from ray_asd.benchmarks import measure
from ray_asd.benchmarks.own_process import last_line, peak_mib
from ray_asd.build import Output, steps
from ray_asd.config import RANDOM_SIZES, Recipe
from ray_asd.data import audio
from ray_asd.data.source import Source
from ray_asd.engine import connection
from ray_asd.engine.progress import silent
from ray_asd.models import model_folder
from ray_asd.models.card import CARD, WEIGHTS
from ray_asd.stages.detection import enroll, score
from ray_asd.stages.recordings import ingest
from ray_asd.stages.training import systems
from ray_asd.stages.training.usage import planned
from ray_asd.tables import Folder

RATE = 16_000  # Hz
HEALTHY = 64  # clips to compare with
ON_GPU = ("resources.embed.gpus=1", "inference.precision=bf16")
SETTINGS = ("training=null", "augmentation=null", "transformer_pooling=null", "scoring.backend=paper")


@dataclass(frozen=True)
class Measured:
    """Seconds of scoring, those until the process had ended, and the largest memory of the driver in MiB."""

    clips: int
    seconds: float
    driver_mib: float
    scores: str  # digest of the scores, by clip_id


@click.group()
def main() -> None:
    """Measure archive scoring."""


@main.command()
@click.option(
    "--clips", "sizes", default=[1_000, 20_000], multiple=True, show_default=True, help="Archives; repeatable."
)
@click.option("--seconds", default=0.5, show_default=True, help="Of each clip.")
@click.option("--pack/--no-pack", default=True, show_default=True, help="Whether the recordings are packed.")
@click.option("--size", "backbone", type=click.Choice(list(RANDOM_SIZES)), default="tiny", show_default=True)
@click.option("--gpu/--no-gpu", default=False, show_default=True, help="Whether to embed on one, in bf16.")
def compare(sizes: tuple[int, ...], seconds: float, pack: bool, backbone: str, gpu: bool) -> None:
    """Time archives of growing size, and the same clips in a single-process script."""
    settings = (f"backbone.source=random:{backbone}", *(ON_GPU if gpu else ()))
    click.echo(measure.hardware("ray", "transformers", "faiss-gpu"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            write(Path(folder, f"archive{size}"), size, seconds)
            measured = _run(folder, size, settings, pack=pack)
            script = _run(folder, size, settings, script=True)
            rows.append(
                [
                    f"{size:,}",
                    f"{measured.seconds:.1f}",
                    f"{1e3 * measured.seconds / size:.2f}",
                    f"{measured.driver_mib:.0f}",
                    f"{script.seconds:.1f}",
                    f"{script.seconds / measured.seconds:.2f}",
                ]
            )
    header = ["clips", "s", "ms per clip", "driver, MiB", "script, s", "ray_asd is faster"]
    click.echo(measure.table(header, rows))


@main.command()
@click.option("--clips", default=4_000, show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="Of each clip.")
@click.option("--workers", "counts", default=[1, 2], multiple=True, show_default=True, help="Repeatable.")
def scaling(clips: int, seconds: float, counts: tuple[int, ...]) -> None:
    """Time the same archive with growing numbers of workers, of one CPU and one thread each."""
    click.echo(measure.hardware("ray", "transformers", "faiss-gpu"))
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, f"archive{clips}"), clips, seconds)
        found = [_run(folder, clips, (f"resources.embed_workers={count}",)) for count in counts]
    rows = [
        [str(count), f"{one.seconds:.1f}", f"{clips / one.seconds:.0f}", f"{found[0].seconds / one.seconds:.2f}"]
        for count, one in zip(counts, found, strict=True)
    ]
    click.echo(measure.table(["workers", "s", "clips/s", "faster than the first"], rows))
    click.echo("the same scores" if len({one.scores for one in found}) == 1 else "THE SCORES DIFFER")


def write(folder: Path, clips: int, seconds: float) -> None:
    """An archive of noise: ``HEALTHY`` healthy clips and so many test clips of one machine."""
    random = np.random.default_rng(0)
    for split, count in (("train", HEALTHY), ("test", clips)):
        for number in range(count):
            place = folder / split / f"{number // 1000:04d}" / f"{number:07d}.wav"
            place.parent.mkdir(parents=True, exist_ok=True)
            noise = random.standard_normal(round(seconds * RATE), np.float32) * np.float32(0.1)
            place.write_bytes(audio.encode_wav(noise, RATE))


def _run(folder: str, clips: int, settings: Sequence[str], pack: bool = True, script: bool = False) -> Measured:
    given = {"folder": folder, "clips": clips, "settings": settings, "pack": pack, "script": script}
    return Measured(**json.loads(last_line(__spec__.name, "run", json.dumps(given))))


@main.command(hidden=True)
@click.argument("given")
def run(given: str) -> None:
    """One scoring in a process of its own."""
    _measure(**json.loads(given))


def _measure(folder: str, clips: int, settings: Sequence[str], pack: bool, script: bool) -> None:
    root = store.join(folder, f"root{clips}")
    recipe = config.load("tiny", (*SETTINGS, *settings))
    source = Source(store.join(folder, f"archive{clips}"), layout="flat", machine_type="fan")
    with connection.connected():
        step = ingest.step(source, recipe.resources.ingest, silent, ingest.Options(pack=pack))
        recordings = steps.ensure(step, root)
        model = steps.ensure(systems.system(recipe, recordings, silent), root)
        detector = steps.ensure(enroll.step([planned(model, recipe, recordings)], recordings, silent), root)
        scoring = score.step(detector, recordings, recipe.resources, silent)
        begun = time.monotonic()
        if script:
            digest = _script(model, recordings, recipe)
        else:
            store.remove(scoring.key(root).folder(root))  # of another number of workers
            begun = time.monotonic()
            scores = steps.ensure(scoring, root)
            digest = build.digest_of(scores.table(Folder.SCORES).select(["clip_id", "score"]).to_pylist())
        taken = time.monotonic() - begun
    click.echo(json.dumps(asdict(Measured(clips, taken, peak_mib(), digest))))


def _script(model: Output, recordings: Output, recipe: Recipe) -> str:
    """What one would write: read a file, embed it by transformers' own forward pass, ask FAISS; clip by clip."""
    system = model_folder.load(model.fetch(CARD), model.fetch(WEIGHTS)).system
    if recipe.resources.embed.gpus:
        system.cuda()
    clips = recordings.table(Folder.CLIPS).to_pylist()

    def embed(split: str) -> np.ndarray:
        uris = [clip["uri"] for clip in clips if clip["split"] == split]
        waves = (soundfile.read(uri, dtype="float32")[0] for uri in uris)
        return np.concatenate([system.embed([wave]) for wave in waves])

    healthy = embed("train")
    bank = faiss.IndexFlatIP(healthy.shape[1])
    bank.add(healthy)
    similarities, _ = bank.search(embed("test"), recipe.scoring.backend.neighbours)
    return build.digest_of((1 - similarities).mean(axis=1).round(4).tolist())


if __name__ == "__main__":
    main()
