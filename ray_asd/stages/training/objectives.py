"""What can be trained: fine-tuning the backbone on crops, and transformer pooling on the chunks of whole clips.

Both are the same classification of conditions with AAM-softmax (paper section on attribute classification); they
differ in what a batch is. The baselines are objectives too, in a module of their own. B batch, T samples, C chunks, E
embedding size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ray_asd.build import Output
from ray_asd.config import Optimisation, Recipe, TransformerPooling
from ray_asd.data.sampling import Draw
from ray_asd.data.training_set import TrainingSet
from ray_asd.engine.objective import Measured
from ray_asd.models import backbones, embedder, pooling
from ray_asd.models.aam import AAMSoftmax, margin_at
from ray_asd.models.checkpoints import Checkpoint


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


@dataclass(frozen=True)
class FineTuning:
    """Crops of the training clips through the whole network."""

    recipe: Recipe
    checkpoint: Checkpoint
    sets: Sequence[Output]
    held_out: Sequence[str]

    @property
    def seed(self) -> int:
        return self.recipe.seed

    @property
    def settings(self) -> Optimisation:
        return self.recipe.fine_tuning

    def prepare(self) -> "PreparedFineTuning":
        return PreparedFineTuning(self)


class _Classification:
    """The half of a prepared task that is the same for every encoder."""

    labels: np.ndarray  # int64 [num_items]

    def __init__(self, task: "FineTuning | Pooling") -> None:
        self._aam, self._steps = task.recipe.aam, task.settings.steps

    def _batch(self, draws: Sequence[Draw], step: int, inputs: tuple[Tensor, ...]) -> tuple[Tensor | float, ...]:
        labels = torch.from_numpy(self.labels[[draw.item for draw in draws]])
        return labels, margin_at(step, self._steps, self._aam), *inputs

    def finish(self) -> None:
        """There is nothing left to do."""


class PreparedFineTuning(_Classification):
    """Inputs of the encoder: crops [B, T]."""

    def __init__(self, task: FineTuning) -> None:
        super().__init__(task)
        recipe = task.recipe
        self.data = TrainingSet(task.sets, task.held_out)
        self.labels = self.data.labels
        self.num_items = len(self.data)
        self.system = embedder.build(recipe, task.checkpoint)
        self.module = Classifier(self.system.embedder, new_head(recipe, len(self.data.conditions)))
        self._seconds = recipe.fine_tuning.crop_seconds

    def batch(self, draws: Sequence[Draw], step: int) -> tuple[Tensor | float, ...]:
        crops = self.data.crops(draws, self._seconds, self.system.embedder.backbone.normalize)
        return self._batch(draws, step, (torch.from_numpy(crops),))


@dataclass(frozen=True)
class Pooling:
    """Chunk embeddings of the training clips, made by the fine-tuned backbone, through the pooling transformer."""

    recipe: Recipe
    chunks: Output

    @property
    def seed(self) -> int:
        return self.recipe.seed

    @property
    def settings(self) -> TransformerPooling:
        assert self.recipe.transformer_pooling is not None
        return self.recipe.transformer_pooling

    def prepare(self) -> "PreparedPooling":
        return PreparedPooling(self)


class PreparedPooling(_Classification):
    """Inputs of the encoder: zero-padded chunk embeddings [B, C, E] and the mask of what is no padding [B, C]."""

    def __init__(self, task: Pooling) -> None:
        super().__init__(task)
        table = task.chunks.table("chunks").sort_by([("clip_id", "ascending")])
        conditions = table.column("condition").to_pylist()
        self.conditions = sorted(set(conditions))
        self.labels = np.array([self.conditions.index(name) for name in conditions])
        dim = task.recipe.embedding.dim
        flat = table.column("chunks").combine_chunks()
        self._offsets = flat.offsets.to_numpy()
        self._values = flat.values.values.to_numpy().reshape(-1, dim)
        self.num_items = table.num_rows
        with backbones.seeded(task.recipe.seed):
            encoder = pooling.TransformerPooling(dim, task.settings)
        self.module = Classifier(encoder, new_head(task.recipe, len(self.conditions)))

    def batch(self, draws: Sequence[Draw], step: int) -> tuple[Tensor | float, ...]:
        ends = [self._offsets[draw.item : draw.item + 2] for draw in draws]
        chunks = [torch.tensor(self._values[start:end]) for start, end in ends]
        return self._batch(draws, step, embedder.padded(chunks))


def new_head(recipe: Recipe, num_classes: int) -> AAMSoftmax:
    """The untrained classifier, its weights drawn from the recipe's seed.

    Raises:
        UserError: fewer than two classes.
    """
    with backbones.seeded(recipe.seed):
        return AAMSoftmax(recipe.embedding.dim, num_classes, recipe.aam.scale)
