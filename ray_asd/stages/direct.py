"""Scores that a baseline gives by itself, on Ray Data: one number per clip, no bank.

They are kept as the model gives them; the ``score`` stage puts thresholds to them.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import tables
from ray_asd.build import Attempt, Outcome, Output
from ray_asd.config import Audio, Usage
from ray_asd.errors import StageError
from ray_asd.models.card import CARD, read_card
from ray_asd.stages import embed
from ray_asd.stages.progress import Progress
from ray_asd.steps import Step

CODE_VERSION = 1
SHARD_CLIPS = 32
_SETTING = {"autoencoder": "autoencoder", "mobilenet": "mobilenet_class"}  # which of the scoring a method heeds
DIRECT = "direct"  # folder of the table in the stage's output


def step(model: Step | Output, method: str, clips: Output, usage: Usage, audio: Audio, progress: Progress) -> Step:
    """DIRECT scores of all clips but those that training saw, which say nothing."""
    scoring = usage.scoring.model_dump(mode="json", include={_SETTING[method]})
    return Step(
        stage="direct",
        name=embed.name_of(model),
        code_version=CODE_VERSION,
        config={"audio": audio.model_dump(mode="json"), **scoring},
        inputs={"clips": clips, "model": model},
        work=lambda attempt, inputs: _work(attempt, inputs, usage, audio, progress),
        units=sum(clips.marker.counts.get(split, 0) for split in ("test", "calibration")),
        worker=usage.resources.embed,
        workers=usage.resources.embed_workers,
    )


def _work(attempt: Attempt, inputs: Mapping[str, Output], usage: Usage, audio: Audio, progress: Progress) -> Outcome:
    from ray_asd.stages import fanout

    model, clips = inputs["model"], inputs["clips"].table("clips")
    kept_back = pc.is_in(clips["clip_id"], pa.array(read_card(model.fetch(CARD)).held_out, pa.string()))
    rows = clips.filter(pc.or_(kept_back, pc.is_in(clips["split"], pa.array(["test", "calibration"]))))
    done = fanout.run(
        f"score {model.marker.name}",
        lambda: _Scores(model, usage, audio),
        rows,
        attempt,
        shard_rows=SHARD_CLIPS,
        worker=usage.resources.embed,
        workers=usage.resources.embed_workers,
        progress=progress,
    )
    if done.counts.get("clips", 0) != rows.num_rows:
        raise StageError(f"{rows.num_rows} clips went in, {done.counts.get('clips', 0)} scores came out")
    return Outcome(done.files, done.counts, held=done.held)


class _Scores:
    """One shard of CLIPS to one file of DIRECT scores."""

    def __init__(self, model: Output, usage: Usage, audio: Audio) -> None:
        from ray_asd.stages import baseline_scores

        self.channel = audio.channel
        self.score = baseline_scores.load(model, usage)

    def __call__(self, rows: pa.Table, attempt: Attempt, number: int) -> Any:
        from ray_asd.data.audio import read_waveform
        from ray_asd.stages.fanout import Done

        scores = [
            self.score(read_waveform(row["uri"], self.channel, row["content_hash"]), row) for row in rows.to_pylist()
        ]
        kept = rows.select([name for name in tables.DIRECT.names if name != "score"])
        table = tables.conform(kept.append_column("score", pa.array(scores, pa.float64())), tables.DIRECT)
        return Done([attempt.put_table(f"{DIRECT}/{number:05d}.parquet", table)], {"clips": rows.num_rows})
