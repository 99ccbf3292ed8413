"""One step of training on one worker, knowing nothing of Ray, of other workers or of checkpoints."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor, nn

from ray_asd.config import Optimisation
from ray_asd.data.sampling import Draw
from ray_asd.engine.objective import Measured, Prepared

_Batch = tuple[Tensor | float, ...]


class Stepper:
    """Model, optimiser and data of one rank.

    Args:
        prepared: the task as loaded.
        model: its module, or what spreads that module over several workers.
        settings: of the optimiser.

    Attributes:
        waited: seconds that all steps so far spent on their batches.
    """

    def __init__(self, prepared: Prepared, model: nn.Module, settings: Optimisation) -> None:
        self.prepared, self.model, self.settings = prepared, model, settings
        self.device = next(model.parameters()).device
        self.optimizer = torch.optim.AdamW(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,  # torch loops over the parameters on a CPU otherwise
        )
        self.waited = 0.0
        self.reads_ahead = self.device.type == "cuda"  # a CPU would compute nothing meanwhile
        self._reader = ThreadPoolExecutor(1)
        self._ahead: tuple[int, Future[_Batch]] | None = None

    def backward(self, draws: Sequence[Draw], step: int, following: Sequence[Draw] = ()) -> Measured:
        """Fresh gradients of these items, and what was measured of them; the next step will be of ``following``."""
        begun = time.perf_counter()
        batch = self._batch(draws, step)
        self.waited += time.perf_counter() - begun
        if following and self.reads_ahead:
            self._ahead = step + 1, self._reader.submit(self._read, following, step + 1)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            measured = self.model(*(self._moved(part) if isinstance(part, Tensor) else part for part in batch))
        measured["loss"].backward()
        return {name: value.detach() for name, value in measured.items()}

    def _batch(self, draws: Sequence[Draw], step: int) -> _Batch:
        if self._ahead and self._ahead[0] == step:
            return self._ahead[1].result()
        return self._read(draws, step)

    def _read(self, draws: Sequence[Draw], step: int) -> _Batch:
        batch = self.prepared.batch(draws, step)
        if self.device.type != "cuda":
            return batch
        return tuple(part.pin_memory() if isinstance(part, Tensor) else part for part in batch)

    def _moved(self, part: Tensor) -> Tensor:
        return part.to(self.device, non_blocking=True)

    def step(self, step: int, draws: Sequence[Draw], following: Sequence[Draw] = ()) -> Measured:
        """Change the weights by the gradients of these items; the next step will be of ``following``."""
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, settings)
        result = self.backward(draws, step, following)
        if settings.gradient_clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.gradient_clip)
        self.optimizer.step()
        return result


def learning_rate_at(step: int, settings: Optimisation) -> float:
    """Linear warm-up, then constant."""
    return settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup_steps))
