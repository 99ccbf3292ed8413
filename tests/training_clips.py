"""Training sets made by hand: committed ``augment`` outputs whose waveforms and rows a test chooses."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ray_asd import build, store, tables
from ray_asd.build import Attempt, Key, Outcome, Output
from ray_asd.config import SAMPLE_RATE, Recipe
from ray_asd.tables import Folder

Clip = tuple[str, str | None, np.ndarray]
"""Id, condition, waveform."""


def row(clip_id: str, **values: Any) -> dict[str, Any]:
    """A CLIPS row with unimportant values but for those given; its content is as much its own as its name."""
    defaults = {
        "machine_type": "fan",
        "section": "00",
        "domain": "source",
        "split": "train",
        "label": "normal",
        "uri": f"/fleet/{clip_id}",
        "dataset": "fleet",
        "condition": "fan",
        "sample_rate": SAMPLE_RATE,
        "channels": 1,
        "num_samples": SAMPLE_RATE,
        "size_bytes": 2 * SAMPLE_RATE,
        "content_hash": clip_id,
    }
    return {"clip_id": clip_id} | defaults | values


def training_set(
    folder: str,
    clips: Sequence[Clip],
    variants: Mapping[str, str] | None = None,
    contents: Mapping[str, str] | None = None,
) -> Output:
    """An output that holds ``clips`` in two shards; ``variants`` names the parent of an augmented clip.

    ``contents`` are those of clips that go by another name than their content.
    """
    parents, named = variants or {}, contents or {}

    def work(attempt: Attempt) -> Outcome:
        files = []
        for number, shard in enumerate(filter(None, (clips[::2], clips[1::2]))):
            path, rows, offset = f"{Folder.WAVES}/{number:05d}.f32", [], 0
            for clip_id, condition, wave in shard:
                moments = {"mean": float(wave.mean(dtype=np.float64)), "std": float(wave.std(dtype=np.float64))}
                place = {"shard": path, "offset": offset, "length": len(wave), "speed": 1.0, **moments}
                place |= {"condition": condition, "parent_clip_id": parents.get(clip_id)}
                if clip_id in named:
                    place["content_hash"] = named[clip_id]
                if clip_id in parents:
                    place |= {"content_hash": parents[clip_id], "speed": 0.9, "mode": "stretch"}
                rows.append(row(clip_id, **place))
                offset += len(wave)
            table = tables.conform(pa.Table.from_pylist(rows, schema=tables.TRAINING_SET), tables.TRAINING_SET)
            files.append(attempt.put(path, b"".join(wave.astype("<f4").tobytes() for _, _, wave in shard)))
            files.append(attempt.put_table(f"{Folder.TRAINING_SET}/{number:05d}.parquet", table))
        return Outcome(files, {"clips": len(clips)})

    return build.run(store.absolute(folder), Key("augment", "original", 1, {}, {}), work)


def hums(count: int, seconds: float = 1.0, pitches: Sequence[float] = (300.0, 1100.0)) -> list[Clip]:
    """Machines that anyone can tell apart: noise with a hum at ``pitches[n]`` Hz is condition ``machine<n>``."""
    random, time = np.random.default_rng(0), np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    clips: list[Clip] = []
    for number in range(count):
        kind = number % len(pitches)
        hum = np.sin(2 * np.pi * (pitches[kind] * time + random.random()))
        wave = (0.1 * (hum + 0.3 * random.standard_normal(len(time)))).astype(np.float32)
        clips.append((f"fleet/{number:03d}.wav", f"machine{kind}", wave))
    return clips


def recipe(**sections: Any) -> Recipe:
    """A toy system without any stochastic layer, its sections overridden or filled up by ``sections``."""
    values: dict[str, Any] = {
        "name": "toy",
        "backbone": {"family": "hubert", "source": "random:tiny", "dropout": 0.0},
        "embedding": {"dim": 16},
        "training": {"steps": 6, "batch_size": 4, "crop_seconds": 0.5, "learning_rate": 1e-3, "gradient_clip": 1.0},
    }
    for section, given in sections.items():
        values[section] = values.get(section, {}) | given if isinstance(given, dict) else given
    return Recipe.model_validate(values)
