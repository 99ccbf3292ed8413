"""Scores that a baseline gives by itself, on Ray Data: one number per clip, no bank.

They are kept as the model gives them; the ``score`` stage puts thresholds to them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import tables
from ray_asd.build import Attempt, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.config import Audio, Usage
from ray_asd.engine.progress import Progress
from ray_asd.errors import StageError
from ray_asd.models.card import CARD, read_card
from ray_asd.stages.training.usage import name_of
from ray_asd.tables import Folder

CODE_VERSION = 2
_SETTING = {"autoencoder": "autoencoder", "mobilenet": "mobilenet_class"}  # which of the scoring a method heeds
_ALWAYS = ("test", "calibration")  # splits that no training sees


def step(model: Step | Output, method: str, clips: Output, usage: Usage, audio: Audio, progress: Progress) -> Step:
    """DIRECT scores of all clips but those that training saw, which say nothing."""
    scoring = usage.scoring.model_dump(mode="json", include={_SETTING[method]})
    return Step(
        stage="direct",
        name=name_of(model),
        code_version=CODE_VERSION,
        config={"audio": audio.model_dump(mode="json"), **scoring},
        inputs={"clips": clips, "model": model},
        work=lambda attempt, inputs: _work(attempt, inputs, usage, audio, progress),
        units=sum(clips.marker.counts.get(split, 0) for split in _ALWAYS),
        worker=usage.resources.embed,
        workers=usage.resources.embed_workers,
        resumable=True,
    )


def _work(attempt: Attempt, inputs: Mapping[str, Output], usage: Usage, audio: Audio, progress: Progress) -> Outcome:
    from ray_asd.engine import shards

    model, clips = inputs["model"], inputs["clips"]
    held_out = read_card(model.fetch(CARD)).held_out
    done = shards.run(
        f"score {model.marker.name}",
        lambda: _Scores(model, clips, held_out, usage, audio),
        shards.spans(clips, Folder.CLIPS, shards.shard_size(clips.marker.counts["clips"])),
        attempt,
        worker=usage.resources.embed,
        workers=usage.resources.embed_workers,
        progress=progress,
    )
    counts = clips.marker.counts
    expected = sum(counts.get(split, 0) for split in _ALWAYS) + done.counts.get("held_out", 0)
    if done.counts.get("clips", 0) != expected:
        raise StageError(f"{expected} clips went in, {done.counts.get('clips', 0)} scores came out")
    return Outcome(done.files, done.counts, held=done.held)


class _Scores:
    """One shard of CLIPS to one file of DIRECT scores."""

    def __init__(self, model: Output, clips: Output, held_out: Sequence[str], usage: Usage, audio: Audio) -> None:
        from ray_asd.engine.shards import Reader
        from ray_asd.stages.detection import baseline_scores

        self.rows = Reader(clips)
        self.held_out = pa.array(held_out, pa.string())
        self.channel = audio.channel
        self.score = baseline_scores.load(model, usage)

    def __call__(self, span: pa.Table, attempt: Attempt, name: str) -> Any:
        from ray_asd.data.recordings import waveforms
        from ray_asd.engine.shards import Done

        rows = self.rows(span)
        always = pc.is_in(rows["split"], pa.array(_ALWAYS))
        held_out = pc.and_(pc.is_in(rows["clip_id"], self.held_out), pc.invert(always))
        rows, num_held_out = rows.filter(pc.or_(always, held_out)), pc.sum(held_out).as_py() or 0
        if not rows.num_rows:
            return Done([], {})
        clips = rows.to_pylist()
        scores = [self.score(wave, clip) for wave, clip in zip(waveforms(clips, self.channel), clips, strict=True)]
        kept = rows.select([column for column in tables.DIRECT.names if column != "score"])
        table = tables.conform(kept.append_column("score", pa.array(scores, pa.float64())), tables.DIRECT)
        counts = {"clips": rows.num_rows, "held_out": num_held_out}
        return Done([attempt.put_table(f"{Folder.DIRECT}/{name}.parquet", table)], counts)
