"""Embeddings on Ray Data, one model per worker: of whole clips for the k-NN, of chunks to train transformer pooling on.

The model is a ``train`` or ``tfp`` output, or the word ``floor``: mean and standard deviation of log-mel frames, the
untrained detector that stands beside every system.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import build, config, tables
from ray_asd.build import Attempt, File, Outcome, Output
from ray_asd.config import Audio, Inference, TransformerPooling, Usage, Worker
from ray_asd.errors import StageError
from ray_asd.models.card import CARD, WEIGHTS, read_card
from ray_asd.stages.progress import Progress
from ray_asd.steps import Step

CODE_VERSION = 2
SHARD_CLIPS = 32
FLOOR = "floor"
EMBEDDINGS = "embeddings"  # folder of the table in the stage's output
CHUNKS = "chunks"
_EMBEDDED = pc.field("split") != "supplemental"


def clips(model: Step | Output | None, clips: Output, settings: "Settings", progress: Progress) -> Step:
    """EMBEDDINGS of all clips but the supplemental ones; ``model`` None is the floor."""
    key = {"audio": settings.audio.model_dump(mode="json")}
    if model:
        key["inference"] = settings.inference.model_dump(mode="json")
    total = sum(clips.marker.counts.get(split, 0) for split in tables.SPLITS if split != "supplemental")
    return Step(
        stage="embed",
        name=name_of(model),
        code_version=CODE_VERSION,
        config=key,
        inputs={"clips": clips} | ({"model": model} if model else {}),
        work=lambda attempt, inputs: _embed_clips(attempt, inputs, settings, progress),
        units=total,
        worker=settings.worker,
        workers=settings.workers,
    )


@dataclass(frozen=True)
class Settings:
    """How to embed: what is heard, how it is cut, on what."""

    audio: Audio
    inference: Inference
    worker: Worker
    workers: int | None

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
    )


def name_of(model: Step | Output | None) -> str:
    """What stages that use the model are called; None is the floor."""
    if model is None:
        return FLOOR
    return model.name if isinstance(model, Step) else model.marker.name


def _embed_clips(attempt: Attempt, inputs: Mapping[str, Output], settings: Settings, progress: Progress) -> Outcome:
    from ray_asd.stages import fanout

    model = inputs.get("model")
    rows = inputs["clips"].table("clips").filter(_EMBEDDED)
    done = fanout.run(
        "embed" if model else "embed floor",
        lambda: _Clips(model, settings),
        rows,
        attempt,
        shard_rows=SHARD_CLIPS,
        worker=settings.worker,
        workers=settings.workers,
        progress=progress,
    )
    if done.counts.get("clips", 0) != rows.num_rows:
        raise StageError(f"{rows.num_rows} clips went in, {done.counts.get('clips', 0)} embeddings came out")
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
        pa.table({"clip": np.arange(total)}),
        attempt,
        shard_rows=SHARD_CLIPS,
        worker=settings.worker,
        workers=settings.workers,
        progress=progress,
    )
    if done.counts.get("clips", 0) != total:
        raise StageError(f"{total} training clips went in, {done.counts.get('clips', 0)} came out")
    return Outcome(done.files, done.counts, held=done.held)


class _Clips:
    """One shard of CLIPS to one EMBEDDINGS file."""

    def __init__(self, model: Output | None, settings: Settings) -> None:
        self.channel = settings.audio.channel
        self.embed: Callable[[Sequence[np.ndarray]], np.ndarray]
        if model is None:
            from ray_asd.data import features

            self.embed = lambda waves: np.stack([features.floor_embedding(wave) for wave in waves])
        else:
            self.embed = _load(model, settings).embed

    def __call__(self, rows: pa.Table, attempt: Attempt, number: int) -> Any:
        from ray_asd.data.audio import read_waveform

        recordings = rows.select(["uri", "content_hash"]).to_pylist()
        embeddings = self.embed([read_waveform(row["uri"], self.channel, row["content_hash"]) for row in recordings])
        schema = tables.embeddings(embeddings.shape[1])
        kept = rows.select([name for name in schema.names if name != "embedding"])
        table = kept.append_column("embedding", _vectors(embeddings))
        return _done(attempt.put_table(f"{EMBEDDINGS}/{number:05d}.parquet", tables.conform(table, schema)), rows)


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

    def __call__(self, rows: pa.Table, attempt: Attempt, number: int) -> Any:
        clips = rows.column("clip").to_pylist()
        chunks = self.system.embed_chunks([self.data.waveform(clip) for clip in clips], self.chunking)
        offsets = np.cumsum([0] + [len(clip) for clip in chunks])
        nested = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _vectors(np.concatenate(chunks)))
        table = self.data.rows.select(["clip_id", "condition"]).take(clips).append_column(CHUNKS, nested)
        return _done(attempt.put_table(f"{CHUNKS}/{number:05d}.parquet", table), rows)


def _done(file: File, rows: pa.Table) -> Any:
    from ray_asd.stages.fanout import Done

    return Done([file], {"clips": rows.num_rows})


def _vectors(values: np.ndarray) -> pa.Array:
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
