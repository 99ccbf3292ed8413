"""One step of training on one worker, knowing nothing of Ray, of other workers or of checkpoints."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ray_asd.config import Optimisation
from ray_asd.data.sampling import Draw
from ray_asd.engine.objective import Measured, Prepared


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

    def backward(self, draws: Sequence[Draw], step: int) -> Measured:
        """Fresh gradients of these items, and what was measured of them."""
        begun = time.perf_counter()
        batch = self.prepared.batch(draws, step)
        self.waited += time.perf_counter() - begun
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            measured = self.model(*(part.to(self.device) if isinstance(part, Tensor) else part for part in batch))
        measured["loss"].backward()
        return {name: value.detach() for name, value in measured.items()}

    def step(self, step: int, draws: Sequence[Draw]) -> Measured:
        """Change the weights by the gradients of these items."""
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, settings)
        result = self.backward(draws, step)
        if settings.gradient_clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.gradient_clip)
        self.optimizer.step()
        return result


def learning_rate_at(step: int, settings: Optimisation) -> float:
    """Linear warm-up, then constant."""
    return settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup_steps))
