"""What happened in a run, line by line: a log of JSON lines below the root, which outlives the cluster.

    ROOT/events/score-20261125T031500.123456.jsonl

    {"time": ..., "run": "score-2026...", "event": "stage begun", "stage": "ingest", "output": ..., "attempt": ...}

Object stores know no appending: the file is written anew with each line that comes ``_SECONDS`` after the last writing,
and at the end; a run says some hundred lines at most.
"""

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from ray_asd import store
from ray_asd.errors import StageError, UserError, redacted

EVENTS = "events"
_SECONDS = 5.0
_current: "Log | None" = None
_logger = logging.getLogger(__name__)


class Log:
    """The log of a run below ``root``, of the name of its record; with no root nothing is kept."""

    def __init__(self, root: str, run: str, **about: object) -> None:
        self._uri, self._run = root and store.join(root, EVENTS, f"{run}.jsonl"), run
        self._lock = threading.Lock()
        self._written = float("-inf")
        self._lines = [self._line("run begun", about)]  # not yet written: it may be refused

    def say(self, event: str, **about: object) -> None:
        """Add a line; ``about`` holds plain JSON values."""
        with self._lock:
            self._lines.append(self._line(event, about))
            if time.monotonic() - self._written >= _SECONDS:
                self._write()

    def end(self, **about: object) -> None:
        """The last line."""
        with self._lock:
            self._lines.append(self._line("run ended", about))
            self._write()

    def _line(self, event: str, about: dict[str, object]) -> str:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return redacted(json.dumps({"time": now, "run": self._run, "event": event} | about))

    def _write(self) -> None:
        self._written = time.monotonic()
        if not self._uri:
            return
        try:
            store.write(self._uri, "".join(f"{line}\n" for line in self._lines).encode())
        except (UserError, StageError, OSError) as error:  # the run itself says what its storage lacks
            _logger.debug("%s could not be written: %s", self._uri, error)


@contextmanager
def kept(log: Log) -> Iterator[None]:
    """For the block ``log`` is what every thread says things to."""
    global _current
    before, _current = _current, log
    try:
        yield
    finally:
        _current = before


def say(event: str, /, **about: object) -> None:
    """Something happened in the run that is under way; nothing where none is."""
    if _current:
        _current.say(event, **about)
