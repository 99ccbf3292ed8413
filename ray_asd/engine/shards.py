"""Work that falls into independent shards, run on Ray Data.

A worker reads one shard's rows, writes that shard's files below the attempt under names made from the shard's number,
and returns only what it wrote and counted: results do not depend on the number of workers, and the driver's memory
grows with the number of shards, not of recordings. Where the attempt is shared by all tries at a stage, a receipt says
which shards are done, so that a killed stage goes on with the others.
"""

import json
import logging
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any, Protocol
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from ray_asd import store
from ray_asd.build import MARKER, Attempt, Held
from ray_asd.config import Worker
from ray_asd.engine import placement, receipts, telemetry
from ray_asd.engine.one_line import first_line, told
from ray_asd.engine.progress import Progress
from ray_asd.engine.receipts import Done
from ray_asd.engine.waiting import Waiting
from ray_asd.errors import Retryable, StageError, UserError

_SHARD = "__shard__"  # its number and part of the digest of its rows: what its receipt is called
MOST_TASKS = 2048  # more shards than that are dealt out several at a time
KEPT_SECONDS = 10.0  # that an idle process holds what it made for its last shard
_LOOK_SECONDS = 2.0  # between looks of a driver to whom nothing comes
_BEFORE, _BEGUN = "driver", "begun"  # beside the receipts: written by the driver, and by the first worker that works


class Shard(Protocol):
    """The work on one shard: built once per worker process, then called with rows, the place to write, a name."""

    def __call__(self, rows: pa.Table, attempt: Attempt, name: str, /) -> Done: ...


class Service(AbstractContextManager["Service"]):
    """What all workers of a stage use while it runs, and what that holds on Ray beside them."""

    worker: Worker
    count: int

    def is_up(self, seconds: float) -> bool:
        """Whether it can be used, waiting so long for that; raises what keeps it from coming up."""
        raise NotImplementedError


@dataclass(frozen=True)
class _ShardWorker:
    """Equal to all of its run, so that a process that has one needs no other."""

    run: str
    make: Callable[[], Shard] = field(compare=False)
    attempt: Attempt = field(compare=False)

    @cached_property
    def work(self) -> Shard:
        if self.attempt.is_shared:
            committed = store.join(store.parent(self.attempt.uri), MARKER)
            if not (self._note(self._begun, b"") or store.exists(committed)):
                here = f"{socket.gethostname()} does not see what the driver wrote below {self.attempt.uri}"
                raise Retryable(f"{here}; allowed: a folder that all nodes share, or s3://")
        return self.make()

    def _note(self, name: str, said: bytes) -> bool:
        """Write among the receipts, unless another process has committed the stage and cleared them away."""
        is_open = store.exists(receipts.place(self.attempt, _BEFORE))
        if is_open:
            store.write(receipts.place(self.attempt, name), said)
        return is_open

    def has_begun(self) -> bool:
        """Whether a worker works, as far as can be known; asked by the driver."""
        return not self.attempt.is_shared or store.exists(receipts.place(self.attempt, self._begun))

    @property
    def _begun(self) -> str:
        return f"{_BEGUN}-{self.run}"

    def __call__(self, block: pa.Table) -> pa.Table:
        numbers, done = list[int](), list[str]()
        for name in pc.unique(block[_SHARD]).to_pylist():
            number, said, is_done = self._one(name, block.filter(pc.equal(block[_SHARD], name)).drop_columns(_SHARD))
            numbers.append(number)
            done.append(said)
            if not is_done:
                break
        return pa.table({"number": numbers, "done": done})

    def _one(self, name: str, rows: pa.Table) -> tuple[int, str, bool]:
        """A shard's number, what came of it, and whether that is what it was to do."""
        number = int(name.partition("-")[0])
        try:
            done = self.work(rows, self.attempt, f"{number:05d}")
            result = receipts.as_json(done)
            if self.attempt.is_shared:
                self._note(f"{name}.json", result.encode())
            telemetry.tell("asd_cache_bytes", store.cache_bytes())
            return number, result, True
        except (UserError, StageError) as error:  # carried back as data: Ray would wrap and repeat it
            return number, receipts.failed(error), False
        except OSError as error:  # Ray would put words of its own where the file's name stood
            kind = Retryable if store.is_to_blame(error) else StageError
            return number, receipts.failed(kind(first_line(error))), False
        except StopIteration as error:  # which Ray's own iterators would take for the end of all rows
            raise RuntimeError("the work on a shard raised StopIteration") from error


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

    ``service`` is up while they work.

    Raises:
        StageError, UserError: as the work raised them.
        Retryable: Ray lost workers or nodes more often than it tries again.
    """
    waiting = Waiting(what, worker, 1, progress)
    sum_ = receipts.Sum(what, shards, waiting.progress)
    sum_.add_receipts(attempt)
    if not sum_.missing:
        return sum_.done(Held())
    beside = placement.needs(service.worker, service.count) if service else {}
    placement.check_fits(what, worker, beside=beside)
    _configure_ray_data()
    blocks = _blocks(shards, sum_)
    most = min(workers or len(blocks), len(blocks))
    if attempt.is_shared:
        store.write(receipts.place(attempt, _BEFORE), b"")
    try:
        with waiting.place(1, most, beside) as grant, service or nullcontext():
            while service and not service.is_up(_LOOK_SECONDS):
                waiting.look()
            work = _ShardWorker(uuid4().hex, make, attempt)
            for row in _rows(lambda: _mapped(blocks, work, worker, grant.workers)):
                if row or waiting.is_over or work.has_begun():
                    waiting.begin()
                else:
                    waiting.look()
                if row:
                    sum_.add(row["number"], json.loads(row["done"]))
            return sum_.done(grant.held)
    except (UserError, StageError):
        raise
    except Exception as error:  # Ray Data has errors of its own that are no RayErrors
        raise told(what, error) from error


def _mapped(blocks: list[pa.Table], work: _ShardWorker, worker: Worker, workers: int) -> ray.data.Dataset:
    """By tasks, whose processes go on to the next run with all that they imported; on GPUs, which are free again once a
    process ends, by actors."""
    shards = ray.data.from_arrow(blocks)
    whole = {"batch_size": None, "batch_format": "pyarrow", **placement.options(worker)}
    if not worker.gpus:
        return shards.map_batches(_in_task, fn_args=(work,), compute=ray.data.TaskPoolStrategy(workers), **whole)
    actors = ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2)
    return shards.map_batches_internal(  # map_batches wants a number of rows of who asks for GPUs, and would cut by it
        _ShardWorker, fn_constructor_args=(work.run, work.make, work.attempt), compute=actors, **whole
    )


def _rows(pipeline: Callable[[], ray.data.Dataset]) -> Iterator[dict[str, Any] | None]:
    """Rows as they come, each asked for once the one before is dealt with; None now and then while none come.

    Already making a pipeline of tables takes a CPU, which may have to be waited for.
    """
    found: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue()
    left, taken = threading.Event(), threading.Semaphore(0)

    def read() -> None:
        try:
            for row in pipeline().iter_rows():
                found.put(row)
                taken.acquire()
                if left.is_set():
                    return
            found.put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the rows are taken
            found.put(error)

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            try:
                row = found.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                yield None
                continue
            if row is None:
                return
            if isinstance(row, BaseException):
                raise row
            yield row
            taken.release()
    finally:
        left.set()
        taken.release()


def _blocks(shards: Sequence[pa.Table], sum_: receipts.Sum) -> list[pa.Table]:
    """The rows of all shards that are to be done, by as many tasks as Ray Data can have in the driver's memory."""
    missing = sum_.missing
    together = -(-len(missing) // MOST_TASKS)
    named = (_named(shards[number], sum_.names[number]) for number in missing)
    return [pa.concat_tables(block).combine_chunks() for block in iter(lambda: list(islice(named, together)), [])]


def _named(rows: pa.Table, name: str) -> pa.Table:
    return rows.append_column(_SHARD, pa.array([name] * rows.num_rows, pa.string()))


def _configure_ray_data() -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True
    context.execution_no_progress_timeout_s = -1  # a shard takes as long as it takes
    logging.getLogger("ray.data").setLevel(logging.ERROR)
