"""What work takes of a cluster, whether it can ever fit, and the queue in which it waits for its place."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import ray

from ray_asd.build import Held
from ray_asd.config import Worker
from ray_asd.engine import connection
from ray_asd.errors import STOPPED, Retryable, UserError

_CAPACITY_SECONDS = 2.0  # how often a waiter looks whether the cluster has grown
_ROUNDING = 1e-6  # of fractional CPUs and GPUs
GIB = 1 << 30


def check_fits(what: str, worker: Worker, count: int = 1, beside: Mapping[str, float] = MappingProxyType({})) -> None:
    """Refuse work that this cluster could never run, instead of waiting for ever; ``beside`` is taken with it.

    Raises:
        UserError: names what is asked for and what is there.
    """
    have = ray.cluster_resources()
    for resource, amount in (Counter(needs(worker, count)) + Counter(beside)).items():
        if amount > have.get(resource, 0):
            with_it = " and what it uses" if beside.get(resource) else ""
            raise UserError(
                f"{what} needs {_amount(resource, amount)} ({count} worker(s){with_it}); "
                f"the cluster has {_amount(resource, have.get(resource, 0))}"
            )


@dataclass(frozen=True)
class Grant:
    """How many workers some work may have, and what they hold."""

    workers: int
    held: Held


class Budget:
    """What the cluster holds, shared by all that this process runs on it at once: first come, first served.

    Trainers and Ray Data pipelines know nothing of each other; whoever asks for more than is free would wait inside
    Ray with part of it in hand. Here work waits before it starts, and holds all it needs or nothing.
    """

    def __init__(self, capacity: Callable[[], Mapping[str, float]]) -> None:
        self._capacity = capacity
        self._held: Counter[str] = Counter()
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def hold(
        self, worker: Worker, least: int, most: int, beside: Mapping[str, float] = MappingProxyType({})
    ) -> Iterator["Grant"]:
        """Wait for ``least`` workers, then hold as many as are free up to ``most``; the block is told what it got.

        What goes ``beside`` them is held with them.

        Raises:
            Retryable: SIGTERM came first.
        """
        ticket, asked = object(), time.monotonic()
        with self._changed:
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket or self._fit(worker, least, beside) < least:
                    self._changed.wait(_CAPACITY_SECONDS)
                    if connection.stop_requested():
                        raise Retryable(STOPPED)
                count = min(most, self._fit(worker, most, beside))
                taken = Counter(needs(worker, count)) + Counter(beside)
                self._held += taken
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
        try:
            held = Held(cpus=taken["CPU"], gpus=taken["GPU"], waited=time.monotonic() - asked)
            yield Grant(count, held)
        finally:
            with self._changed:
                self._held -= taken
                self._changed.notify_all()

    def _fit(self, worker: Worker, most: int, beside: Mapping[str, float]) -> int:
        """How many workers are free, at most ``most``, once what goes ``beside`` them is taken."""
        capacity = self._capacity()
        free = {name: capacity.get(name, 0) - self._held[name] for name in {**needs(worker), **beside}}
        if any(amount > free[name] + _ROUNDING for name, amount in beside.items()):
            return 0
        free = {name: amount - beside.get(name, 0) for name, amount in free.items()}
        rooms = [int(free[name] / amount + _ROUNDING) for name, amount in needs(worker).items()]
        return max(0, min([most, *(rooms or [int(capacity.get("CPU", 1))])]))


def needs(worker: Worker, count: int = 1) -> dict[str, float]:
    """What so many such workers take of their nodes, by Ray's names; nothing that they take none of."""
    amounts = {"CPU": worker.cpus, "GPU": worker.gpus, "memory": (worker.memory_gb or 0) * GIB}
    return {name: amount * count for name, amount in amounts.items() if amount}


def options(worker: Worker) -> dict[str, Any]:
    """What Ray is asked for so that such a worker gets its place."""
    asked: dict[str, Any] = {"num_cpus": worker.cpus, "num_gpus": worker.gpus}
    if worker.memory_gb:
        asked["memory"] = worker.memory_gb * GIB
    if worker.labels:
        asked["label_selector"] = worker.labels
    return asked


def room(worker: Worker, count: int) -> int:
    """How many groups of ``count`` such workers the whole cluster holds at once."""
    have = ray.cluster_resources()
    rooms = [have.get(name, 0) / amount for name, amount in (needs(worker, count) or {"CPU": count}).items()]
    return int(min(rooms) + _ROUNDING)


budget = Budget(lambda: ray.cluster_resources())


def _amount(resource: str, amount: float) -> str:
    return f"{amount / GIB:.1f} GiB memory" if resource == "memory" else f"{amount:g} {resource}"
