"""How a saved baseline scores a clip: log-mel features into the model, one number out. T samples, P patches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ray_asd.config import Scoring
from ray_asd.data import layouts
from ray_asd.data.features import log_mel
from ray_asd.errors import UserError
from ray_asd.models import autoencoder, mobilenet, products
from ray_asd.models.card import ModelCard
from ray_asd.models.saved import fitting, load_tensors
from ray_asd.stages.training.baseline_objectives import PatchModel, ResidualModel, long_enough
from ray_asd.stages.training.usage import Used

Clip = Mapping[str, Any]
"""A CLIPS row."""


class NeverTrained(UserError):
    """A clip of a machine type that the baseline was not trained on."""


def load(used: Used) -> "Reconstructions | Patches":
    """The scorer of a worker, on the device that its settings ask for."""
    torch.set_num_threads(used.usage.inference.threads)
    products.keep_float32()
    card_file, weights = used.files()
    card, tensors = load_tensors(card_file, weights)
    device = "cuda" if used.usage.resources.embed.gpus else "cpu"
    with fitting(weights, card_file):
        if card.recipe.method == "autoencoder":
            return Reconstructions(card, tensors, used.usage.scoring, device)
        return Patches(card, tensors, used.usage.scoring, device)


class Reconstructions:
    """The AutoEncoders of all machine types."""

    def __init__(self, card: ModelCard, tensors: Mapping[str, Tensor], scoring: Scoring, device: str) -> None:
        self._settings = scoring.autoencoder
        self._of: dict[str, autoencoder.Reconstruction] = {}
        for number, machine_type in enumerate(card.machine_types):
            prefix = f"{number}."
            saved = ResidualModel()
            own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            saved.load_state_dict(own)
            covariances = autoencoder.Covariances(saved.covariance_source, saved.covariance_target)
            self._of[machine_type] = autoencoder.Reconstruction(saved.network, covariances, device)

    def __call__(self, waveform: np.ndarray, clip: Clip) -> float:
        machine_type = clip["machine_type"]
        if machine_type not in self._of:
            known = ", ".join(self._of)
            raise NeverTrained(f"{clip['clip_id']}: no AutoEncoder was trained on {machine_type!r}; allowed: {known}")
        features = log_mel(long_enough(waveform, autoencoder.FRAMES))
        try:
            return self._of[machine_type].score(features, self._settings)
        except UserError as error:
            raise UserError(f"{machine_type}: {error}") from error


class Patches:
    """The classifier of conditions, asked for a clip's own, or for the best fitting one of its machine type."""

    def __init__(self, card: ModelCard, tensors: Mapping[str, Tensor], scoring: Scoring, device: str) -> None:
        self._settings = card.recipe.mobilenet
        self._conditions = card.conditions
        self._recorded = scoring.mobilenet_class == "recorded"
        self._model = PatchModel(len(card.conditions), self._settings)
        self._model.load_state_dict(dict(tensors))
        self._model.eval().to(device)
        self._device = device

    def __call__(self, waveform: np.ndarray, clip: Clip) -> float:
        features = log_mel(long_enough(waveform, self._settings.frames))
        patches = mobilenet.patches(torch.from_numpy(features), self._settings.frames, self._settings.hop_frames)
        with torch.inference_mode():
            logits = self._model.classifier(patches.to(self._device)).cpu()
        return mobilenet.anomaly_score(logits, self._candidates(clip))

    def _candidates(self, clip: Clip) -> Sequence[int]:
        if self._recorded and clip["condition"] in self._conditions:
            return [self._conditions.index(clip["condition"])]
        own = [
            number
            for number, name in enumerate(self._conditions)
            if layouts.machine_type_of(name) == clip["machine_type"]
        ]
        if not own:
            raise NeverTrained(f"{clip['clip_id']}: the MobileNet knows no condition of {clip['machine_type']!r}")
        return own
