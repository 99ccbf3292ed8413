"""What work takes of a cluster, whether it can ever fit, and the queue in which it waits for its place."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import ray

from ray_asd.build import Held
from ray_asd.build.steps import Step
from ray_asd.config import Worker
from ray_asd.engine import nodes
from ray_asd.engine.nodes import Node
from ray_asd.errors import UserError

_CAPACITY_SECONDS = 2.0  # how often a waiter looks whether the cluster has grown
AT_ONCE = 16  # pieces of work of one driver on a cluster that grows


def check_steps(steps: Iterable[Step], there: list[Node] | None = None) -> None:
    """``check_fits`` for the workers without which each of ``steps`` does not start.

    Raises:
        UserError: one of them can never start.
    """
    for step in steps:
        check_fits(f"{step.stage} {step.name}", step.worker, least(step), there=there)


def least(step: Step) -> int:
    """Workers without which a step does not start: all of a training's, one of a pipeline's."""
    return (step.workers or 1) if step.exclusive else 1


def check_fits(
    what: str,
    worker: Worker,
    count: int = 1,
    beside: Mapping[str, float] = MappingProxyType({}),
    there: list[Node] | None = None,
) -> None:
    """Refuse work that this cluster could never run, instead of waiting for ever; ``beside`` is taken with it.

    Where an autoscaler works nothing is refused: who waits is what it brings nodes for. ``there`` are the nodes of a
    cluster that has not been started yet.

    Raises:
        UserError: names what is asked for and the sizes of the nodes that are there.
    """
    has_yet_to_start = there is not None
    there = nodes.alive() if there is None else there
    enough = sum(node.room(needs(worker), worker.labels) for node in there) >= count
    asked = Counter(needs(worker, count)) + Counter(beside)
    if enough and all(sum(node.resources.get(name, 0) for node in there) >= value for name, value in asked.items()):
        return
    if not has_yet_to_start and nodes.grow():
        return
    names = list(asked)
    labels = "".join(f" on nodes with {name}={value}" for name, value in worker.labels.items())
    with_it = f" and {amounts(beside)} for what they use" if beside else ""
    raise UserError(
        f"{what} needs {count} x ({amounts(needs(worker))}){labels}{with_it}; "
        f"the cluster has {nodes.described(there, names)}"
    )


def amounts(resources: Mapping[str, float]) -> str:
    """``1 CPU, 0.5 GPU``."""
    return ", ".join(nodes.amount(name, value) for name, value in resources.items()) or "nothing"


@dataclass(frozen=True)
class Grant:
    """How many workers some work may have, and what they hold."""

    workers: int
    held: Held


class Budget:
    """What the cluster holds, shared by all that this process runs on it at once: first come, first served.

    Trainers and Ray Data pipelines know nothing of each other; whoever asks for more than is free would wait inside
    Ray with part of it in hand. Here work waits before it starts, and holds all it needs or nothing.

    On a cluster that grows (``capacity`` is None) it must wait inside Ray, where the autoscaler sees it: ``AT_ONCE``
    pieces of work do, since each training has processes of its own on the head. Of those that hold something beside
    their workers only one does: two could share what there is so that neither gets a worker.
    """

    def __init__(self, capacity: Callable[[], Mapping[str, float] | None]) -> None:
        self._capacity = capacity
        self._held: Counter[str] = Counter()
        self._holders = 0
        self._accompanied = 0  # of these, who hold something beside their workers
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def hold(
        self,
        worker: Worker,
        least: int,
        most: int,
        beside: Mapping[str, float] = MappingProxyType({}),
        look: Callable[[], None] = lambda: None,
    ) -> Iterator["Grant"]:
        """Wait for ``least`` workers, then hold as many as are free up to ``most``; the block is told what it got.

        What goes ``beside`` them is held with them. Who waits calls ``look`` every now and then, which may raise.
        """
        ticket, asked = object(), time.monotonic()
        with self._changed:
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket or (count := self._fit(worker, most, beside)) < least:
                    self._changed.wait(_CAPACITY_SECONDS)
                    look()
                taken = Counter(needs(worker, count)) + Counter(beside)
                self._held += taken
                self._holders += 1
                self._accompanied += bool(beside)
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
        try:
            waited = time.monotonic() - asked
            grows = self._capacity() is None  # then nobody knows beforehand how many workers there will be
            held = Held(waited=waited) if grows else Held(cpus=taken["CPU"], gpus=taken["GPU"], waited=waited)
            yield Grant(count, held)
        finally:
            with self._changed:
                self._held -= taken
                self._holders -= 1
                self._accompanied -= bool(beside)
                self._changed.notify_all()

    def _fit(self, worker: Worker, most: int, beside: Mapping[str, float]) -> int:
        """How many workers are free, at most ``most``, once what goes ``beside`` them is taken."""
        capacity = self._capacity()
        if capacity is None:
            return most if self._holders < AT_ONCE and not (beside and self._accompanied) else 0
        free = {name: capacity.get(name, 0) - self._held[name] for name in {**needs(worker), **beside}}
        if any(amount > free[name] + nodes.ROUNDING for name, amount in beside.items()):
            return 0
        free = {name: amount - beside.get(name, 0) for name, amount in free.items()}
        wanted = needs(worker)
        return max(0, int(min(most, nodes.room(free, wanted) if wanted else capacity.get("CPU", 1))))


def needs(worker: Worker, count: int = 1) -> dict[str, float]:
    """What so many such workers take of their nodes, by Ray's names; nothing that they take none of."""
    amounts = {"CPU": worker.cpus, "GPU": worker.gpus, "memory": (worker.memory_gb or 0) * nodes.GIB}
    return {name: amount * count for name, amount in amounts.items() if amount}


def options(worker: Worker) -> dict[str, Any]:
    """What Ray is asked for so that such a worker gets its place."""
    asked: dict[str, Any] = {"num_cpus": worker.cpus, "num_gpus": worker.gpus}
    if worker.memory_gb:
        asked["memory"] = worker.memory_gb * nodes.GIB
    if worker.labels:
        asked["label_selector"] = worker.labels
    return asked


def room(worker: Worker, count: int) -> int:
    """How many groups of ``count`` such workers run at once, of those nodes that are there or may come."""
    if nodes.grow():
        return AT_ONCE
    wanted = needs(worker) or {"CPU": 1.0}
    return int(sum(node.room(wanted, worker.labels) for node in nodes.alive()) // count)


def _capacity() -> Mapping[str, float] | None:
    return None if nodes.grow() else ray.cluster_resources()


budget = Budget(_capacity)
