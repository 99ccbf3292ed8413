"""Work that falls into independent shards, run on Ray Data.

A table's rows are cut into shards of a fixed number of rows. A worker reads one shard's rows, writes that shard's
files below the attempt under names made from the shard's number, and returns only what it wrote and counted: a
retried shard replaces its own files, results do not depend on the number of workers, and the driver's memory grows
with the number of shards, not of recordings.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError, RayTaskError

from ray_asd.build import Attempt, File, Held
from ray_asd.config import Worker
from ray_asd.errors import StageError, UserError
from ray_asd.stages import cluster
from ray_asd.stages.progress import Progress

_NUMBER = "__shard__"
NO_PROGRESS_SECONDS = 900  # a pipeline that stands still for so long fails instead of hanging


@dataclass(frozen=True)
class Done:
    """What one shard, or all of them together, wrote and counted; and what all of them held on Ray."""

    files: list[File]
    counts: dict[str, int]
    held: Held = Held()


class Shard(Protocol):
    """The work on one shard: built once per worker process, then called with rows, the place to write, a number."""

    def __call__(self, rows: pa.Table, attempt: Attempt, number: int) -> Done: ...


class _ShardWorker:
    def __init__(self, make: Callable[[], Shard], attempt: Attempt) -> None:
        self.make = make
        self.attempt = attempt

    @cached_property
    def work(self) -> Shard:
        return self.make()

    def __call__(self, rows: pa.Table) -> pa.Table:
        number = rows.column(_NUMBER)[0].as_py()
        try:
            done = self.work(rows.drop_columns(_NUMBER), self.attempt, number)
        except (UserError, StageError) as error:  # carried back as data: Ray would wrap and repeat it
            result: dict[str, Any] = {"error": type(error).__name__, "message": str(error)}
        except OSError as error:  # Ray would put words of its own where the file's name stood
            result = {"error": "StageError", "message": first_line(error)}
        else:
            result = {"files": [file.model_dump() for file in done.files], "counts": done.counts}
        return pa.table({"done": [json.dumps(result)], "rows": [rows.num_rows]})


def run(
    what: str,
    make: Callable[[], Shard],
    rows: pa.Table,
    attempt: Attempt,
    *,
    shard_rows: int,
    worker: Worker,
    workers: int | None = None,
    progress: Progress,
) -> Done:
    """Do ``make()``'s work on every shard of ``rows``, at most ``workers`` at a time (None: as many as are free).

    Raises:
        StageError, UserError: as the work raised them; or Ray could not bring the work to its end.
    """
    if not rows.num_rows:
        return Done([], {})
    shards = -(-rows.num_rows // shard_rows)
    blocks = [_numbered(rows.slice(number * shard_rows, shard_rows), number) for number in range(shards)]
    cluster.check_fits(what, worker)
    _configure_ray_data()
    with cluster.budget.hold(worker, 1, min(workers or shards, shards)) as grant:
        pipeline = ray.data.from_arrow(blocks).map_batches(
            _ShardWorker,
            fn_constructor_args=(make, attempt),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=grant.workers, max_tasks_in_flight_per_actor=2),
            **_options(worker),
        )
        try:
            return _collected(what, pipeline, rows.num_rows, grant.held, progress)
        except RayError as error:
            raise StageError(f"{what}: {first_line(error)}") from error


def _options(worker: Worker) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": worker.cpus, "num_gpus": worker.gpus}
    if worker.memory_gb:
        options["memory"] = worker.memory_gb * cluster.GIB
    if worker.labels:
        options["label_selector"] = worker.labels
    return options


def _collected(what: str, pipeline: ray.data.Dataset, total: int, held: Held, progress: Progress) -> Done:
    files: list[File] = []
    counts: Counter[str] = Counter()
    finished = 0
    progress(what, finished, total)
    for row in pipeline.iter_rows():
        done = json.loads(row["done"])
        if "error" in done:
            raise (UserError if done["error"] == "UserError" else StageError)(done["message"])
        files += [File(**file) for file in done["files"]]
        counts.update(done["counts"])
        finished += row["rows"]
        progress(what, finished, total)
    return Done(files, dict(counts), held)


def _numbered(rows: pa.Table, number: int) -> pa.Table:
    return rows.append_column(_NUMBER, pa.array([number] * rows.num_rows, pa.int64()))


def first_line(error: BaseException) -> str:
    """What went wrong at the bottom of Ray's chain of causes, without its traceback."""
    while error.__cause__ is not None and not isinstance(error, RayTaskError):
        error = error.__cause__
    inner = error.cause if isinstance(error, RayTaskError) else error
    lines = [line.strip() for line in str(inner).splitlines() if line.strip()]
    return f"{type(inner).__name__}: {lines[0] if lines else 'no message'}"


def _configure_ray_data() -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True
    context.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS
    logging.getLogger("ray.data").setLevel(logging.ERROR)
