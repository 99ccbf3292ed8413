"""The board: where a training run shows how far it is and is told to stop.

An actor in a module of its own, since importing the training loop takes seconds of a process that needs nothing of it.
"""

from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_asd.build import Outcome
from ray_asd.engine.progress import Progress

_POLL_SECONDS = 1.0
_NOT_SHOWN = ("step", "learning_rate")


@ray.remote(num_cpus=0)
class Board:
    """Rank 0 writes and reads; the driver reads and stops."""

    def __init__(self) -> None:
        self.point: dict[str, float] = {}
        self.stopping = False
        self.reason: str | None = None
        self.outcome: Outcome | None = None

    def write(self, point: dict[str, float]) -> bool:
        """Returns whether to stop."""
        self.point = point
        return self.stopping

    def wipe(self) -> None:
        self.point = {}

    def read(self) -> dict[str, float]:
        return self.point

    def stop(self) -> None:
        self.stopping = True

    def give_up(self, reason: str) -> None:
        self.reason = reason

    def end(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def ended(self) -> Outcome | None:
        """What the training made; None before all its steps are done."""
        return self.outcome

    def given_up(self) -> str | None:
        """Why there is no point in another try."""
        return self.reason


def put_up() -> ActorHandle:
    """A new board on the driver's own node, so that it is lost with the driver and never before."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Board.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]


def watch(
    board: ActorHandle, training: "Future[Any]", what: str, steps: int, progress: Progress, look: Callable[[], None]
) -> None:
    """Show what the board says until ``training`` ends; ``look`` now and then as long as it says nothing."""
    shown: dict[str, float] = {}
    running = True
    while running:
        running = bool(wait([training], _POLL_SECONDS).not_done)
        point = ray.get(board.read.remote())
        if point and point != shown:
            shown = point
            measured = (f"{name} {value:.3f}" for name, value in point.items() if name not in _NOT_SHOWN)
            progress("  ".join([what, *measured]), int(point["step"]), steps)
        elif not point:
            look()
