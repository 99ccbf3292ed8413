"""Work that waits for its place on the cluster says so, and not for ever."""

import time

import ray

from ray_asd.config import Worker
from ray_asd.engine import nodes, patience, placement
from ray_asd.engine.progress import Progress
from ray_asd.errors import Retryable

_SAID_SECONDS = 60.0


class Waiting:
    """The wait of ``count`` workers of some work; whoever waits looks now and then."""

    def __init__(self, what: str, worker: Worker, count: int, progress: Progress) -> None:
        self._what, self._progress = what, progress
        self._needs = placement.needs(worker)
        self._wanted = f"{count} x ({placement.amounts(self._needs)})"
        self._begun = self._said = time.monotonic()
        self._most = 60.0 * patience.minutes()

    def look(self) -> None:
        """Say what it waits for, once a minute.

        Raises:
            Retryable: it has waited for too long.
        """
        now = time.monotonic()
        if now - self._begun >= self._most:
            raise Retryable(f"{self._what}: waited {self._most / 60:g} minutes for {self._wanted}; {self._free()}")
        if now - self._said >= _SAID_SECONDS:
            self._said = now
            self._progress(f"{self._what}  waits for {self._wanted}, {self._free()}", 0, 1)

    def _free(self) -> str:
        free = ray.available_resources()
        parts = [nodes.amount(name, free.get(name, 0)) for name in self._needs or ("CPU",)]
        return f"free are {', '.join(parts)}"
