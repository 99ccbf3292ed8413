"""Work that falls into independent shards, run on Ray Data.

A worker reads one shard's rows, writes that shard's files below the attempt under names made from the shard's number,
and returns only what it wrote and counted: results do not depend on the number of workers, and the driver's memory
grows with the number of shards, not of recordings. Where the attempt is shared by all tries at a stage, a receipt says
which shards are done, so that a killed stage goes on with the others.
"""

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Protocol
from uuid import uuid4

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError, RayTaskError

from ray_asd import store
from ray_asd.build import RECEIPTS, Attempt, File, Held, Output
from ray_asd.config import Worker
from ray_asd.engine import placement
from ray_asd.engine.progress import Progress
from ray_asd.errors import Retryable, StageError, UserError

_NUMBER = "__shard__"
NO_PROGRESS_SECONDS = 900  # a pipeline that stands still for so long fails instead of hanging
SMALLEST, LARGEST = 32, 512  # clips of a shard
SHARDS = 64  # as many as that, if none gets too small or too large
KEPT_SECONDS = 10.0  # that an idle process holds what it made for its last shard
_READERS = 16  # of receipts
_CARRIED = {"UserError": UserError, "Retryable": Retryable, "StageError": StageError}  # the narrower ones first


@dataclass(frozen=True)
class Done:
    """What one shard, or all of them together, wrote and counted; and what all of them held on Ray."""

    files: list[File]
    counts: dict[str, int]
    held: Held = Held()


class Shard(Protocol):
    """The work on one shard: built once per worker process, then called with rows, the place to write, a name."""

    def __call__(self, rows: pa.Table, attempt: Attempt, name: str, /) -> Done: ...


class Service(AbstractContextManager["Service"]):
    """What all workers of a stage use while it runs, and what that holds on Ray beside them."""

    worker: Worker
    count: int


def shard_size(total: int) -> int:
    """Clips of a shard, a multiple of 32: few enough to spread the work and lose little, enough to be worth a file."""
    return min(max(-(-total // SHARDS), SMALLEST), LARGEST) // SMALLEST * SMALLEST


def rows(table: pa.Table, size: int) -> list[pa.Table]:
    """Shards of ``size`` rows."""
    return [table.slice(start, size) for start in range(0, table.num_rows, size)]


def spans(output: Output, folder: str, size: int) -> list[pa.Table]:
    """Shards that name at most ``size`` rows of one committed file each, to be read by a ``Reader``.

    Raises:
        StageError: the table was written by a version that did not count its rows.
    """
    found = []
    for file in output.files(folder):
        if file.rows is None:
            raise StageError(f"{output.uri} was written by an older version; make it anew")
        starts = range(0, file.rows, size)
        found += [_span(file.path, start, min(start + size, file.rows)) for start in starts]
    return found


def _span(path: str, start: int, stop: int) -> pa.Table:
    return pa.table({"path": [path], "start": [start], "stop": [stop]})


class Reader:
    """Reads the rows that a shard of ``spans`` names; the file it read last is kept."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._path, self._table = "", pa.table({})

    def __call__(self, span: pa.Table) -> pa.Table:
        (named,) = span.to_pylist()
        if named["path"] != self._path:
            self._path, self._table = named["path"], self._output.part(named["path"])
        return self._table.slice(named["start"], named["stop"] - named["start"])


@dataclass(frozen=True)
class _ShardWorker:
    """Equal to all of its run, so that a process that has one needs no other."""

    run: str
    make: Callable[[], Shard] = field(compare=False)
    attempt: Attempt = field(compare=False)

    @cached_property
    def work(self) -> Shard:
        return self.make()

    def __call__(self, block: pa.Table) -> pa.Table:
        number = block.column(_NUMBER)[0].as_py()
        try:
            done = self.work(block.drop_columns(_NUMBER), self.attempt, f"{number:05d}")
            result = _as_json(done)
            if self.attempt.is_shared:
                store.write(_receipt(self.attempt, f"{number:05d}"), result.encode())
        except (UserError, StageError) as error:  # carried back as data: Ray would wrap and repeat it
            kind = next(name for name, kind in _CARRIED.items() if isinstance(error, kind))
            result = json.dumps({"error": kind, "message": str(error)})
        except OSError as error:  # Ray would put words of its own where the file's name stood
            blamed = "Retryable" if store.is_to_blame(error) else "StageError"
            result = json.dumps({"error": blamed, "message": first_line(error)})
        return pa.table({"number": [number], "done": [result]})


class _Kept:
    """The worker whose shards this process does, let go once it has had none for ``KEPT_SECONDS``."""

    def __init__(self) -> None:
        self._worker = lru_cache(maxsize=1)(lambda worker: worker)
        self._letting_go = threading.Timer(0, self._worker.cache_clear)

    def __call__(self, worker: _ShardWorker, block: pa.Table) -> pa.Table:
        self._letting_go.cancel()
        done: pa.Table = self._worker(worker)(block)
        self._letting_go = threading.Timer(KEPT_SECONDS, self._worker.cache_clear)
        self._letting_go.daemon = True
        self._letting_go.start()
        return done


_kept = _Kept()


def _in_task(block: pa.Table, worker: _ShardWorker) -> pa.Table:
    return _kept(worker, block)


def forget(attempt: Attempt, name: str) -> None:
    """The shard that wrote under ``name`` is to be done again by the next try."""
    store.remove(_receipt(attempt, name))


def _receipt(attempt: Attempt, name: str) -> str:
    return store.join(attempt.uri, RECEIPTS, f"{name}.json")


def _as_json(done: Done) -> str:
    return json.dumps({"files": [file.model_dump() for file in done.files], "counts": done.counts})


def run(
    what: str,
    make: Callable[[], Shard],
    shards: Sequence[pa.Table],
    attempt: Attempt,
    *,
    worker: Worker,
    workers: int | None = None,
    progress: Progress,
    service: Service | None = None,
) -> Done:
    """Do ``make()``'s work on every shard, at most ``workers`` at a time (None: as many as are free).

    ``service`` is up while they work. Where more workers are asked for than are free, an autoscaling cluster may bring
    them.

    Raises:
        StageError, UserError: as the work raised them; or Ray could not bring the work to its end.
    """
    sum_ = _Sum(what, shards, progress)
    sum_.add_receipts(attempt)
    if not sum_.missing:
        return sum_.done(Held())
    beside = placement.needs(service.worker, service.count) if service else {}
    placement.check_fits(what, worker, beside=beside)
    _configure_ray_data()
    blocks = [_numbered(shards[number], number) for number in sum_.missing]
    most = min(workers or len(blocks), len(blocks))
    try:
        with placement.budget.hold(worker, 1, most, beside) as grant, service or nullcontext():
            at_once = most if workers else grant.workers
            pipeline = _mapped(ray.data.from_arrow(blocks), _ShardWorker(uuid4().hex, make, attempt), worker, at_once)
            for row in pipeline.iter_rows():
                sum_.add(row["number"], json.loads(row["done"]))
            return sum_.done(grant.held)
    except RayError as error:
        raise StageError(f"{what}: {first_line(error)}") from error


def _mapped(shards: ray.data.Dataset, work: _ShardWorker, worker: Worker, workers: int) -> ray.data.Dataset:
    """On CPUs by tasks, whose processes go on to the next run with all that they have imported; a GPU's memory is
    free again only once its process ends, so there by actors."""
    whole = {"batch_size": None, "batch_format": "pyarrow", **placement.options(worker)}
    if not worker.gpus:
        return shards.map_batches(_in_task, fn_args=(work,), compute=ray.data.TaskPoolStrategy(workers), **whole)
    actors = ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2)
    return shards.map_batches(
        _ShardWorker, fn_constructor_args=(work.run, work.make, work.attempt), compute=actors, **whole
    )


class _Sum:
    """What the shards did so far."""

    def __init__(self, what: str, shards: Sequence[pa.Table], progress: Progress) -> None:
        self._what, self._progress = what, progress
        self._sizes = [_size(shard) for shard in shards]
        self._files: list[File] = []
        self._counts: Counter[str] = Counter()
        self._missing = dict.fromkeys(range(len(shards)))
        self._show()

    @property
    def missing(self) -> list[int]:
        return list(self._missing)

    def add_receipts(self, attempt: Attempt) -> None:
        """Take what an earlier try has done already."""
        if not attempt.is_shared:
            return
        folder = store.join(attempt.uri, RECEIPTS)
        names = store.files(folder)
        with ThreadPoolExecutor(_READERS) as pool:
            receipts = pool.map(lambda name: store.read(store.join(folder, name)), names)
            for name, data in zip(names, receipts, strict=True):
                self.add(int(name.partition(".")[0]), json.loads(data))

    def add(self, number: int, done: dict[str, Any]) -> None:
        """Raises what the work raised."""
        if "error" in done:
            raise _CARRIED[done["error"]](done["message"])
        del self._missing[number]
        self._files += [File(**file) for file in done["files"]]
        self._counts.update(done["counts"])
        self._show()

    def done(self, held: Held) -> Done:
        if self._missing:
            raise StageError(f"{self._what}: {len(self._missing)} of {len(self._sizes)} shards never came back")
        return Done(self._files, dict(self._counts), held)

    def _show(self) -> None:
        total = sum(self._sizes)
        left = sum(self._sizes[number] for number in self._missing)
        self._progress(self._what, total - left, total)


def _size(shard: pa.Table) -> int:
    if shard.column_names == ["path", "start", "stop"]:
        return int(shard["stop"][0].as_py() - shard["start"][0].as_py())
    return int(shard.num_rows)


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
