"""Archive scoring: recordings to SCORES shard by shard, through the model of a worker and past the bank's actors."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_asd import store
from ray_asd.build import Attempt, Output
from ray_asd.config import Usage
from ray_asd.engine.shards import Done, Reader, Service
from ray_asd.stages.detection import bank_actors, embed, thresholds
from ray_asd.stages.detection.judge import Judge
from ray_asd.stages.training.usage import Settings
from ray_asd.tables import Folder


class Bench(Service):
    """The bank's actors and the thresholds, there before the first clip comes.

    The thresholds are put down before the first shard is done: a killed stage goes on with the same ones.
    """

    def __init__(self, attempt: Attempt, inputs: Mapping[str, Output], usage: Usage, label: Mapping[str, str]) -> None:
        self._place = store.join(attempt.uri, "thresholds.parquet")
        self._inputs, self._scoring, self._label = inputs, usage.scoring, label
        self._pool = bank_actors.Pool(inputs["index"], usage.resources)
        self.worker, self.count = self._pool.worker, self._pool.count

    def __enter__(self) -> Self:
        self._pool.__enter__()
        if not store.exists(self._place):
            healthy = thresholds.healthy(self._inputs, self._pool, self._scoring.neighbours)
            sink = pa.BufferOutputStream()
            pq.write_table(thresholds.fit(healthy, self._scoring.threshold), sink)
            store.write(self._place, sink.getvalue().to_pybytes())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)

    def limits(self) -> pa.Table:
        """THRESHOLDS, as soon as it has been up."""
        return pq.read_table(pa.BufferReader(store.read(self._place)))

    def judge(self) -> Judge:
        """For a worker, while it is up."""
        limits = thresholds.by_group(self.limits())
        return Judge(self._pool, self._inputs["index"], self._scoring.neighbours, limits, self._label)


class Clips:
    """One shard of CLIPS to one file of SCORES."""

    def __init__(self, model: Output | None, clips: Output, settings: Settings, bench: Bench) -> None:
        self.rows = Reader(clips)
        self.embed = embed.Embedding(model, settings)
        self.judge = bench.judge()

    def __call__(self, span: pa.Table, attempt: Attempt, name: str) -> Any:
        rows = self.rows(span).filter(pc.field("split") == "test")
        if not rows.num_rows:
            return Done([], {})
        scores = self.judge(rows, self.embed(rows))
        return Done([attempt.put_table(f"{Folder.SCORES}/{name}.parquet", scores)], {"clips": scores.num_rows})
