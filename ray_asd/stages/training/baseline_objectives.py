"""What the two baselines train on: log-mel vectors of one machine type, or log-mel patches of all conditions.

B batch, F frames of a clip, W frames of a piece.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_asd.build import Attempt, Outcome, Output
from ray_asd.config import AutoEncoder, MobileNet, Optimisation, Recipe
from ray_asd.data.features import HOP, NUM_MELS, log_mel
from ray_asd.data.sampling import Draw
from ray_asd.data.training_set import TrainingSet
from ray_asd.engine.objective import Measured
from ray_asd.models import autoencoder, mobilenet
from ray_asd.models.saved import Training, save_tensors
from ray_asd.models.seeding import seeded
from ray_asd.stages.training.classification import accuracy
from ray_asd.stages.training.model_output import AUTOENCODER, stored


class Pieces:
    """Every piece of ``frames`` log-mel frames of the clips, one each ``hop`` frames; a shorter clip is repeated."""

    def __init__(self, data: TrainingSet, frames: int, hop: int) -> None:
        self.data, self._frames = data, frames
        lengths = np.maximum(data.rows.column("length").to_numpy() // HOP + 1, frames)
        counts = (lengths - frames) // hop + 1
        self.clips = np.repeat(np.arange(len(data)), counts)
        self._starts = hop * (np.arange(len(self.clips)) - np.repeat(np.cumsum(counts) - counts, counts))

    def __len__(self) -> int:
        return len(self.clips)

    def take(self, pieces: Sequence[int] | np.ndarray) -> Tensor:
        """Float32 [B, W, 128] in dB."""
        taken = np.empty((len(pieces), self._frames, NUM_MELS), np.float32)
        for row, piece in zip(taken, pieces, strict=True):
            start = self._starts[piece]
            row[:] = self._log_mels[self.clips[piece]][start : start + self._frames]
        return torch.from_numpy(taken)

    @cached_property
    def _log_mels(self) -> list[np.ndarray]:
        """[F, 128] of each clip."""
        waves = (self.data.waveform(clip) for clip in range(len(self.data)))
        return [np.ascontiguousarray(log_mel(long_enough(wave, self._frames)).T) for wave in waves]


def long_enough(waveform: np.ndarray, frames: int) -> np.ndarray:
    """``waveform``, repeated until it has ``frames`` log-mel frames."""
    return np.resize(waveform, max(len(waveform), (frames - 1) * HOP))


def _optimisation(baseline: AutoEncoder | MobileNet, num_items: int) -> Optimisation:
    """As many steps as the epochs take. One worker, since BatchNorm would see only its share of a batch."""
    return Optimisation(
        steps=max(1, math.ceil(baseline.epochs * num_items / baseline.batch_size)),
        batch_size=baseline.batch_size,
        learning_rate=baseline.learning_rate,
        weight_decay=0.0,  # AdamW is then Adam
        checkpoint_every=baseline.checkpoint_every,
        threads=baseline.threads,
    )


@dataclass(frozen=True)
class Reconstruction:
    """The AutoEncoder of one machine type: a vector is 5 frames, and a share of them is never trained on."""

    sets: Sequence[Output]
    held_out: Sequence[str]
    machine_type: str
    recipe: Recipe

    @property
    def seed(self) -> int:
        return self.recipe.seed

    @cached_property
    def settings(self) -> Optimisation:
        return _optimisation(self.recipe.autoencoder, len(self.vectors()[1]))

    def vectors(self) -> tuple[Pieces, np.ndarray]:
        """All vectors of the machine type's training clips, and which of them are trained on, in random order."""
        pieces = Pieces(TrainingSet(self.sets, self.held_out, self.machine_type), autoencoder.FRAMES, hop=1)
        order = np.random.default_rng([self.seed, 2]).permutation(len(pieces))
        return pieces, order[round(self.recipe.autoencoder.validation_fraction * len(order)) :]

    def prepare(self) -> "PreparedReconstruction":
        return PreparedReconstruction(self)


class ResidualModel(nn.Module):
    """The network and, once it is trained, the covariances of its residuals, which belong to its state."""

    covariance_source: Tensor
    covariance_target: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.network = autoencoder.AutoEncoder()
        for name in ("covariance_source", "covariance_target"):
            self.register_buffer(name, torch.zeros(NUM_MELS, NUM_MELS, dtype=torch.float64))

    def forward(self, vectors: Tensor) -> Measured:
        return {"loss": functional.mse_loss(self.network(vectors), vectors)}


class PreparedReconstruction:
    """Items are feature vectors [640]."""

    def __init__(self, task: Reconstruction) -> None:
        self._task, self._settings = task, task.recipe.autoencoder
        self._pieces, self._trained = task.vectors()
        self._is_target = np.equal(
            np.array(self._pieces.data.rows.column("domain").to_pylist(), dtype=object), "target"
        )
        self.num_items = len(self._trained)
        with seeded(task.seed):
            self.module = ResidualModel()

    def batch(self, draws: Sequence[Draw], step: int) -> tuple[Tensor | float, ...]:
        return (self._vectors(self._trained[[draw.item for draw in draws]]),)

    def finish(self) -> None:
        """The covariances over all vectors that were trained on, batch by batch."""
        found = autoencoder.covariances(self.module.network, self._batches(), self._settings)
        self.module.covariance_source.copy_(found.source)
        self.module.covariance_target.copy_(found.target)

    def save(self, attempt: Attempt) -> Outcome:
        """The tensors of one machine type, for the model folder of all."""
        state = {name: tensor.cpu().contiguous() for name, tensor in self.module.state_dict().items()}
        return Outcome([attempt.put(AUTOENCODER, safetensors.torch.save(state))], {"steps": self._task.settings.steps})

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        size = self._settings.batch_size
        for chosen in (self._trained[start : start + size] for start in range(0, self.num_items, size)):
            yield self._vectors(chosen), torch.from_numpy(self._is_target[self._pieces.clips[chosen]])

    def _vectors(self, pieces: np.ndarray) -> Tensor:
        return self._pieces.take(pieces).flatten(start_dim=1)


@dataclass(frozen=True)
class Patches:
    """The MobileNet that tells the conditions of all machine types apart."""

    sets: Sequence[Output]
    held_out: Sequence[str]
    recipe: Recipe

    @property
    def seed(self) -> int:
        return self.recipe.seed

    @cached_property
    def settings(self) -> Optimisation:
        return _optimisation(self.recipe.mobilenet, len(self.patches()[1]))

    def patches(self) -> tuple[TrainingSet, Pieces]:
        """The training clips and all their patches."""
        data = TrainingSet(self.sets, self.held_out)
        return data, Pieces(data, self.recipe.mobilenet.frames, self.recipe.mobilenet.hop_frames)

    def prepare(self) -> "PreparedPatches":
        return PreparedPatches(self)


class PatchModel(nn.Module):
    """The classifier with its cross entropy."""

    def __init__(self, num_classes: int, settings: MobileNet) -> None:
        super().__init__()
        self.classifier = mobilenet.PatchClassifier(num_classes, settings)

    def forward(self, labels: Tensor, patches: Tensor) -> Measured:
        logits = self.classifier(patches)
        return {"loss": functional.cross_entropy(logits, labels), "accuracy": accuracy(logits, labels)}


class PreparedPatches:
    """Items are patches [128, W]."""

    def __init__(self, task: Patches) -> None:
        self._task = task
        self._data, self._pieces = task.patches()
        self._labels = self._data.labels[self._pieces.clips]
        self.num_items = len(self._pieces)
        with seeded(task.seed):
            self.module = PatchModel(len(self._data.conditions), task.recipe.mobilenet)

    def batch(self, draws: Sequence[Draw], step: int) -> tuple[Tensor | float, ...]:
        items = [draw.item for draw in draws]
        return torch.from_numpy(self._labels[items]), self._pieces.take(items).transpose(1, 2)

    def finish(self) -> None:
        """There is nothing left to do."""

    def save(self, attempt: Attempt) -> Outcome:
        """The model folder."""
        task = self._task
        training = Training(None, self._data.conditions, task.held_out, task.settings.steps)
        state = self.module.state_dict()
        return stored(attempt, lambda folder: save_tensors(folder, state, task.recipe, training))
