"""The classification of conditions with AAM-softmax, the same for every encoder (paper section on attributes).

B batch, E embedding size.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ray_asd.config import AAM, Optimisation, Recipe
from ray_asd.data.sampling import Draw
from ray_asd.engine.objective import Measured
from ray_asd.models.aam import AAMSoftmax, margin_at
from ray_asd.models.seeding import seeded


class Classifier(nn.Module):
    """An encoder and its AAM-softmax head as one module, since DDP wants a single forward.

    Args of forward: class indices [B], the margin, and what the encoder takes.
    """

    def __init__(self, encoder: nn.Module, aam: AAMSoftmax) -> None:
        super().__init__()
        self.encoder = encoder
        self.aam = aam

    def forward(self, labels: Tensor, margin: float, *inputs: Tensor) -> Measured:
        loss, cosine = self.aam(self.encoder(*inputs), labels, margin)
        return {"loss": loss, "accuracy": accuracy(cosine, labels)}


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of rows whose largest logit [B, classes] is their label's [B]."""
    return (logits.argmax(dim=1) == labels).float().mean()


class Classification:
    """The half of a prepared task that is the same for every encoder."""

    labels: np.ndarray  # int64 [num_items]

    def __init__(self, aam: AAM, settings: Optimisation) -> None:
        self._aam, self._steps = aam, settings.steps

    def _batch(self, draws: Sequence[Draw], step: int, inputs: tuple[Tensor, ...]) -> tuple[Tensor | float, ...]:
        labels = torch.from_numpy(self.labels[[draw.item for draw in draws]])
        return labels, margin_at(step, self._steps, self._aam), *inputs

    def finish(self) -> None:
        """There is nothing left to do."""


def new_head(recipe: Recipe, num_classes: int) -> AAMSoftmax:
    """The untrained classifier, its weights drawn from the recipe's seed.

    Raises:
        UserError: fewer than two classes.
    """
    with seeded(recipe.seed):
        return AAMSoftmax(recipe.embedding.dim, num_classes, recipe.aam.scale)
