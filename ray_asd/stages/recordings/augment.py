"""Status augmentation (paper section on SA) and the training set: every clip decoded once, in every wanted speed.

One run of this stage holds the originals, shared by all systems; a second one holds their speed variants, shared by
all systems with the same augmentation settings.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import tables
from ray_asd.build import Attempt, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.config import Audio, Augmentation, Worker
from ray_asd.data.ingested import most_seconds
from ray_asd.engine.progress import Progress
from ray_asd.errors import StageError, UserError
from ray_asd.stages.recordings import refusals
from ray_asd.tables import Folder

CODE_VERSION = 3
SHARD_CLIPS = 64  # at most, of training clips: their waves go through a local file
NORMALISATION_EPSILON = 1e-7  # added to the variance, as the checkpoints' own feature extractors do
_BYTES_PER_SAMPLE = 4

Row = dict[str, Any]


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
        resumable=True,
        check=lambda: refusals.channel(clips, config["audio"]["channel"], ["train"]),
    )


def _work(
    attempt: Attempt,
    inputs: Mapping[str, Output],
    config: dict[str, Any],
    worker: Worker,
    progress: Progress,
    variants: int,
) -> Outcome:
    from ray_asd.engine import cutting, shards

    clips = inputs["clips"]
    counts = clips.marker.counts
    size = cutting.at_most(SHARD_CLIPS, counts["clips"], most_seconds(counts))
    done = shards.run(
        "decode" if variants == 1 else "augment",
        lambda: _Decode(clips, Audio(**config["audio"]), config.get("augmentation")),
        cutting.spans(clips, Folder.CLIPS, size),
        attempt,
        worker=worker,
        progress=progress,
    )
    left_out = done.counts.get("left_out", 0)
    written, expected = done.counts.get("clips", 0), (counts["train"] - left_out) * variants
    if written != expected:
        raise StageError(f"{expected} training clips and variants were to be written, {written} came out")
    if not written:
        raise UserError(
            f"audio.channel '{config['audio']['channel']}': none of {left_out} training clips has it, or sound on it; "
            "allowed: a channel that CLIPS have, mean"
        )
    return Outcome(done.files, done.counts, held=done.held)


class _Decode:
    """One shard: its waveforms one after the other in one file, and their TRAINING_SET rows in another."""

    def __init__(self, clips: Output, audio: Audio, augmentation: Mapping[str, Any] | None) -> None:
        from ray_asd.engine.cutting import Reader

        self.rows = Reader(clips)
        self.audio = audio
        self.augmentation = Augmentation(**augmentation) if augmentation else None

    def __call__(self, span: pa.Table, attempt: Attempt, name: str) -> Any:
        from ray_asd.data.recordings import no_sound, unscored
        from ray_asd.engine.receipts import Done

        clips = self.rows(span).filter(pc.field("split") == "train")
        rows = clips.to_pylist()
        reasons = [no_sound(row, self.audio.channel) for row in rows]
        unheard = {position: why for position, why in enumerate(reasons) if why}
        rows = [row for row, why in zip(rows, reasons, strict=True) if why is None]
        left = {"left_out": len(unheard)} if unheard else {}
        told = [attempt.put_table(f"{Folder.UNSCORED}/{name}.parquet", unscored(clips, unheard))] if unheard else []
        if not rows:
            return Done(told, left)
        index: list[dict[str, Any]] = []
        with tempfile.NamedTemporaryFile(suffix=".f32") as local:
            for row, wave, changes in self._versions(rows):
                deviation = np.sqrt(wave.var(dtype=np.float64) + NORMALISATION_EPSILON)
                place = {"offset": local.tell() // _BYTES_PER_SAMPLE, "length": len(wave)}
                index.append(row | changes | place | {"mean": wave.mean(dtype=np.float64), "std": deviation})
                local.write(wave.astype("<f4").tobytes())
            samples = local.tell() // _BYTES_PER_SAMPLE
            local.flush()
            waves = attempt.put_file(f"{Folder.WAVES}/{name}.f32", Path(local.name))
        index = [row | {"shard": waves.path} for row in index]
        table = tables.conform(pa.Table.from_pylist(index, schema=tables.TRAINING_SET), tables.TRAINING_SET)
        files = [waves, attempt.put_table(f"{Folder.TRAINING_SET}/{name}.parquet", table), *told]
        return Done(files, {"clips": len(index), "samples": samples, **left})

    def _versions(self, rows: Sequence[Row]) -> Iterator[tuple[Row, np.ndarray, dict[str, Any]]]:
        """Every row with each of the waveforms made of it, and what of the row is another then."""
        from ray_asd.data import augment, recordings

        for row, original in zip(rows, recordings.waveforms(rows, self.audio.channel), strict=True):
            if self.augmentation is None:
                yield row, original, {"parent_clip_id": None, "speed": 1.0, "mode": None}
                continue
            policies = self.augmentation.label_policy.model_dump()
            for speed, mode in augment.variants(self.augmentation):
                changes = {
                    "clip_id": f"{row['clip_id']}@{mode}{speed:g}",
                    "parent_clip_id": row["clip_id"],
                    "speed": speed,
                    "mode": mode,
                    "num_samples": round(row["num_samples"] / speed),
                    "condition": augment.condition(row, speed, mode, policies[mode]),
                }
                yield row, augment.change_speed(original, speed, mode), changes
