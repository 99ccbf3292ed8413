"""The training loop on Ray Train: data-parallel over any number of workers, and the same run after any restart.

Every step reseeds all random state from (seed, step, rank) and draws its batch from (seed, step), so a checkpoint
holds no random state, and the only things that carry over are the weights and the optimiser.
"""

import math
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.train
import torch
import torch.distributed
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.train import (
    CheckpointConfig,
    FailureConfig,
    Result,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    WorkerGroupError,
)
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchConfig, TorchTrainer

from ray_asd import store
from ray_asd.build import Attempt, Outcome
from ray_asd.config import Optimisation, Worker
from ray_asd.data.sampling import Sampler
from ray_asd.engine import connection, placement, training_state
from ray_asd.engine.board import put_up, watch
from ray_asd.engine.objective import Measured, Objective, Prepared
from ray_asd.engine.one_line import first_line
from ray_asd.engine.progress import Progress
from ray_asd.engine.stepping import Stepper, learning_rate_at
from ray_asd.engine.waiting import Waiting
from ray_asd.errors import Retryable, StageError
from ray_asd.store.lease import Fence

MAX_FAILURES = 3  # of workers, before the stage fails
CURVE = "curve/curve.parquet"
_POINTS = 200  # of the loss curve
_SHOWN_SECONDS = 1.0  # between two looks at the board, which the whole world waits for


@dataclass
class State:
    """What a checkpoint holds: finished steps, weights, optimiser, and the loss curve so far."""

    step: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    curve: list[dict[str, float]] = field(default_factory=list)


def fit(what: str, objective: Objective, worker: Worker, attempt: Attempt, progress: Progress) -> Outcome:
    """Train ``objective`` to its last step, going on from the newest checkpoint beside ``attempt``.

    Rank 0 saves what was trained below ``attempt``, and the loss curve with it.

    Raises:
        UserError: the cluster can never hold the workers.
        LeaseLost: another process took this run over.
        StageError: workers failed more than ``MAX_FAILURES`` times, or the loss is not finite.
        Retryable: SIGTERM stopped the run at a checkpoint.
    """
    fence = attempt.fence
    assert fence is not None, "training is an exclusive stage"
    settings = objective.settings
    placement.check_fits(what, worker, settings.workers)
    waiting = Waiting(what, worker, settings.workers, progress)
    with placement.budget.hold(worker, settings.workers, settings.workers, look=waiting.look) as grant:
        outcome = _run(what, objective, worker, attempt, fence, progress)
    if outcome is None:
        done = training_state.steps(fence)
        raise Retryable(f"{what}: stopped at step {done} of {settings.steps}; the same command goes on from there")
    return replace(outcome, held=grant.held)


def _run(
    what: str, objective: Objective, worker: Worker, attempt: Attempt, fence: Fence, progress: Progress
) -> Outcome | None:
    """Train until the workers end by themselves; None where that was before the last step."""
    board = put_up()
    try:
        with connection.stopping(lambda: board.stop.remote()):
            for failures in range(MAX_FAILURES + 1):
                waiting = Waiting(what, worker, objective.settings.workers, progress)
                run = training_state.run_name(fence, failures)
                fitting = _start(_trainer(objective, worker, attempt, fence, board, run))
                watch(board, fitting, what, objective.settings.steps, progress, waiting.look)
                if not isinstance(fitting.exception(), WorkerGroupError) or failures == MAX_FAILURES:
                    break
                fence.check()
                board.wipe.remote()
        fitting.result()
    except TrainingFailedError as error:
        fence.check()
        raise StageError(f"{what}: {_worker_error(error)}") from error
    except RayError as error:
        raise StageError(f"{what}: {first_line(error)}") from error
    reason = ray.get(board.given_up.remote())
    if reason:
        raise StageError(f"{what}: {reason}")
    outcome: Outcome | None = ray.get(board.ended.remote())
    return outcome


def _start(trainer: TorchTrainer) -> "Future[Result]":
    """Off the main thread, where Ray Train leaves Ctrl-C alone: its handler ends with code 0."""
    pool = ThreadPoolExecutor(1)
    fitting = pool.submit(trainer.fit)
    pool.shutdown(wait=False)
    return fitting


def _trainer(
    objective: Objective, worker: Worker, attempt: Attempt, fence: Fence, board: ActorHandle, run: str
) -> TorchTrainer:
    filesystem, path = store.arrow(training_state.root(fence))
    return TorchTrainer(
        lambda: _train(objective, attempt, fence, board, run),  # a config would be unpickled by the controller too
        torch_config=TorchConfig(backend="nccl" if worker.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=objective.settings.workers,
            use_gpu=worker.gpus > 0,
            resources_per_worker=placement.needs(worker),
            label_selector=worker.labels or None,
        ),
        run_config=RunConfig(
            name=run,
            storage_path=path,
            storage_filesystem=filesystem,
            # Tried again by the driver. A controller that does it, outliving a killed driver by a second, takes its
            # workers' end for a failure of theirs and leaves the cluster a placement group that nobody removes.
            failure_config=FailureConfig(max_failures=0),
            checkpoint_config=CheckpointConfig(num_to_keep=None),  # ours are dropped by training_state
        ),
    )


def _worker_error(error: TrainingFailedError) -> str:
    failures = getattr(error, "worker_failures", {})
    return first_line(next(iter(failures.values()), error))


def _train(objective: Objective, attempt: Attempt, fence: Fence, board: ActorHandle, run: str) -> None:
    """The loop of one worker."""
    settings, seed = objective.settings, objective.seed
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    fence.check()
    torch.set_num_threads(settings.threads)
    prepared = objective.prepare()
    model = ray.train.torch.prepare_model(prepared.module)
    sampler = Sampler(prepared.num_items, settings.batch_size, seed)
    worker = Stepper(prepared, model, settings)
    if world_size > 1:
        # DDP reorders its buckets after the first backward. A pass thrown away puts that before the first step, so
        # that a resumed run adds up gradients in the same order as one that was never interrupted.
        worker.backward(sampler.draws(0, rank, world_size), step=0)
    newest = training_state.latest(fence) if rank == 0 else None
    state = _restore(worker, _load(fence, broadcast_from_rank_zero(newest)))
    every, shown = max(1, settings.steps // _POINTS), _Shown(board, rank)
    for step in range(state.step, settings.steps):
        _reseed(seed, step, rank)
        result = worker.step(step, sampler.draws(step, rank, world_size))
        last = step + 1 == settings.steps
        due = last or (step + 1) % settings.checkpoint_every == 0
        stop = False
        measured = step % every == 0 or last
        if measured:
            mean = _mean_over_ranks(result)
            if not math.isfinite(mean["loss"]):  # on all ranks; an exception would only make Ray try it again
                ray.get(board.give_up.remote(_diverged(mean["loss"], step, settings)))
                return
            state.curve.append({"step": step + 1, **mean, "learning_rate": learning_rate_at(step, settings)})
        if measured or due:
            stop = shown.show(state.curve[-1], at_once=due)
        if stop or due:
            if last and rank == 0:
                prepared.finish()
            state.step = step + 1
            _checkpoint(_saved(worker, state), fence, run, rank)
        if stop and not last:
            return
    if rank == 0:
        ray.get(board.end.remote(_outcome(prepared, state, attempt)))


def _outcome(prepared: Prepared, state: State, attempt: Attempt) -> Outcome:
    saved = prepared.save(attempt)
    files = [*saved.files, attempt.put_table(CURVE, pa.Table.from_pylist(state.curve))]
    return replace(saved, files=files, summary={**saved.summary, "loss": state.curve[-1]["loss"]})


def _restore(stepper: Stepper, state: State | None) -> State:
    if state is None:
        return State(0, {}, {})
    stepper.prepared.module.load_state_dict(state.model)
    stepper.optimizer.load_state_dict(state.optimizer)
    return state


def _saved(stepper: Stepper, state: State) -> State:
    model, optimizer = stepper.prepared.module.state_dict(), stepper.optimizer.state_dict()
    return State(state.step, model, optimizer, state.curve)


def _reseed(seed: int, step: int, rank: int) -> None:
    numbers = np.random.SeedSequence([seed, step, rank]).generate_state(2)
    torch.manual_seed(int(numbers[0]))  # dropout
    np.random.seed(int(numbers[1]))  # transformers draws SpecAugment's masks from here


def _mean_over_ranks(measured: Measured) -> dict[str, float]:
    stacked = torch.stack([value.float() for value in measured.values()])
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(stacked)
        stacked /= torch.distributed.get_world_size()
    return dict(zip(measured, stacked.tolist(), strict=True))


def _diverged(loss: float, step: int, settings: Optimisation) -> str:
    return (
        f"the loss is {loss} at step {step}; a smaller learning_rate than {settings.learning_rate:g}, more "
        "warmup_steps or a gradient_clip may help"
    )


class _Shown:
    """What the board is told: before each state, and in between not more often than somebody could read it."""

    def __init__(self, board: ActorHandle, rank: int) -> None:
        self.board, self.rank, self.next = board, rank, 0.0

    def show(self, point: dict[str, float], at_once: bool) -> bool:
        """The same answer on every rank: whether to stop."""
        stop = torch.zeros(1, device=ray.train.torch.get_device())
        if self.rank == 0 and (at_once or time.monotonic() >= self.next):
            stop += float(ray.get(self.board.write.remote(point)))
            self.next = time.monotonic() + _SHOWN_SECONDS
        if torch.distributed.is_initialized():
            torch.distributed.broadcast(stop, src=0)
        return bool(stop.item())


def _checkpoint(state: State, fence: Fence, run: str, rank: int) -> None:
    """Reached by all ranks, since a report is a barrier; rank 0 stores the state."""
    if rank:
        ray.train.report({"step": state.step})
        return

    def keep(checkpoint: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
        saved = training_state.save(fence, run, state.step, Path(checkpoint.path) / training_state.STATE)
        filesystem, path = store.arrow(saved)
        return ray.train.Checkpoint(path, filesystem)

    with tempfile.TemporaryDirectory() as folder:
        torch.save(vars(state), Path(folder) / training_state.STATE)
        ray.train.report(
            {"step": state.step},
            checkpoint=ray.train.Checkpoint.from_directory(folder),
            checkpoint_dir_name=f"step-{state.step:08d}",
            checkpoint_upload_fn=keep,
        )


def _load(fence: Fence, record: training_state.Record | None) -> State | None:
    if record is None:
        return None
    return State(**torch.load(training_state.fetch(fence, record), map_location="cpu", weights_only=True))
