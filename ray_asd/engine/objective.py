"""What a worker group trains: each worker loads it, and it turns draws into batches and these into a loss."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from ray_asd.build import Attempt, Outcome
from ray_asd.config import Optimisation
from ray_asd.data.sampling import Draw

Measured = dict[str, Tensor]
"""Scalars of one batch by name; the ``loss`` is what training lowers."""


class Prepared(Protocol):
    """An objective as loaded by a worker: a module whose forward takes a batch to what is measured of it."""

    num_items: int

    @property
    def module(self) -> nn.Module: ...

    def batch(self, draws: Sequence[Draw], step: int) -> tuple[Tensor | float, ...]:
        """Arguments of the module's forward for these draws of ``num_items``, on the CPU."""
        ...

    def finish(self) -> None:
        """Called after the last step, on rank 0, before the module's state is stored for good."""
        ...

    def save(self, attempt: Attempt) -> Outcome:
        """What the training was for, written below ``attempt``; called on rank 0 once all steps are done."""
        ...


class Objective(Protocol):
    """What travels to the workers."""

    @property
    def seed(self) -> int: ...

    @property
    def settings(self) -> Optimisation: ...

    def prepare(self) -> Prepared: ...
