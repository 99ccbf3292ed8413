"""Embeddings on Ray Data, one model per worker: of whole clips for the k-NN, of chunks to train transformer pooling on.

The model is a ``train`` or ``tfp`` output, or the word ``floor``: mean and standard deviation of log-mel frames, the
untrained detector that stands beside every system.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import tables
from ray_asd.build import Attempt, File, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.engine.progress import Progress
from ray_asd.errors import StageError
from ray_asd.stages.training.usage import Settings, load, name_of
from ray_asd.tables import Folder, as_column

CODE_VERSION = 4
EVERY_SPLIT = ("train", "calibration", "test")  # supplemental clips are nobody's
HEALTHY_SPLITS = ("train", "calibration")


def clips(
    model: Step | Output | None,
    clips: Output,
    settings: "Settings",
    progress: Progress,
    splits: Sequence[str] = EVERY_SPLIT,
) -> Step:
    """EMBEDDINGS of the clips in these ``splits``; ``model`` None is the floor."""
    key = settings.key(model) | {"splits": list(splits)}
    return Step(
        stage="embed",
        name=name_of(model),
        code_version=CODE_VERSION,
        config=key,
        inputs={"clips": clips} | ({"model": model} if model else {}),
        work=lambda attempt, inputs: _embed_clips(attempt, inputs, settings, splits, progress),
        units=sum(clips.marker.counts.get(split, 0) for split in splits),
        worker=settings.worker,
        workers=settings.workers,
        resumable=True,
    )


def _embed_clips(
    attempt: Attempt, inputs: Mapping[str, Output], settings: Settings, splits: Sequence[str], progress: Progress
) -> Outcome:
    from ray_asd.engine import shards

    model, clips = inputs.get("model"), inputs["clips"]
    expected = sum(clips.marker.counts.get(split, 0) for split in splits)
    done = shards.run(
        "embed" if model else "embed floor",
        lambda: _Clips(model, clips, settings, splits),
        shards.spans(clips, Folder.CLIPS, shards.shard_size(clips.marker.counts["clips"])),
        attempt,
        worker=settings.worker,
        workers=settings.workers,
        progress=progress,
    )
    if done.counts.get("clips", 0) != expected:
        raise StageError(f"{expected} clips went in, {done.counts.get('clips', 0)} embeddings came out")
    return Outcome(done.files, done.counts, held=done.held)


class Embedding:
    """Clips in, vectors out: the model of a worker, which computes while the recordings that follow are decoded."""

    def __init__(self, model: Output | None, settings: Settings) -> None:
        self._channel = settings.audio.channel
        self._threads = max(1, round(settings.worker.cpus))
        self._embed: Callable[[Iterable[np.ndarray]], Iterable[np.ndarray]]
        if model is None:
            from ray_asd.data import features

            self._embed = lambda waves: map(features.floor_embedding, waves)
        else:
            self._embed = load(model, settings).embed_stream

    def __call__(self, clips: pa.Table) -> np.ndarray:
        """CLIPS rows -> float32 [len, E]."""
        from ray_asd.data.recordings import waveforms

        where = clips.select(["uri", "content_hash", "pack", "pack_row"]).to_pylist()
        return np.stack(list(self._embed(waveforms(where, self._channel, self._threads))))


class _Clips:
    """One shard of CLIPS to one EMBEDDINGS file."""

    def __init__(self, model: Output | None, clips: Output, settings: Settings, splits: Sequence[str]) -> None:
        from ray_asd.engine.shards import Reader

        self.rows = Reader(clips)
        self.splits = pa.array(splits)
        self.embed = Embedding(model, settings)

    def __call__(self, span: pa.Table, attempt: Attempt, name: str) -> Any:
        from ray_asd.engine.shards import Done

        rows = self.rows(span)
        rows = rows.filter(pc.is_in(rows["split"], self.splits))
        if not rows.num_rows:
            return Done([], {})
        embeddings = self.embed(rows)
        schema = tables.embeddings(embeddings.shape[1])
        kept = rows.select([column for column in schema.names if column != "embedding"])
        table = kept.append_column("embedding", as_column(embeddings))
        return _done(attempt.put_table(f"{Folder.EMBEDDINGS}/{name}.parquet", tables.conform(table, schema)), rows)


def _done(file: File, rows: pa.Table) -> Any:
    from ray_asd.engine.shards import Done

    return Done([file], {"clips": rows.num_rows})
