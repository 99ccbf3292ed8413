"""Building many steps at once: every step as soon as its inputs are there, each once, whoever needs it.

A step runs in a thread of the driver, which waits for its turn in the budget of the cluster and then for Ray; a step
that needs none works in the driver itself, one at a time, unless there is a cluster. The markers are the only state:
what was finished before a kill is found finished, and training goes on from its checkpoints.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from ray_asd import build, store
from ray_asd.build import Output, events, records, steps
from ray_asd.build.steps import Planned, Step
from ray_asd.engine import patience, where
from ray_asd.errors import STOPPED, Futile, Retryable, StageError, Unplaced, UserError

TRIES = 2  # of a step that fails without getting further; not of one that would fail or be refused in the same way
PATIENCE = 5  # tries of a step that the environment broke off
_SHOWN_SECONDS = 0.5  # between looks of whoever watches

State = Literal["waiting", "running", "done", "failed"]


@dataclass
class Node:
    """A step in the making; ``units`` and ``measured`` are what its progress last said."""

    planned: Planned
    state: State
    output: Output | None = None
    error: str | None = None
    retryable: bool = False
    tries: int = 0  # since it last got further
    not_before: float = 0.0
    reached: dict[str, int] = field(default_factory=dict)  # units of each task at which it failed, the most of them
    task: str = ""
    measured: str = ""
    done: int = 0
    total: int = 0
    first: tuple[float, int] = (0.0, 0)  # when this task was first heard of, and how far it was then

    @property
    def seconds_left(self) -> float | None:
        """Of its present task, at the pace so far; None before there is one."""
        begun, at = self.first
        if self.state != "running" or self.done <= at:
            return None
        return (time.monotonic() - begun) / (self.done - at) * (self.total - self.done)


class Engine:
    """Plans steps below one root, then builds them all."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.nodes: dict[str, Node] = {}
        self._find = cache(build.find)
        self._of_thread: dict[int, Node] = {}
        self._ended: queue.Queue[tuple[Node, Output | BaseException]] = queue.Queue()
        self._driver = threading.Lock()  # one step at a time works in this process
        self._stopped = False

    def progress(self, what: str, done: int, total: int) -> None:
        """The ``Progress`` to build the steps with: it knows by the thread whose it is."""
        node = self._of_thread.get(threading.get_ident())
        if node is None:
            return
        task, *measured = what.split("  ")
        if task != node.task or done < node.done:
            node.task, node.first = task, (time.monotonic(), done)
        node.measured, node.done, node.total = "  ".join(measured), done, total

    def add(self, step: Step) -> list[str]:
        """Plan to build ``step``; the URIs of all that it takes, inputs first, its own last.

        Raises:
            UserError: the ``check`` of one of them.
        """
        planned = steps.plan(step, self.root, self._find)
        steps.check(entry for entry in planned if entry.uri not in self.nodes)
        for entry in planned:
            state: State = "done" if entry.done else "waiting"
            self.nodes.setdefault(entry.uri, Node(entry, state, entry.done))
        return [entry.uri for entry in planned]

    @property
    def to_do(self) -> list[Step]:
        """The steps that are not there yet."""
        return [node.planned.step for node in self.nodes.values() if node.state == "waiting"]

    def at_once(self) -> dict[str, int]:
        """Per stage, how many steps of its largest kind the cluster runs at the same time.

        Raises:
            UserError: the cluster could never hold one of them.
        """
        from ray_asd.engine import placement

        found: dict[str, int] = {}
        if any(map(where.on_ray, self.to_do)):
            with self._on_ray() as waiting:
                for step in waiting:
                    rooms = placement.room(step.worker, placement.least(step))
                    found[step.stage] = min(found.get(step.stage, len(self.nodes)), rooms)
        return found

    def run(self, show: Callable[[], None]) -> None:
        """Build all that was added; ``show`` is called every now and then. What failed says so in its node.

        Raises:
            UserError: the cluster could never hold a step, or the store below the root has no conditional writes.
            Retryable: SIGTERM stopped the run, once every training had stored its state.
        """
        with ExitStack() as stack:
            if any(map(where.on_ray, self.to_do)):
                from ray_asd.engine import connection

                stack.enter_context(self._on_ray(store.check_conditional_writes))
                stack.enter_context(connection.stopping(self._stop))
            elif self.to_do:
                store.check_conditional_writes(self.root)
            while self._start_ready() and (not self._stopped or self._is_training()):
                show()
                self._collect()
            show()
            if self._stopped:
                raise Retryable(STOPPED)

    @contextmanager
    def _on_ray(self, look: Callable[[str], None] = lambda root: None) -> Iterator[list[Step]]:
        """Ray for the steps that are to be done on it, all of which it can hold, after a ``look`` at the root."""
        from ray_asd.engine import connection

        waiting = [step for step in self.to_do if where.on_ray(step)]
        connection.check_fits(waiting)
        look(self.root)
        with connection.connected():
            connection.check_fits(waiting)
            yield waiting

    def _stop(self) -> None:
        self._stopped = True

    def _running(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.state == "running"]

    def _is_training(self) -> bool:
        """Whether something runs that is worth waiting for, rather than waits for its lease or its workers."""
        return any(node.planned.step.exclusive and node.task for node in self._running())

    def _start_ready(self) -> bool:
        """Start what can start; whether anything is running then, or waits for its next try."""
        now = time.monotonic()
        for node in self.nodes.values():
            if node.state == "waiting" and now >= node.not_before and not self._stopped:
                parents = [self.nodes[uri] for uri in node.planned.waits_for]
                failed = next((parent for parent in parents if parent.state == "failed"), None)
                if failed:
                    node.state, node.error, node.retryable = "failed", failed.error, failed.retryable
                elif all(parent.state == "done" for parent in parents):
                    self._start(node)
        return bool(self._running()) or any(
            node.state == "waiting" and node.not_before > now for node in self.nodes.values()
        )

    def _start(self, node: Node) -> None:
        node.state, node.tries, node.task = "running", node.tries + 1, ""
        threading.Thread(target=self._build, args=(node,), name=node.planned.uri, daemon=True).start()

    def _build(self, node: Node) -> None:
        self._of_thread[threading.get_ident()] = node
        try:
            step = where.placed(node.planned.step, self.progress)
            if where.on_ray(step):
                output = steps.ensure(step, self.root)
            else:
                with self._driver:
                    output = steps.ensure(step, self.root)
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which knows what to do with it
            self._ended.put((node, error))
        else:
            self._ended.put((node, output))
        finally:
            del self._of_thread[threading.get_ident()]

    def _collect(self) -> None:
        try:
            node, result = self._ended.get(timeout=_SHOWN_SECONDS)
        except queue.Empty:
            return
        if isinstance(result, Output):
            node.state, node.output = "done", result
        elif not isinstance(result, Exception):
            raise result
        elif self._worth_another(node, result):
            node.state = "waiting"
        else:
            self._fail(node, result)

    def _worth_another(self, node: Node, error: Exception) -> bool:
        """Whether to try again, and when: what was done before is not done again, so getting further is a new start."""
        before = node.reached.get(node.task, -1)
        if node.done > before:
            node.tries, node.reached[node.task] = 1, node.done
        node.not_before = time.monotonic() + patience.before_another_try(node.tries)
        if node.tries >= _most_tries(error) or self._stopped:
            return False
        step = node.planned.step
        events.say("stage tried again", stage=step.stage, output=node.planned.uri, tries=node.tries, error=str(error))
        return True

    def _fail(self, node: Node, error: Exception) -> None:
        node.state, node.retryable = "failed", isinstance(error, Retryable)
        node.error = (
            str(error) if isinstance(error, (StageError, UserError, OSError)) else f"{type(error).__name__}: {error}"
        )
        step = node.planned.step
        events.say("stage failed", stage=step.stage, output=node.planned.uri, tries=node.tries, error=node.error)
        record = records.Record(self.root, f"failed-{step.stage}-{step.name}", "failed")
        try:
            record.write({"step": node.planned.uri, "tries": node.tries, "error": node.error}, error)
        except (UserError, StageError, OSError) as unkept:
            node.error += f" ({record.uri} could not be written: {unkept})"


def _most_tries(error: Exception) -> int:
    if isinstance(error, (Unplaced, Futile)):
        return 1
    return PATIENCE if isinstance(error, Retryable) else TRIES if isinstance(error, (StageError, OSError)) else 1
