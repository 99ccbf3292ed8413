"""Embeddings on Ray Data, one model per worker: of whole clips for the k-NN, of chunks to train transformer pooling on.

The model is a ``train`` or ``tfp`` output, or the word ``floor``: mean and standard deviation of log-mel frames, the
untrained detector that stands beside every system.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import build, config, tables
from ray_asd.build import Attempt, File, Outcome, Output
from ray_asd.config import Audio, Inference, TransformerPooling, Usage, Worker
from ray_asd.data.ingested import CLIPS
from ray_asd.errors import StageError
from ray_asd.models.card import CARD, WEIGHTS, read_card
from ray_asd.stages.progress import Progress
from ray_asd.steps import Step

CODE_VERSION = 4
FLOOR = "floor"
EMBEDDINGS = "embeddings"  # folder of the table in the stage's output
CHUNKS = "chunks"
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


@dataclass(frozen=True)
class Settings:
    """How to embed: what is heard, how it is cut, on what."""

    audio: Audio
    inference: Inference
    worker: Worker
    workers: int | None

    def key(self, model: Step | Output | None) -> dict[str, Any]:
        """What of this an embedding depends on; the floor knows no inference."""
        key = {"audio": self.audio.model_dump(mode="json")}
        return key | ({"inference": self.inference.model_dump(mode="json")} if model else {})

    @classmethod
    def of(cls, usage: Usage, audio: Audio) -> "Settings":
        """Those of a recipe, or of other settings for the same model."""
        return cls(audio, usage.inference, usage.resources.embed, usage.resources.embed_workers)


@dataclass(frozen=True)
class Used:
    """A model as named by a user, or the floor, and how it is to be used."""

    model: Output | None
    method: str
    usage: Usage
    settings: Settings
    trained_on: Output | None  # CLIPS


def use(model: str, recipe: str | None, overrides: tuple[str, ...]) -> Used:
    """The model at a URI, or ``floor``; used as its own recipe says, or as ``recipe`` does, with overrides.

    Raises:
        UserError: there is no such model or recipe, or an override is not about its use.
    """
    if model == FLOOR:
        usage = config.usage(config.load(recipe) if recipe else Usage(), overrides)
        return Used(None, "backbone", usage, Settings.of(usage, Audio()), None)
    output = build.resolve(model, "train", "tfp")
    own = read_card(output.fetch(CARD)).recipe
    usage = config.usage(config.load(recipe) if recipe else own, overrides)
    return Used(output, own.method, usage, Settings.of(usage, own.audio), build.find(output.marker.inputs["clips"].uri))


def chunks(
    model: Step, sets: Mapping[str, Step], pooling: TransformerPooling, settings: Settings, progress: Progress
) -> Step:
    """Chunk embeddings of every training clip and its variants, as ``pooling`` cuts them."""
    key: dict[str, Any] = {"window_seconds": pooling.window_seconds, "hop_seconds": pooling.hop_seconds}
    key |= {"precision": settings.inference.precision, "threads": settings.inference.threads}
    return Step(
        stage="embed",
        name=f"{name_of(model)}-chunks",
        code_version=CODE_VERSION,
        config=key,
        inputs={"model": model, **sets},
        work=lambda attempt, inputs: _embed_chunks(attempt, inputs, key, settings, progress),
        units=sum(step.units for step in sets.values()),
        worker=settings.worker,
        workers=settings.workers,
        resumable=True,
    )


def name_of(model: Step | Output | None) -> str:
    """What stages that use the model are called; None is the floor."""
    if model is None:
        return FLOOR
    return model.name if isinstance(model, Step) else model.marker.name


def _embed_clips(
    attempt: Attempt, inputs: Mapping[str, Output], settings: Settings, splits: Sequence[str], progress: Progress
) -> Outcome:
    from ray_asd.stages import fanout

    model, clips = inputs.get("model"), inputs["clips"]
    expected = sum(clips.marker.counts.get(split, 0) for split in splits)
    done = fanout.run(
        "embed" if model else "embed floor",
        lambda: _Clips(model, clips, settings, splits),
        fanout.spans(clips, CLIPS, fanout.shard_size(clips.marker.counts["clips"])),
        attempt,
        worker=settings.worker,
        workers=settings.workers,
        progress=progress,
    )
    if done.counts.get("clips", 0) != expected:
        raise StageError(f"{expected} clips went in, {done.counts.get('clips', 0)} embeddings came out")
    return Outcome(done.files, done.counts, held=done.held)


def _embed_chunks(
    attempt: Attempt, inputs: Mapping[str, Output], key: Mapping[str, Any], settings: Settings, progress: Progress
) -> Outcome:
    from ray_asd.data.training_set import TrainingSet
    from ray_asd.stages import fanout

    model = inputs["model"]
    sets = [output for name, output in inputs.items() if name != "model"]
    held_out = read_card(model.fetch(CARD)).held_out
    total = len(TrainingSet(sets, held_out))
    done = fanout.run(
        "embed chunks",
        lambda: _Chunks(model, sets, held_out, key, settings),
        fanout.rows(pa.table({"clip": np.arange(total)}), fanout.shard_size(total)),
        attempt,
        worker=settings.worker,
        workers=settings.workers,
        progress=progress,
    )
    if done.counts.get("clips", 0) != total:
        raise StageError(f"{total} training clips went in, {done.counts.get('clips', 0)} came out")
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
            self._embed = _load(model, settings).embed_stream

    def __call__(self, clips: pa.Table) -> np.ndarray:
        """CLIPS rows -> float32 [len, E]."""
        from ray_asd.data.recordings import waveforms

        where = clips.select(["uri", "content_hash", "pack", "pack_row"]).to_pylist()
        return np.stack(list(self._embed(waveforms(where, self._channel, self._threads))))


class _Clips:
    """One shard of CLIPS to one EMBEDDINGS file."""

    def __init__(self, model: Output | None, clips: Output, settings: Settings, splits: Sequence[str]) -> None:
        from ray_asd.stages.fanout import Reader

        self.rows = Reader(clips)
        self.splits = pa.array(splits)
        self.embed = Embedding(model, settings)

    def __call__(self, span: pa.Table, attempt: Attempt, name: str) -> Any:
        from ray_asd.stages.fanout import Done

        rows = self.rows(span)
        rows = rows.filter(pc.is_in(rows["split"], self.splits))
        if not rows.num_rows:
            return Done([], {})
        embeddings = self.embed(rows)
        schema = tables.embeddings(embeddings.shape[1])
        kept = rows.select([column for column in schema.names if column != "embedding"])
        table = kept.append_column("embedding", _as_column(embeddings))
        return _done(attempt.put_table(f"{EMBEDDINGS}/{name}.parquet", tables.conform(table, schema)), rows)


class _Chunks:
    """One shard of the training set to one file of chunk embeddings: list<fixed_size_list<float>[E]> per clip."""

    def __init__(
        self,
        model: Output,
        sets: Sequence[Output],
        held_out: Sequence[str],
        key: Mapping[str, Any],
        settings: Settings,
    ) -> None:
        from ray_asd.data.training_set import TrainingSet
        from ray_asd.models.embedder import Chunking

        self.data = TrainingSet(sets, held_out)
        self.system = _load(model, settings)
        self.chunking = Chunking.of_seconds(key["window_seconds"], key["hop_seconds"])

    def __call__(self, rows: pa.Table, attempt: Attempt, name: str) -> Any:
        clips = rows.column("clip").to_pylist()
        chunks = self.system.embed_chunks([self.data.waveform(clip) for clip in clips], self.chunking)
        offsets = np.cumsum([0] + [len(clip) for clip in chunks])
        nested = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _as_column(np.concatenate(chunks)))
        table = self.data.rows.select(["clip_id", "condition"]).take(clips).append_column(CHUNKS, nested)
        return _done(attempt.put_table(f"{CHUNKS}/{name}.parquet", table), rows)


def _done(file: File, rows: pa.Table) -> Any:
    from ray_asd.stages.fanout import Done

    return Done([file], {"clips": rows.num_rows})


def vectors(embeddings: pa.Table) -> np.ndarray:
    """The column of EMBEDDINGS as float32 [len, E]."""
    flat: np.ndarray = embeddings["embedding"].combine_chunks().flatten().to_numpy()
    return flat.reshape(embeddings.num_rows, -1)


def _as_column(values: np.ndarray) -> pa.Array:
    flat = np.ascontiguousarray(values, np.float32).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), values.shape[1])


def _load(model: Output, settings: Settings) -> Any:
    import torch

    from ray_asd.models import model_folder

    torch.set_num_threads(settings.inference.threads)
    saved = model_folder.load(model.fetch(CARD), model.fetch(WEIGHTS))
    saved.system.recipe = saved.system.recipe.model_copy(update={"inference": settings.inference})
    system = saved.system.to("cuda" if settings.worker.gpus else "cpu")
    system.pack()
    return system
