"""A pool of Ray actors that hold something large and answer questions about it, while a stage's workers run.

Actors belong to the job, so nothing of yesterday answers tonight. One that dies is started again by Ray and loads what
it holds anew; questions are repeated, so asking twice must change nothing.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from random import SystemRandom
from types import TracebackType
from typing import Any, Self

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayTaskError

from ray_asd.config import Worker
from ray_asd.engine import placement, telemetry
from ray_asd.engine.shards import Service

RESTARTS = 3  # of an actor, and of a question that it left without an answer
_AT_ONCE = 32  # calls that an actor takes in; one of them is worked on, the others are its queue

Answer = Callable[..., Any]
"""What an actor holds: called with a batch and what belongs to it, one call at a time."""


@ray.remote(max_restarts=RESTARTS, max_task_retries=RESTARTS, concurrency_groups={"ask": _AT_ONCE, "health": 1})
class Holder:
    """Holds what ``make`` makes of the number of its threads; ``about`` is what it says of itself."""

    def __init__(self, make: Callable[[int], Answer], worker: Worker, about: dict[str, Any]) -> None:
        self._answer = make(max(1, round(worker.cpus)))
        self._about = about | {"pid": os.getpid()}
        self._working, self._counting = threading.Lock(), threading.Lock()
        self._waiting = self._answered = 0
        self._tags = {"holds": about["name"], "shard": str(about["shard"])}

    @ray.method(concurrency_group="ask")  # type: ignore[untyped-decorator]
    def ask(self, batch: Any, *arguments: Any) -> Any:
        begun = time.monotonic()
        self._count(waiting=1)
        with self._working:
            self._count(waiting=-1)
            answer = self._answer(batch, *arguments)
        self._count(answered=len(batch))
        telemetry.tell("asd_queries", len(batch), **self._tags)
        telemetry.tell("asd_query_seconds", time.monotonic() - begun, **self._tags)
        return answer

    @ray.method(concurrency_group="health")  # type: ignore[untyped-decorator]
    def health(self) -> dict[str, Any]:
        """What it holds, how many calls wait and how many queries it has answered."""
        return self._about | {"waiting": self._waiting, "answered": self._answered}

    def _count(self, waiting: int = 0, answered: int = 0) -> None:
        with self._counting:
            self._waiting += waiting
            self._answered += answered
            telemetry.tell("asd_queue", self._waiting, **self._tags)


class Holders(Service):
    """One actor for each of ``parts``, ``replicas`` times, up while the block runs; travels to who asks them.

    Args:
        name: of what they hold, as the figures of ``telemetry`` say it.
        parts: what each is made of, by the shard's name.
    """

    def __init__(self, name: str, parts: Mapping[str, Callable[[int], Answer]], worker: Worker, replicas: int) -> None:
        self.worker, self.count = worker, len(parts) * replicas
        self._name, self._parts, self._replicas = name, parts, replicas
        self._actors: list[list[ActorHandle]] = []
        self._starting: list[ray.ObjectRef] = []
        self._mine: int | None = None  # of the replicas, for the process that asks

    def __enter__(self) -> Self:
        options = placement.options(self.worker)
        self._actors = [
            [
                Holder.options(**options).remote(make, self.worker, {"name": self._name, "shard": shard})  # type: ignore[attr-defined]
                for shard, make in self._parts.items()
            ]
            for _ in range(self._replicas)
        ]
        self._starting = [actor.health.remote() for replica in self._actors for actor in replica]
        return self

    def is_up(self, seconds: float) -> bool:
        """Whether all actors have their place and what they hold, waiting so long for it.

        Raises:
            RayError: one could not load it.
        """
        up, missing = ray.wait(self._starting, num_returns=len(self._starting), timeout=seconds)
        ray.get(up)
        return not missing

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in (actor for replica in self._actors for actor in replica):
            ray.kill(actor)
        self._actors, self._starting = [], []

    def health(self) -> list[dict[str, Any]]:
        """Of each actor."""
        answers: list[dict[str, Any]] = ray.get(
            [actor.health.remote() for replica in self._actors for actor in replica]
        )
        return answers

    def ask(self, batch: Any, *arguments: Any) -> Sequence[Any]:
        """The answer of each part. A process always asks the same replica.

        Raises:
            RayError: an actor died more often than it may; else what the answer itself raised.
        """
        if self._mine is None:
            self._mine = SystemRandom().randrange(self._replicas)
        replica = self._actors[self._mine]
        shared = ray.put(batch)
        try:
            answers: Sequence[Any] = ray.get([actor.ask.remote(shared, *arguments) for actor in replica])
        except RayTaskError as error:
            raise error.cause from None
        return answers
