"""Work that waits for its place on the cluster says so, and not for ever."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import ray

from ray_asd.build import events
from ray_asd.config import Worker
from ray_asd.engine import connection, nodes, patience, placement, telemetry
from ray_asd.engine.placement import Grant
from ray_asd.engine.progress import Progress
from ray_asd.errors import STOPPED, Retryable, Unplaced

_SAID_SECONDS = 60.0

_at_work: set["Waiting"] = set()  # of this process


class Waiting:
    """The wait of some work for its place: first for its turn in this process, then inside Ray.

    Whoever waits looks now and then, and says once the work has begun. As long as other work of this process goes on,
    the place may be what that holds, so it is no reason to give up.
    """

    def __init__(self, what: str, worker: Worker, count: int, progress: Progress) -> None:
        self._what, self._progress = what, progress
        self._worker, self._needs = worker, placement.needs(worker)
        self._wanted = f"{count} x ({placement.amounts(self._needs)})"
        self._began = self._since = self._said = time.monotonic()
        self._most = 60.0 * patience.minutes()
        self._shown = (0, 1)

    @contextmanager
    def place(self, least: int, most: int, beside: Mapping[str, float] = MappingProxyType({})) -> Iterator[Grant]:
        """A place for ``least`` to ``most`` workers, as ``Budget.hold``."""
        try:
            with placement.budget.hold(self._worker, least, most, beside, self.look) as grant:
                yield grant
        finally:
            _at_work.discard(self)

    def progress(self, what: str, done: int, total: int) -> None:
        """The ``Progress`` of this work, which what it waits for does not set back."""
        self._shown = (done, total)
        self._progress(what, done, total)

    @property
    def is_over(self) -> bool:
        return self in _at_work

    def begin(self) -> None:
        """It waits no more."""
        if not self.is_over:
            self._tell(0.0)
        _at_work.add(self)

    def again(self) -> None:
        """It has lost its place, if it had one."""
        if self.is_over:
            _at_work.discard(self)
            self._began = self._since = time.monotonic()

    def look(self) -> None:
        """Say what it waits for, once a minute.

        Raises:
            Unplaced: it has waited for too long.
            Retryable: SIGTERM came first.
        """
        now = time.monotonic()
        if connection.stop_requested():
            raise Retryable(STOPPED)
        self._tell(now - self._began)
        if _at_work:
            self._since = now
        if now - self._since >= self._most:
            raise Unplaced(f"{self._what}: waited {self._most / 60:g} minutes for {self._wanted}; {self._free()}")
        if now - self._said >= _SAID_SECONDS:
            self._said = now
            free = self._free()
            self._progress(f"{self._what}  waits for {self._wanted}, {free}", *self._shown)
            events.say("waiting", what=self._what, wanted=self._wanted, free=free, seconds=round(now - self._began, 1))

    def _tell(self, seconds: float) -> None:
        stage, _, name = self._what.partition(" ")
        telemetry.tell("asd_waiting_seconds", seconds, stage=stage, name=name)

    def _free(self) -> str:
        free = ray.available_resources()
        parts = [nodes.amount(name, free.get(name, 0)) for name in self._needs or ("CPU",)]
        return f"free are {', '.join(parts)}"
