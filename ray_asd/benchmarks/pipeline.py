"""What Ray costs: the pipeline of embedding and scoring with a model that does nothing.

    python -m ray_asd.benchmarks.pipeline

Seconds that are there whatever the archive, microseconds per clip, and their share where a model of base size does the
work: its time per clip is measured here too, on the same threads.
"""

import tempfile
import time
from typing import Any

import click
import pyarrow as pa
import torch

from ray_asd import config
from ray_asd.benchmarks import measure
from ray_asd.build import Attempt
from ray_asd.config import SAMPLE_RATE, Backbone, Worker
from ray_asd.engine import connection, cutting, shards
from ray_asd.engine.progress import silent
from ray_asd.engine.receipts import Done
from ray_asd.models import backbones, checkpoints
from ray_asd.models.packed import pack

WINDOWS = 5  # of two seconds, in a clip of ten
_CLIPS_AT_ONCE = 4
_LARGER = 50  # times as large is the second archive: what a clip costs is little beside what a start costs


class _Nothing:
    """Writes a row per clip, as scoring does."""

    def __call__(self, rows: pa.Table, attempt: Attempt, name: str) -> Any:
        return Done([attempt.put_table(f"nothing/{name}.parquet", rows)], {"clips": rows.num_rows})


@click.command()
@click.option("--clips", default=2_000, show_default=True)
@click.option("--repetitions", default=3, show_default=True)
@click.option("--family", type=click.Choice(list(config.HUB_CHECKPOINTS)), default="hubert", show_default=True)
def main(clips: int, repetitions: int, family: str) -> None:
    """Time the empty pipeline for an archive and for one fifty times as large."""
    click.echo(measure.hardware("ray"))
    begun = time.monotonic()
    with connection.connected(), tempfile.TemporaryDirectory() as folder:
        start = time.monotonic() - begun
        taken = {size: _timed(folder, size, repetitions) for size in (clips, _LARGER * clips)}
    per_clip = (taken[_LARGER * clips] - taken[clips]) / ((_LARGER - 1) * clips)
    fixed = start + taken[clips] - per_clip * clips
    model = _model_seconds(family, repetitions)
    rows = [
        ["start of a local Ray, s", f"{start:.2f}"],
        ["fixed, that included, s", f"{fixed:.2f}"],
        ["per clip, us", f"{1e6 * per_clip:.0f}"],
        [f"{family} of base size per clip of 10 s, s", f"{model:.3f}"],
        [
            f"share of {clips} such clips",
            f"{100 * (fixed + per_clip * clips) / (fixed + (per_clip + model) * clips):.1f}%",
        ],
    ]
    click.echo(measure.table(["", ""], rows))


def _timed(folder: str, clips: int, repetitions: int) -> float:
    """Seconds of one pipeline over so many clips, the median."""
    rows = pa.table({"clip": range(clips)})

    def work() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            parts = cutting.rows(rows, cutting.shard_size(clips))
            shards.run("nothing", _Nothing, parts, Attempt(place), worker=Worker(), progress=silent)

    return measure.alternate({"nothing": work}, repetitions)["nothing"].median


def _model_seconds(family: str, repetitions: int) -> float:
    """Of the packed backbone, per clip, on all threads."""
    settings = Backbone.model_validate({"family": family, "source": "random:base"})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = backbones.load(checkpoints.resolve(settings, 0), settings).to(device).eval()
    packed = pack(backbone, "bf16")
    waveform = torch.randn(_CLIPS_AT_ONCE * WINDOWS, 2 * SAMPLE_RATE, device=device)

    def work() -> None:
        with torch.inference_mode():
            packed.last(waveform).mean(dim=1).cpu()

    return measure.alternate({"model": work}, repetitions)["model"].median / _CLIPS_AT_ONCE


if __name__ == "__main__":
    main()
