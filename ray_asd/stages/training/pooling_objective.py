"""Training transformer pooling on the chunks of whole clips.

B batch, C chunks, E embedding size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ray_asd.build import Attempt, Outcome, Output
from ray_asd.config import Recipe, TransformerPooling
from ray_asd.data.sampling import Draw
from ray_asd.models import pooling
from ray_asd.models.card import CARD, WEIGHTS
from ray_asd.models.saved import Training
from ray_asd.models.seeding import seeded
from ray_asd.stages.training.classification import Classification, Classifier, new_head
from ray_asd.stages.training.model_output import stored


@dataclass(frozen=True)
class Pooling:
    """Chunk embeddings of the training clips, made by the fine-tuned backbone, through the pooling transformer.

    ``base`` is that backbone's stage.
    """

    recipe: Recipe
    chunks: Output
    base: Output

    @property
    def seed(self) -> int:
        return self.recipe.seed

    @property
    def settings(self) -> TransformerPooling:
        assert self.recipe.transformer_pooling is not None
        return self.recipe.transformer_pooling

    def prepare(self) -> "PreparedPooling":
        return PreparedPooling(self)


class PreparedPooling(Classification):
    """Inputs of the encoder: zero-padded chunk embeddings [B, C, E] and the mask of what is no padding [B, C]."""

    def __init__(self, task: Pooling) -> None:
        super().__init__(task.recipe.aam, task.settings)
        self._task = task
        table = task.chunks.table("chunks").sort_by("place")
        conditions = table.column("condition").to_pylist()
        self.conditions = sorted(set(conditions))
        self.labels = np.array([self.conditions.index(name) for name in conditions])
        dim = task.recipe.embedding.dim
        flat = table.column("chunks").combine_chunks()
        self._offsets = flat.offsets.to_numpy()
        self._values = flat.values.values.to_numpy().reshape(-1, dim)
        self.num_items = table.num_rows
        with seeded(task.recipe.seed):
            self._pooling = pooling.TransformerPooling(dim, task.settings)
        self.module = Classifier(self._pooling, new_head(task.recipe, len(self.conditions)))

    def batch(self, draws: Sequence[Draw], step: int) -> tuple[Tensor | float, ...]:
        ends = [self._offsets[draw.item : draw.item + 2] for draw in draws]
        chunks = [torch.tensor(self._values[start:end]) for start, end in ends]
        return self._batch(draws, step, pooling.padded(chunks))

    def save(self, attempt: Attempt) -> Outcome:
        """The fine-tuned backbone with its trained pooling."""
        from ray_asd.models import model_folder
        from ray_asd.models.embedder import ClipEmbedder

        task = self._task
        base = model_folder.load(task.base.fetch(CARD), task.base.fetch(WEIGHTS))
        card = base.card
        training = Training(card.checkpoint, card.conditions, card.held_out, task.settings.steps)
        system = ClipEmbedder(base.system.embedder, self._pooling, task.recipe)
        return stored(attempt, lambda folder: model_folder.save(folder, system, self.module.aam, training))
