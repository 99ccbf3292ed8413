"""A training set of noise, as the ``augment`` stage would have left it, for the benchmarks of training."""

import numpy as np
import pyarrow as pa

from ray_asd import build, store, tables
from ray_asd.build import Attempt, Key, Outcome, Output
from ray_asd.config import SAMPLE_RATE
from ray_asd.tables import Folder

MACHINE_TYPE = "fan"
CONDITIONS = 4


def write(folder: str, clips: int, seconds: float) -> Output:
    """``clips`` recordings of one machine type and ``CONDITIONS`` conditions, in one shard."""
    random, length = np.random.default_rng(0), round(seconds * SAMPLE_RATE)
    shard = f"{Folder.WAVES}/00000.f32"

    def work(attempt: Attempt) -> Outcome:
        waves = random.standard_normal((clips, length), dtype=np.float32)
        rows = [_row(number, length, shard) for number in range(clips)]
        index = tables.conform(pa.Table.from_pylist(rows, schema=tables.TRAINING_SET), tables.TRAINING_SET)
        files = [
            attempt.put(shard, waves.astype("<f4").tobytes()),
            attempt.put_table(f"{Folder.TRAINING_SET}/00000.parquet", index),
        ]
        return Outcome(files, {"clips": clips})

    return build.run(store.absolute(folder), Key("augment", "original", 1, {}, {}), work)


def _row(number: int, length: int, shard: str) -> dict[str, object]:
    clip_id = f"noise/{number:05d}.wav"
    return {
        "clip_id": clip_id,
        "uri": f"/{clip_id}",
        "dataset": "noise",
        "machine_type": MACHINE_TYPE,
        "section": "00",
        "domain": "source",
        "split": "train",
        "label": "normal",
        "condition": f"condition{number % CONDITIONS}",
        "sample_rate": SAMPLE_RATE,
        "channels": 1,
        "num_samples": length,
        "size_bytes": 2 * length,
        "content_hash": f"{number:064x}",
        "speed": 1.0,
        "shard": shard,
        "offset": number * length,
        "length": length,
        "mean": 0.0,
        "std": 1.0,
    }
