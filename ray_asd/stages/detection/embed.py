"""What a model says of clips, on Ray Data, one model per worker: EMBEDDINGS, or a baseline's DIRECT scores.

Clips that cannot be heard any more are listed in UNSCORED beside them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import tables
from ray_asd.build import Attempt, File, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.data.ingested import most_seconds
from ray_asd.engine.progress import Progress
from ray_asd.errors import StageError
from ray_asd.stages.recordings import refusals
from ray_asd.stages.training.usage import Used
from ray_asd.tables import Folder, as_column

CODE_VERSION = 6
EVERY_SPLIT = ("train", "calibration", "test")  # supplemental clips are nobody's
HEALTHY_SPLITS = ("train", "calibration")


def clips(used: Used, clips: Output, progress: Progress, splits: Sequence[str] = EVERY_SPLIT) -> Step:
    """EMBEDDINGS of the clips in these ``splits``, or a baseline's DIRECT scores of those it was not trained on."""
    inputs: dict[str, Step | Output] = {"clips": clips}
    if used.home:
        inputs["model"] = used.home
    config = used.key() | {"splits": list(splits)} | ({"folder": used.folder} if used.folder else {})
    if not used.has_bank and used.trained_on:
        inputs["trained_on"] = used.trained_on
    return Step(
        stage="embed" if used.has_bank else "direct",
        name=used.name,
        code_version=CODE_VERSION,
        config=config,
        inputs=inputs,
        work=lambda attempt, inputs: _work(attempt, inputs, used, splits, progress),
        units=sum(clips.marker.counts.get(split, 0) for split in splits),
        worker=used.usage.resources.embed,
        workers=used.usage.resources.embed_workers,
        resumable=True,
        check=lambda: refusals.channel(clips, used.audio.channel, splits),
    )


def _work(
    attempt: Attempt, inputs: Mapping[str, Output], used: Used, splits: Sequence[str], progress: Progress
) -> Outcome:
    from ray_asd.engine import cutting, shards

    clips, resources = inputs["clips"], used.usage.resources
    if "model" in inputs:
        used = used.at(inputs["model"], used.folder)
    expected = sum(clips.marker.counts.get(split, 0) for split in splits)
    counted = clips.marker.counts
    done = shards.run(
        f"{'embed' if used.has_bank else 'score'} {used.name}",
        lambda: _Clips(used, clips, splits),
        cutting.spans(clips, Folder.CLIPS, cutting.shard_size(counted["clips"], most_seconds(counted))),
        attempt,
        worker=resources.embed,
        workers=resources.embed_workers,
        progress=progress,
    )
    counts = {"clips": 0, "unscored": 0} | done.counts
    if counts["clips"] + counts["unscored"] != expected:
        raise StageError(f"{expected} clips went in, {counts['clips']} and {counts['unscored']} unscored came out")
    return Outcome(done.files, counts, held=done.held)


class _Clips:
    """One shard of CLIPS to one file of EMBEDDINGS or DIRECT scores, and one of UNSCORED where there are such."""

    def __init__(self, used: Used, clips: Output, splits: Sequence[str]) -> None:
        from ray_asd.engine.cutting import Reader
        from ray_asd.stages.detection.hearing import Model

        self.rows = Reader(clips)
        self.splits = pa.array(splits)
        self.has_bank = used.has_bank
        self.provenance = None if used.has_bank else used.provenance()
        self.model = Model(used)

    def __call__(self, span: pa.Table, attempt: Attempt, name: str) -> Any:
        from ray_asd.data.recordings import unscored
        from ray_asd.engine.receipts import Done

        rows = self.rows(span)
        rows = rows.filter(pc.is_in(rows["split"], self.splits))
        silent = rows.slice(0, 0)
        if self.provenance:
            is_trained = pa.array([role == "trained" for role in self.provenance.roles(rows)], pa.bool_())
            rows, silent = rows.filter(pc.invert(is_trained)), rows.filter(is_trained)
        heard = self.model(rows)
        files: list[File] = []
        table = self._table(rows.take(pa.array(heard.positions)), heard.values, silent)
        if table.num_rows:
            folder = Folder.EMBEDDINGS if self.has_bank else Folder.DIRECT
            files.append(attempt.put_table(f"{folder}/{name}.parquet", table))
        if heard.unheard:
            files.append(attempt.put_table(f"{Folder.UNSCORED}/{name}.parquet", unscored(rows, heard.unheard)))
        reasons = Counter(f"unscored_{found.reason}" for found in heard.unheard.values())
        return Done(files, {"clips": table.num_rows, "unscored": len(heard.unheard), **reasons})

    def _table(self, rows: pa.Table, values: np.ndarray, silent: pa.Table) -> pa.Table:
        """EMBEDDINGS of ``rows``, or DIRECT scores of them and null ones of ``silent`` rows."""
        if self.has_bank:
            schema = tables.embeddings(values.shape[1])
            kept = rows.select([column for column in schema.names if column != "embedding"])
            return tables.conform(kept.append_column("embedding", as_column(values)), schema)
        names = [column for column in tables.DIRECT.names if column != "score"]
        scores = [*values[:, 0].tolist(), *[None] * silent.num_rows]
        kept = pa.concat_tables([rows.select(names), silent.select(names)])
        return tables.conform(kept.append_column("score", pa.array(scores, pa.float64())), tables.DIRECT)
