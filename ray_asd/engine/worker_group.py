"""Worker groups of Ray Train: placed, watched, and started again where they failed."""

import itertools
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

from ray.exceptions import RayError
from ray.train import FailureConfig, Result, RunConfig, ScalingConfig, TrainingFailedError

from ray_asd import store
from ray_asd.build import Attempt, Outcome, events
from ray_asd.config import Worker
from ray_asd.engine import connection, patience, placement, training_state
from ray_asd.engine.board import Board, Left, watch
from ray_asd.engine.objective import Objective
from ray_asd.engine.one_line import told
from ray_asd.engine.progress import Progress
from ray_asd.engine.trainer import Devices, Trainer
from ray_asd.engine.waiting import Waiting
from ray_asd.errors import Futile, Retryable, StageError, UserError
from ray_asd.store.lease import Fence

MAX_FAILURES = 3  # of workers without a further checkpoint, before the stage fails


def fit(what: str, objective: Objective, worker: Worker, attempt: Attempt, progress: Progress) -> Outcome:
    """Train ``objective`` to its last step, going on from the newest checkpoint beside ``attempt``.

    Rank 0 saves what was trained below ``attempt``, and the loss curve with it.

    Raises:
        UserError: the cluster can never hold the workers, or as they raised it.
        LeaseLost: another process took this run over.
        StageError: workers failed more than ``MAX_FAILURES`` times, or the loss is not finite.
        Retryable: they failed so often because they or their storage went away; SIGTERM stopped the run.
        Unplaced: the workers waited too long for their place.
    """
    fence = attempt.fence
    assert fence is not None, "training is an exclusive stage"
    workers = objective.settings.workers
    placement.check_fits(what, worker, workers)
    waiting = Waiting(what, worker, workers, progress)
    try:
        with waiting.place(workers, workers) as grant, closing(Board()) as board:
            outcome = _Groups(what, objective, worker, attempt, fence, board).run(waiting)
    except RayError as error:
        raise told(what, error) from error
    if outcome is None:
        done = training_state.steps(fence)
        steps = objective.settings.steps
        raise Retryable(f"{what}: stopped at step {done} of {steps}; the same command goes on from there")
    return replace(outcome, held=grant.held)


class _Groups:
    """The worker groups of one training, one after the other."""

    def __init__(
        self, what: str, objective: Objective, worker: Worker, attempt: Attempt, fence: Fence, board: Board
    ) -> None:
        self._what, self._objective, self._worker = what, objective, worker
        self._attempt, self._fence, self._board = attempt, fence, board

    def run(self, waiting: Waiting) -> Outcome | None:
        """Train until the workers end by themselves; None where that was before the last step."""
        failures, reached = 0, training_state.steps(self._fence)
        with connection.stopping(self._board.stop):
            for number in itertools.count():
                error = self._try(training_state.run_name(self._fence, number), waiting)
                if error is None:
                    break
                self._fence.check()
                before, reached = reached, training_state.steps(self._fence)
                events.say("workers failed", what=self._what, attempt=number, step=reached, error=str(error))
                failures = 1 if reached > before else failures + 1
                if isinstance(error, UserError) or failures > MAX_FAILURES:
                    raise error
                if not connection.pause(patience.before_another_try(failures)):
                    return None
        reason = self._board.given_up()
        if reason:
            raise Futile(f"{self._what}: {reason}")
        return self._board.ended()

    def _try(self, run: str, waiting: Waiting) -> UserError | StageError | None:
        """One worker group, to its end; the error to raise where it failed."""
        waiting.again()
        self._board.wipe()
        fitting = _start(self._trainer(run))
        steps = self._objective.settings.steps
        watch(self._board, fitting, self._what, steps, waiting.progress, look=waiting.look, begin=waiting.begin)
        try:
            fitting.result()
        except TrainingFailedError as error:
            failures = getattr(error, "worker_failures", {})
            failed = told(self._what, *([failures[rank] for rank in sorted(failures)] or [error]))
            failed.__cause__ = error  # which holds the workers' tracebacks
            return failed
        return None

    def _trainer(self, run: str) -> Trainer:
        filesystem, path = store.arrow(training_state.root(self._fence))
        objective, attempt, fence, board = self._objective, self._attempt, self._fence, self._board
        return Trainer(
            lambda: _train(objective, attempt, fence, board, run),  # a config would be unpickled by the controller too
            backend_config=Devices(),
            scaling_config=ScalingConfig(
                num_workers=objective.settings.workers,
                use_gpu=self._worker.gpus > 0,
                resources_per_worker=placement.needs(self._worker),
                label_selector=self._worker.labels or None,
            ),
            run_config=RunConfig(
                name=run,
                storage_path=path,
                storage_filesystem=filesystem,
                # Tried again by the driver. A controller that does it, outliving a killed driver by a second, takes
                # its workers' end for a failure of theirs and leaves the cluster a placement group that nobody removes.
                failure_config=FailureConfig(max_failures=0),
                callbacks=[Left(board)],  # type: ignore[list-item]
            ),
        )


def _start(trainer: Trainer) -> "Future[Result]":
    """Off the main thread, where Ray Train leaves Ctrl-C alone: its handler ends with code 0."""
    pool = ThreadPoolExecutor(1)
    fitting = pool.submit(trainer.fit)
    pool.shutdown(wait=False)
    return fitting


def _train(objective: Objective, attempt: Attempt, fence: Fence, board: Board, run: str) -> None:
    from ray_asd.engine import training_loop  # which imports torch

    training_loop.train(objective, attempt, fence, board, run)
