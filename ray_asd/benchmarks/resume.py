"""Going on after a kill: our receipts against Ray Data's own checkpoints, on a pipeline that does nothing.

    python -m ray_asd.benchmarks.resume

Each is run undisturbed, then broken off at half of the clips and run again. Both write one Parquet file per shard.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from ray.data.checkpoint import CheckpointConfig
from ray.exceptions import RayError

from ray_asd.benchmarks import measure
from ray_asd.build import PARTS, Attempt
from ray_asd.config import Worker
from ray_asd.engine import connection, cutting, shards
from ray_asd.engine.progress import silent
from ray_asd.engine.receipts import Done
from ray_asd.errors import StageError


class _Break(StageError):
    """Stands for a kill."""


class _Copy:
    """Writes its rows; once ``flag`` is there, breaks off at half of them."""

    def __init__(self, flag: str, half: int) -> None:
        self.flag, self.half = flag, half

    def check(self, clips: np.ndarray) -> None:
        if Path(self.flag).exists() and clips.max() >= self.half:
            raise _Break("broken off")

    def __call__(self, rows: pa.Table, attempt: Attempt, name: str) -> Any:
        self.check(rows["clip"].to_numpy())
        return Done([attempt.put_table(f"clips/{name}.parquet", rows)], {"clips": rows.num_rows})


class _CopyBatch(_Copy):
    """The same within Ray Data."""

    def __call__(self, rows: pa.Table) -> pa.Table:  # type: ignore[override]
        self.check(rows["clip"].to_numpy())
        return rows


@click.command()
@click.option("--clips", default=20_000, show_default=True)
def main(clips: int) -> None:
    """Time a whole run, and the second half of one that was broken off."""
    click.echo(measure.hardware("ray"))
    rows = []
    with connection.connected():
        for name, run in (("receipts", _receipts), ("Ray Data checkpoints", _checkpoints)):
            with tempfile.TemporaryDirectory() as folder:
                whole = _seconds(run, f"{folder}/whole", clips)
                flag = Path(folder, "broken")
                flag.touch()
                _seconds(run, f"{folder}/broken-off", clips, str(flag))
                flag.unlink()
                rest = _seconds(run, f"{folder}/broken-off", clips, str(flag))
                rows.append([name, f"{whole:.1f}", f"{rest:.1f}", f"{rest / whole:.2f}"])
    click.echo(measure.table(["", "whole, s", "second half, s", "ratio"], rows))


def _seconds(run: Any, folder: str, clips: int, flag: str = "") -> float:
    begun = time.monotonic()
    try:
        count = run(folder, clips, flag)
    except (StageError, RayError):
        return time.monotonic() - begun
    if count != clips:
        raise StageError(f"{count} of {clips} clips came out")
    return time.monotonic() - begun


def _receipts(folder: str, clips: int, flag: str) -> int:
    parts = cutting.rows(pa.table({"clip": range(clips)}), cutting.shard_size(clips))
    attempt = Attempt(f"{folder}/{PARTS}")
    done = shards.run("copy", lambda: _Copy(flag, clips // 2), parts, attempt, worker=Worker(), progress=silent)
    return done.counts["clips"]


def _checkpoints(folder: str, clips: int, flag: str) -> int:
    manifest, size = Path(folder, "manifest"), cutting.shard_size(clips)
    if not manifest.exists():
        manifest.mkdir(parents=True)
        for number, shard in enumerate(cutting.rows(pa.table({"clip": range(clips)}), size)):
            pq.write_table(shard, manifest / f"{number:05d}.parquet")
    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(
        id_column="clip", checkpoint_path=f"{folder}/checkpoint", delete_checkpoint_on_success=False
    )
    try:
        ray.data.read_parquet(str(manifest)).map_batches(
            _CopyBatch,
            fn_constructor_args=(flag, clips // 2),
            batch_size=size,
            batch_format="pyarrow",
            num_cpus=0,
            compute=ray.data.ActorPoolStrategy(size=1),
        ).write_parquet(f"{folder}/out")
    finally:
        context.checkpoint_config = None
    return len(set(pq.read_table(f"{folder}/out", columns=["clip"])["clip"].to_pylist()))


if __name__ == "__main__":
    main()
