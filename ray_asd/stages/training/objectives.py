"""Fine-tuning a backbone on crops. The other objectives need no backbone and have modules of their own: transformer
pooling on the chunks of whole clips (``pooling_objective``) and the baselines (``baseline_objectives``).

Backbones are imported by workers alone, since transformers takes seconds of a driver that needs nothing of it.

B batch, T samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ray_asd.build import Attempt, Outcome, Output
from ray_asd.config import Optimisation, Recipe
from ray_asd.data.sampling import Draw
from ray_asd.data.training_set import TrainingSet
from ray_asd.models.checkpoints import Checkpoint
from ray_asd.models.saved import Training
from ray_asd.stages.training.classification import Classification, Classifier, new_head
from ray_asd.stages.training.model_output import stored


@dataclass(frozen=True)
class FineTuning:
    """Crops of the training clips through the whole network; ``within_reach`` has the weights of ``checkpoint`` where
    workers could not get them from there.
    """

    recipe: Recipe
    checkpoint: Checkpoint
    sets: Sequence[Output]
    held_out: Sequence[str]
    within_reach: Checkpoint | None = None

    @property
    def seed(self) -> int:
        return self.recipe.seed

    @property
    def settings(self) -> Optimisation:
        return self.recipe.fine_tuning

    def prepare(self) -> "PreparedFineTuning":
        return PreparedFineTuning(self)


class PreparedFineTuning(Classification):
    """Inputs of the encoder: crops [B, T]."""

    def __init__(self, task: FineTuning) -> None:
        from ray_asd.models import embedder

        super().__init__(task.recipe.aam, task.settings)
        recipe = task.recipe
        self.data = TrainingSet(task.sets, task.held_out)
        self.labels = self.data.labels
        self.num_items = len(self.data)
        self._task = task
        self.system = embedder.build(recipe, task.within_reach or task.checkpoint)
        self.module = Classifier(self.system.embedder, new_head(recipe, len(self.data.conditions)))
        self._seconds = recipe.fine_tuning.crop_seconds

    def batch(self, draws: Sequence[Draw], step: int) -> tuple[Tensor | float, ...]:
        crops = self.data.crops(draws, self._seconds, self.system.embedder.backbone.normalize)
        return self._batch(draws, step, (torch.from_numpy(crops),))

    def save(self, attempt: Attempt) -> Outcome:
        """The fine-tuned backbone, pooled by the mean of its chunk embeddings."""
        from ray_asd.models import model_folder

        task, steps = self._task, self._task.settings.steps
        training = Training(task.checkpoint, self.data.conditions, task.held_out, steps)
        return stored(attempt, lambda folder: model_folder.save(folder, self.system, self.module.aam, training))
