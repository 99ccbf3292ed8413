"""Status augmentation (paper section on SA) and the training set: every clip decoded once, in every wanted speed.

One run of this stage holds the originals, shared by all systems; a second one holds their speed variants, shared by
all systems with the same augmentation settings.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import tables
from ray_asd.build import Attempt, Outcome, Output
from ray_asd.config import Audio, Augmentation, Worker
from ray_asd.data.training_set import INDEX, WAVES
from ray_asd.errors import StageError, UserError
from ray_asd.stages.progress import Progress
from ray_asd.steps import Step

CODE_VERSION = 1
SHARD_CLIPS = 64
NORMALISATION_EPSILON = 1e-7  # added to the variance, as the checkpoints' own feature extractors do
_BYTES_PER_SAMPLE = 4


def originals(clips: Output, audio: Audio, worker: Worker, progress: Progress) -> Step:
    """The training clips as recorded."""
    return _step("original", clips, {"audio": audio.model_dump(mode="json")}, worker, progress, variants=1)


def variants(clips: Output, audio: Audio, settings: Augmentation, worker: Worker, progress: Progress) -> Step:
    """The training clips at every speed and mode of ``settings``, without the originals."""
    config = {"audio": audio.model_dump(mode="json"), "augmentation": settings.model_dump(mode="json")}
    return _step("speed", clips, config, worker, progress, variants=len(settings.speeds) * len(settings.modes))


def _step(name: str, clips: Output, config: dict[str, Any], worker: Worker, progress: Progress, variants: int) -> Step:
    rows = clips.marker.counts.get("train", 0)
    if not rows:
        raise UserError(f"{clips.uri} holds no training clips; allowed: CLIPS with split train")
    samples = clips.marker.counts["train_samples"]
    return Step(
        stage="augment",
        name=name,
        code_version=CODE_VERSION,
        config=config,
        inputs={"clips": clips},
        work=lambda attempt, inputs: _work(attempt, inputs, config, worker, progress, variants),
        units=rows * variants,
        worker=worker,
        bytes=samples * variants * _BYTES_PER_SAMPLE,
    )


def _work(
    attempt: Attempt,
    inputs: Mapping[str, Output],
    config: dict[str, Any],
    worker: Worker,
    progress: Progress,
    variants: int,
) -> Outcome:
    from ray_asd.stages import fanout

    clips = inputs["clips"].table("clips")
    rows = clips.filter(pc.equal(clips["split"], "train"))
    done = fanout.run(
        "decode" if variants == 1 else "augment",
        lambda: _Decode(Audio(**config["audio"]), config.get("augmentation")),
        rows,
        attempt,
        shard_rows=SHARD_CLIPS,
        worker=worker,
        progress=progress,
    )
    written = done.counts.get("clips", 0)
    if written != rows.num_rows * variants:
        raise StageError(f"{rows.num_rows} clips x {variants} variants went in, {written} came out")
    return Outcome(done.files, done.counts, held=done.held)


class _Decode:
    """One shard: its waveforms one after the other in one file, and their TRAINING_SET rows in another."""

    def __init__(self, audio: Audio, augmentation: Mapping[str, Any] | None) -> None:
        self.audio = audio
        self.augmentation = Augmentation(**augmentation) if augmentation else None

    def __call__(self, rows: pa.Table, attempt: Attempt, number: int) -> Any:
        from ray_asd.data.audio import read_waveform
        from ray_asd.stages.fanout import Done

        path = f"{WAVES}/{number:05d}.f32"
        waves: list[np.ndarray] = []
        index: list[dict[str, Any]] = []
        offset = 0
        for row in rows.to_pylist():
            original = read_waveform(row["uri"], self.audio.channel, row["content_hash"])
            for wave, changes in self._versions(row, original):
                deviation = np.sqrt(wave.var(dtype=np.float64) + NORMALISATION_EPSILON)
                place = {"shard": path, "offset": offset, "length": len(wave)}
                index.append(row | changes | place | {"mean": wave.mean(dtype=np.float64), "std": deviation})
                waves.append(wave)
                offset += len(wave)
        table = tables.conform(pa.Table.from_pylist(index, schema=tables.TRAINING_SET), tables.TRAINING_SET)
        files = [
            attempt.put(path, np.concatenate(waves).astype("<f4").tobytes()),
            attempt.put_table(f"{INDEX}/{number:05d}.parquet", table),
        ]
        return Done(files, {"clips": len(index), "samples": offset})

    def _versions(self, row: dict[str, Any], original: np.ndarray) -> list[tuple[np.ndarray, dict[str, Any]]]:
        if self.augmentation is None:
            return [(original, {"parent_clip_id": None, "speed": 1.0, "mode": None})]
        from ray_asd.data import augment

        found = []
        for speed, mode in augment.variants(self.augmentation):
            wave = augment.change_speed(original, speed, mode)
            changes = {
                "clip_id": f"{row['clip_id']}@{mode}{speed:g}",
                "parent_clip_id": row["clip_id"],
                "speed": speed,
                "mode": mode,
                "num_samples": round(row["num_samples"] / speed),
                "condition": augment.condition(row, speed, mode, self.augmentation.label_policy),
            }
            found.append((wave, changes))
        return found
