"""Who answers queries to the bank on a cluster: a pool of Ray actors, each with a run of its rows.

Actors belong to the job, so no index of yesterday answers tonight. One that dies is started again by Ray and loads its
rows by their digest; searches are repeated, since asking twice changes nothing. Whatever the number of actors, the
answer is the same: their parts are merged exactly.
"""

import os
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayTaskError
from ray.util.metrics import Counter, Gauge, Histogram

from ray_asd.build import Output
from ray_asd.config import Resources, Worker
from ray_asd.scoring import knn
from ray_asd.stages import cluster
from ray_asd.stages.fanout import Service
from ray_asd.stages.search import Found, Part, Rows, bounds, merged

RESTARTS = 3  # of an actor, and of a search that it left without an answer
_AT_ONCE = 32  # calls that an actor takes in; one of them searches, the others are its queue
_LATENCY_SECONDS = [0.001, 0.01, 0.1, 1.0, 10.0]  # borders of the histogram's bins
_VECTOR_BYTES = 4


@ray.remote(max_restarts=RESTARTS, max_task_retries=RESTARTS, concurrency_groups={"search": _AT_ONCE, "health": 1})
class IndexActor:
    """Some rows of a bank. Searches one batch at a time, since FAISS's GPU resources serve one thread."""

    def __init__(self, bank: Output, start: int, stop: int, worker: Worker) -> None:
        knn.use_threads(max(1, round(worker.cpus)))
        self._rows = Rows(bank, start, stop, device=0 if worker.gpus else None)
        self._about = {"digest": bank.marker.digest, "start": start, "stop": stop, "pid": os.getpid()}
        self._searching, self._counting = threading.Lock(), threading.Lock()
        self._waiting = self._answered = 0
        tags = {"shard": f"{bank.marker.digest[:12]}:{start}"}
        self._queries = Counter("ray_asd_index_queries", "Queries answered", tag_keys=("shard",))
        self._queue = Gauge("ray_asd_index_queue", "Searches that wait for their turn", tag_keys=("shard",))
        self._latency = Histogram(
            "ray_asd_index_seconds", "Of a search, its wait included", boundaries=_LATENCY_SECONDS, tag_keys=("shard",)
        )
        for metric in (self._queries, self._queue, self._latency):
            metric.set_default_tags(tags)

    @ray.method(concurrency_group="search")  # type: ignore[untyped-decorator]
    def search(self, vectors: np.ndarray, groups: Sequence[int], clip_ids: Sequence[str], k: int) -> Part:
        begun = time.monotonic()
        self._count(waiting=1)
        with self._searching:
            self._count(waiting=-1)
            part = self._rows.search(vectors, groups, clip_ids, k)
        self._count(answered=len(vectors))
        self._queries.inc(len(vectors))
        self._latency.observe(time.monotonic() - begun)
        return part

    @ray.method(concurrency_group="health")  # type: ignore[untyped-decorator]
    def health(self) -> dict[str, Any]:
        """Which rows of which bank it holds, how many searches wait and how many queries it has answered."""
        return self._about | {"waiting": self._waiting, "answered": self._answered}

    def _count(self, waiting: int = 0, answered: int = 0) -> None:
        with self._counting:
            self._waiting += waiting
            self._answered += answered
            self._queue.set(self._waiting)


class Pool(Service):
    """The actors that hold a bank, up for as long as the block runs; travels to the workers that ask them."""

    def __init__(self, bank: Output, resources: Resources) -> None:
        self._bank, self.worker = bank, resources.index
        self._bounds = bounds(bank, resources.index_workers or _needed(bank, resources.index))
        self._replicas = resources.index_replicas
        self.count = len(self._bounds) * self._replicas
        self._actors: list[list[ActorHandle]] = []

    def __enter__(self) -> Self:
        options = cluster.options(self.worker)
        self._actors = [
            [
                IndexActor.options(**options).remote(self._bank, start, stop, self.worker)  # type: ignore[attr-defined]
                for start, stop in self._bounds
            ]
            for _ in range(self._replicas)
        ]
        self.health()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in (actor for replica in self._actors for actor in replica):
            ray.kill(actor)
        self._actors = []

    def health(self) -> list[dict[str, Any]]:
        """Of each actor."""
        answers: list[dict[str, Any]] = ray.get(
            [actor.health.remote() for replica in self._actors for actor in replica]
        )
        return answers

    def search(self, vectors: np.ndarray, groups: Sequence[int], clip_ids: Sequence[str], k: int) -> Found:
        """See ``Searcher``. A process always asks the same replica.

        Raises:
            RayError: an actor died more often than it may.
        """
        replica = self._actors[os.getpid() % self._replicas]
        arguments = (ray.put(vectors), groups, clip_ids, k)
        try:
            return merged(ray.get([actor.search.remote(*arguments) for actor in replica]), k)
        except RayTaskError as error:
            raise error.cause from None


def _needed(bank: Output, worker: Worker) -> int:
    """Shards, so that each one's vectors fit into its worker's memory."""
    held = bank.marker.counts["clips"] * bank.marker.summary["dim"] * _VECTOR_BYTES
    return 1 if worker.memory_gb is None else max(1, -(-held // int(worker.memory_gb * cluster.GIB)))
