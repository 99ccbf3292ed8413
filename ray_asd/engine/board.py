"""The board: where a training run shows how far it is and is told to stop.

A few keys of Ray's own key-value store. An actor would be one more process to start for each training.
"""

import json
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any
from uuid import uuid4

import ray
from pydantic import TypeAdapter
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put
from ray.train.v2._internal.execution.callback import WorkerGroupCallback

from ray_asd.build import Outcome
from ray_asd.engine import telemetry
from ray_asd.engine.progress import Progress
from ray_asd.errors import StageError

_NAMESPACE = b"ray_asd"
_POLL_SECONDS = 1.0
_END_SECONDS = 30.0  # that a controller has to notice that it is left
_NOT_SHOWN = ("step", "learning_rate")
_OUTCOME = TypeAdapter(Outcome)


class Board:
    """Rank 0 writes and reads, the driver reads and stops; travels to the workers."""

    def __init__(self) -> None:
        self._name = uuid4().hex

    def begin(self) -> None:
        """The workers have their place."""
        self._put("point", b"{}")

    def write(self, point: dict[str, float]) -> bool:
        """Returns whether to stop."""
        self._put("point", json.dumps(point).encode())
        return self._get("stop") is not None

    def read(self) -> dict[str, float] | None:
        """Nothing before the first step, None before the workers have their place."""
        point = self._get("point")
        return None if point is None else json.loads(point)

    def stop(self) -> None:
        self._put("stop", b"")

    def give_up(self, reason: str) -> None:
        self._put("reason", reason.encode())

    def given_up(self) -> str | None:
        """Why there is no point in another try."""
        reason = self._get("reason")
        return None if reason is None else reason.decode()

    def end(self, outcome: Outcome) -> None:
        self._put("outcome", _OUTCOME.dump_json(outcome))

    def ended(self) -> Outcome | None:
        """What the training made; None before all its steps are done."""
        outcome = self._get("outcome")
        return None if outcome is None else _OUTCOME.validate_json(outcome)

    def leave(self) -> None:
        """The driver waits for the workers no more."""
        self._put("left", b"")

    def is_left(self) -> bool:
        return self._get("left") is not None

    def wipe(self) -> None:
        """For other workers of the same training."""
        _internal_kv_del(self._key("point"), namespace=_NAMESPACE)

    def close(self) -> None:
        """Nothing of it stays in Ray."""
        _internal_kv_del(self._key(""), del_by_prefix=True, namespace=_NAMESPACE)

    def _key(self, name: str) -> bytes:
        return f"{self._name}/{name}".encode()

    def _put(self, name: str, value: bytes) -> None:
        _internal_kv_put(self._key(name), value, namespace=_NAMESPACE)

    def _get(self, name: str) -> bytes | None:
        value: bytes | None = _internal_kv_get(self._key(name), namespace=_NAMESPACE)
        return value


class Left(WorkerGroupCallback):
    """Ends Ray Train's controller, which would wait for ever, before its next try to place its workers."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        if self._board.is_left():
            ray.actor.exit_actor()


def watch(
    board: Board,
    training: "Future[Any]",
    what: str,
    steps: int,
    progress: Progress,
    *,
    look: Callable[[], None],
    begin: Callable[[], None],
) -> None:
    """Show what the board says until ``training`` ends.

    ``look`` is called now and then until the workers have their place, then ``begin``. What ``look`` raises ends the
    training.
    """
    shown: dict[str, float] = {}
    running = True
    while running:
        running = bool(wait([training], _POLL_SECONDS).not_done)
        point = board.read()
        if point is None:
            if running:
                _look(board, training, look)
            continue
        begin()
        if point and point != shown:
            shown = point
            measured = (f"{name} {value:.3f}" for name, value in point.items() if name not in _NOT_SHOWN)
            telemetry.reached(what, int(point["step"]), steps)
            progress("  ".join([what, *measured]), int(point["step"]), steps)


def _look(board: Board, training: "Future[Any]", look: Callable[[], None]) -> None:
    try:
        look()
    except StageError:
        board.leave()
        wait([training], _END_SECONDS)
        raise
