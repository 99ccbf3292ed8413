"""The training loop, as each worker of a group runs it: data-parallel, and the same run after any restart.

Every step reseeds all random state from (seed, step, rank) and draws its batch from (seed, step), so a checkpoint
holds no random state, and the only things that carry over are the weights and the optimiser.
"""

import math
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.train
import ray.train.torch
import ray.util
import torch
import torch.distributed
from ray.train.collective import broadcast_from_rank_zero
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from ray_asd.build import Attempt, Outcome
from ray_asd.config import Optimisation
from ray_asd.data.sampling import Sampler
from ray_asd.engine import training_state
from ray_asd.engine.board import Board
from ray_asd.engine.objective import Measured, Objective, Prepared
from ray_asd.engine.stepping import Stepper, learning_rate_at
from ray_asd.store.lease import Fence

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


def train(objective: Objective, attempt: Attempt, fence: Fence, board: Board, run: str) -> None:
    """Train ``objective`` from the newest state to its last step; rank 0 keeps the states and saves what was trained.

    Raises:
        LeaseLost: another process trains this run now.
    """
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    if rank == 0:
        board.begin()
    fence.check()
    torch.set_num_threads(objective.settings.threads)
    with _met(rank, world_size):
        _steps(objective, attempt, fence, board, run)


@contextmanager
def _met(rank: int, world_size: int) -> Iterator[None]:
    """The process group of all workers, where there are several."""
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.allow_tf32 = False  # who asks for float32 gets it, in convolutions too
    if world_size == 1:
        yield
        return
    address = port = store = None
    if rank == 0:
        address = ray.util.get_node_ip_address()
        store = TCPStore(address, 0, world_size, is_master=True, wait_for_workers=False)  # 0: a port that is free
        port = store.port
    address, port = broadcast_from_rank_zero((address, port))
    store = store or TCPStore(address, port, world_size)
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def _steps(objective: Objective, attempt: Attempt, fence: Fence, board: Board, run: str) -> None:
    settings, seed, context = objective.settings, objective.seed, ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
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
    every, shown, states = max(1, settings.steps // _POINTS), _Shown(board, rank), _States(fence, run)
    for step in range(state.step, settings.steps):
        _reseed(seed, step, rank)
        last = step + 1 == settings.steps
        draws, following = (sampler.draws(number, rank, world_size) for number in (step, step + 1))
        result = worker.step(step, draws, () if last else following)
        due = last or (step + 1) % settings.checkpoint_every == 0
        stop = False
        measured = step % every == 0 or last
        if measured:
            mean = _mean_over_ranks(result)
            if not math.isfinite(mean["loss"]):  # on all ranks; an exception would only make Ray try it again
                board.give_up(_diverged(mean["loss"], step, settings))
                break
            state.curve.append({"step": step + 1, **mean, "learning_rate": learning_rate_at(step, settings)})
        if measured or due:
            stop = shown.show(state.curve[-1], at_once=due)
        if (stop or due) and rank == 0:
            if last:
                prepared.finish()
            state.step = step + 1
            states.store(_saved(worker, state))
        if stop and not last:
            break
    states.wait()
    if rank == 0 and state.step == settings.steps:
        board.end(_outcome(prepared, state, attempt))


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

    def __init__(self, board: Board, rank: int) -> None:
        self.board, self.rank, self.next = board, rank, 0.0

    def show(self, point: dict[str, float], at_once: bool) -> bool:
        """The same answer on every rank: whether to stop."""
        stop = torch.zeros(1, device=ray.train.torch.get_device())
        if self.rank == 0 and (at_once or time.monotonic() >= self.next):
            stop += float(self.board.write(point))
            self.next = time.monotonic() + _SHOWN_SECONDS
        if torch.distributed.is_initialized():
            torch.distributed.broadcast(stop, src=0)
        return bool(stop.item())


class _States:
    """Those of a run, stored by rank 0 one after the other while training goes on."""

    def __init__(self, fence: Fence, run: str) -> None:
        self._fence, self._run = fence, run
        self._thread = ThreadPoolExecutor(1)
        self._storing: Future[None] | None = None

    def store(self, state: State) -> None:
        """Raises what went wrong with the one before."""
        self.wait()
        folder = tempfile.TemporaryDirectory()
        torch.save(vars(state), Path(folder.name) / training_state.STATE)  # now: the next step changes its tensors
        self._storing = self._thread.submit(self._upload, state.step, folder)

    def wait(self) -> None:
        """Until the last one is stored."""
        if self._storing:
            self._storing.result()

    def _upload(self, step: int, folder: "tempfile.TemporaryDirectory[str]") -> None:
        with folder as name:
            training_state.save(self._fence, self._run, step, Path(name) / training_state.STATE)


def _load(fence: Fence, record: training_state.Record | None) -> State | None:
    if record is None:
        return None
    return State(**torch.load(training_state.fetch(fence, record), map_location="cpu", weights_only=True))
