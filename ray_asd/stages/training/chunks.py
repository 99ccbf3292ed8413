"""Chunk embeddings of training clips, to train transformer pooling on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ray_asd.build import Attempt, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.config import TransformerPooling
from ray_asd.engine.progress import Progress
from ray_asd.errors import StageError
from ray_asd.models.card import CARD, read_card
from ray_asd.stages.training.usage import Used, load
from ray_asd.tables import Folder, as_column

CODE_VERSION = 5


def chunks(model: Step, sets: Mapping[str, Step], pooling: TransformerPooling, used: Used, progress: Progress) -> Step:
    """Chunk embeddings of every training clip and its variants, as ``pooling`` cuts them."""
    key: dict[str, Any] = {"window_seconds": pooling.window_seconds, "hop_seconds": pooling.hop_seconds}
    key |= {"precision": used.usage.inference.precision, "threads": used.usage.inference.threads}
    return Step(
        stage="embed",
        name=f"{used.name}-chunks",
        code_version=CODE_VERSION,
        config=key,
        inputs={"model": model, **sets},
        work=lambda attempt, inputs: _embed_chunks(attempt, inputs, key, used, progress),
        units=sum(step.units for step in sets.values()),
        worker=used.usage.resources.embed,
        workers=used.usage.resources.embed_workers,
        resumable=True,
    )


def _embed_chunks(
    attempt: Attempt, inputs: Mapping[str, Output], key: Mapping[str, Any], used: Used, progress: Progress
) -> Outcome:
    from ray_asd.data.training_set import TrainingSet
    from ray_asd.engine import cutting, shards

    model = inputs["model"]
    used = used.at(model, "")
    sets = [output for name, output in inputs.items() if name != "model"]
    held_out = read_card(model.fetch(CARD)).held_out
    total = len(TrainingSet(sets, held_out))
    done = shards.run(
        "embed chunks",
        lambda: _Chunks(used, sets, held_out, key),
        cutting.rows(pa.table({"clip": np.arange(total)}), cutting.shard_size(total)),
        attempt,
        worker=used.usage.resources.embed,
        workers=used.usage.resources.embed_workers,
        progress=progress,
    )
    if done.counts.get("clips", 0) != total:
        raise StageError(f"{total} training clips went in, {done.counts.get('clips', 0)} came out")
    return Outcome(done.files, done.counts, held=done.held)


class _Chunks:
    """One shard of the training set to one file of chunk embeddings: list<fixed_size_list<float>[E]> per clip."""

    def __init__(self, used: Used, sets: Sequence[Output], held_out: Sequence[str], key: Mapping[str, Any]) -> None:
        from ray_asd.data.training_set import TrainingSet
        from ray_asd.models.embedder import Chunking

        self.data = TrainingSet(sets, held_out)
        self.system = load(used)
        self.chunking = Chunking.of_seconds(key["window_seconds"], key["hop_seconds"])

    def __call__(self, rows: pa.Table, attempt: Attempt, name: str) -> Any:
        from ray_asd.engine.receipts import Done

        clips = rows.column("clip").to_pylist()
        chunks = self.system.embed_chunks([self.data.waveform(clip) for clip in clips], self.chunking)
        offsets = np.cumsum([0] + [len(clip) for clip in chunks])
        nested = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), as_column(np.concatenate(chunks)))
        table = self.data.rows.select(["clip_id", "condition"]).take(clips).append_column("place", pa.array(clips))
        table = table.append_column(Folder.CHUNKS, nested)
        return Done([attempt.put_table(f"{Folder.CHUNKS}/{name}.parquet", table)], {"clips": rows.num_rows})
