"""What can be trained: fine-tuning the backbone on crops, and transformer pooling on the chunks of whole clips.

Both are the same classification of conditions with AAM-softmax (paper section on attribute classification); they
differ in what a batch is. B batch, T samples, C chunks, E embedding size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ray_asd.build import Output
from ray_asd.config import Optimisation, Recipe, TransformerPooling
from ray_asd.data.training_set import Draw, TrainingSet
from ray_asd.models import backbones, embedder, pooling
from ray_asd.models.aam import AAMSoftmax
from ray_asd.models.checkpoints import Checkpoint


class Classifier(nn.Module):
    """An encoder and its AAM-softmax head as one module, since DDP wants a single forward."""

    def __init__(self, encoder: nn.Module, aam: AAMSoftmax) -> None:
        super().__init__()
        self.encoder = encoder
        self.aam = aam

    def forward(self, inputs: Sequence[Tensor], labels: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """-> mean loss, and the share of right answers, both scalars."""
        loss, cosine = self.aam(self.encoder(*inputs), labels, margin)
        return loss, (cosine.argmax(dim=1) == labels).float().mean()


class Prepared(Protocol):
    """A task as loaded by a worker."""

    classifier: Classifier
    num_clips: int

    def batch(self, draws: Sequence[Draw]) -> tuple[tuple[Tensor, ...], Tensor]:
        """Inputs of the encoder and class indices [B], on the CPU."""
        ...


class Task(Protocol):
    """What travels to the workers."""

    @property
    def recipe(self) -> Recipe: ...

    @property
    def settings(self) -> Optimisation: ...

    def prepare(self) -> Prepared: ...


@dataclass(frozen=True)
class FineTuning:
    """Crops of the training clips through the whole network."""

    recipe: Recipe
    checkpoint: Checkpoint
    sets: Sequence[Output]
    held_out: Sequence[str]

    @property
    def settings(self) -> Optimisation:
        return self.recipe.training

    def prepare(self) -> "PreparedFineTuning":
        return PreparedFineTuning(self)


class PreparedFineTuning:
    """Inputs of the encoder: crops [B, T]."""

    def __init__(self, task: FineTuning) -> None:
        recipe = task.recipe
        self.data = TrainingSet(task.sets, task.held_out)
        self.num_clips = len(self.data)
        self.system = embedder.build(recipe, task.checkpoint)
        self.classifier = Classifier(self.system.embedder, new_head(recipe, len(self.data.conditions)))
        self._seconds = recipe.training.crop_seconds

    def batch(self, draws: Sequence[Draw]) -> tuple[tuple[Tensor, ...], Tensor]:
        crops = self.data.crops(draws, self._seconds, self.system.embedder.backbone.normalize)
        labels = self.data.labels[[draw.clip for draw in draws]]
        return (torch.from_numpy(crops),), torch.from_numpy(labels)


@dataclass(frozen=True)
class Pooling:
    """Chunk embeddings of the training clips, made by the fine-tuned backbone, through the pooling transformer."""

    recipe: Recipe
    chunks: Output

    @property
    def settings(self) -> TransformerPooling:
        assert self.recipe.transformer_pooling is not None
        return self.recipe.transformer_pooling

    def prepare(self) -> "PreparedPooling":
        return PreparedPooling(self)


class PreparedPooling:
    """Inputs of the encoder: zero-padded chunk embeddings [B, C, E] and the mask of what is no padding [B, C]."""

    def __init__(self, task: Pooling) -> None:
        table = task.chunks.table("chunks").sort_by([("clip_id", "ascending")])
        conditions = table.column("condition").to_pylist()
        self.conditions = sorted(set(conditions))
        self.labels = np.array([self.conditions.index(name) for name in conditions])
        dim = task.recipe.embedding.dim
        flat = table.column("chunks").combine_chunks()
        self._offsets = flat.offsets.to_numpy()
        self._values = flat.values.values.to_numpy().reshape(-1, dim)
        self.num_clips = table.num_rows
        with backbones.seeded(task.recipe.seed):
            encoder = pooling.TransformerPooling(dim, task.settings)
        self.classifier = Classifier(encoder, new_head(task.recipe, len(self.conditions)))

    def batch(self, draws: Sequence[Draw]) -> tuple[tuple[Tensor, ...], Tensor]:
        clips = [draw.clip for draw in draws]
        chunks = [torch.tensor(self._values[self._offsets[clip] : self._offsets[clip + 1]]) for clip in clips]
        return embedder.padded(chunks), torch.from_numpy(self.labels[clips])


def new_head(recipe: Recipe, num_classes: int) -> AAMSoftmax:
    """The untrained classifier, its weights drawn from the recipe's seed.

    Raises:
        UserError: fewer than two classes.
    """
    with backbones.seeded(recipe.seed):
        return AAMSoftmax(recipe.embedding.dim, num_classes, recipe.aam.scale)
