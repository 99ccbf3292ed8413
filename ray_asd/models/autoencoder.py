"""The reconstruction baseline of the DCASE 2023 challenge: an AutoEncoder of log-mel vectors, and its two scores.

Dohi et al., "Description and discussion on DCASE 2023 challenge task 2", arXiv 2305.07828, and the organisers' code.
A vector is five consecutive frames, frame after frame, and its residual falls into five blocks of 128 mel bands.
F frames, V vectors of a clip, B batch; residual blocks [5 V, 128].
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ray_asd import config
from ray_asd.errors import UserError

NUM_MELS = 128
FRAMES = 5  # of a vector
HIDDEN, BOTTLENECK = 128, 8
_SIZES = (FRAMES * NUM_MELS, *[HIDDEN] * 4, BOTTLENECK, *[HIDDEN] * 4, FRAMES * NUM_MELS)


class AutoEncoder(nn.Module):
    """640-128-128-128-128-8-128-128-128-128-640: [B, 640] to the same, batch norm and ReLU after all but the last."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for size, following in pairwise(_SIZES[:-1]):
            norm = nn.BatchNorm1d(following, momentum=0.01, eps=1e-3)
            layers += [nn.Linear(size, following), norm, nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(HIDDEN, _SIZES[-1]))

    def forward(self, vectors: Tensor) -> Tensor:
        reconstructed: Tensor = self.layers(vectors)
        return reconstructed


def vectors(log_mel: np.ndarray) -> Tensor:
    """Log-mel [128, F] in dB -> [F - 4, 640], one vector from each frame on.

    Raises:
        UserError: fewer than five frames.
    """
    if log_mel.shape[1] < FRAMES:
        raise UserError(f"{log_mel.shape[1]} log-mel frames are too few; an AutoEncoder needs {FRAMES} or more")
    windows = torch.from_numpy(log_mel).unfold(1, FRAMES, 1)  # [128, V, 5]
    return windows.permute(1, 2, 0).flatten(start_dim=1)


@dataclass(frozen=True)
class Covariances:
    """Of the residual blocks of the source and of the target domain, float64 [128, 128] each."""

    source: Tensor
    target: Tensor


def covariances(
    network: AutoEncoder, batches: Iterable[tuple[Tensor, Tensor]], settings: config.AutoEncoder
) -> Covariances:
    """Covariances of what ``network`` leaves of training vectors [B, 640], given with whether each is target [B].

    As published the scatter is taken about each batch's own mean and divided by the number of vectors, not of blocks.
    A domain without vectors has the other one's. The network is used in evaluation mode and float64, and left as it is.

    Raises:
        UserError: no vectors at all.
    """
    exact = _exact(network)
    source, target = (_Scatter(settings.residual_mean, _device(exact)) for _ in range(2))
    for batch, is_target in batches:
        residuals = _residuals(exact, batch.to(_device(exact)))
        chosen = is_target.to(residuals.device)
        source.add(residuals[~chosen])
        target.add(residuals[chosen])
    if not source.vectors and not target.vectors:
        raise UserError("no feature vectors to take the covariance of the residuals from; at least 1 is needed")
    of_source, of_target = (scatter.covariance(settings.residual_divisor) for scatter in (source, target))
    return Covariances(
        of_source if source.vectors else of_target,
        of_target if target.vectors else of_source,
    )


class _Scatter:
    """Sums over one domain's residual blocks; ``vectors`` counts the vectors that they came from."""

    def __init__(self, mean: Literal["batch", "all"], device: torch.device) -> None:
        self._of_batch = mean == "batch"
        self._squares = torch.zeros(NUM_MELS, NUM_MELS, dtype=torch.float64, device=device)
        self._sum = torch.zeros(NUM_MELS, dtype=torch.float64, device=device)
        self.vectors = 0

    def add(self, residuals: Tensor) -> None:
        """Residuals [B, 5, 128] of one batch, which may be none."""
        blocks = residuals.flatten(end_dim=1)
        if self._of_batch:
            blocks = blocks - blocks.mean(dim=0)
        self._squares += blocks.T @ blocks
        self._sum += blocks.sum(dim=0)
        self.vectors += len(residuals)

    def covariance(self, divisor: Literal["vectors", "blocks"]) -> Tensor:
        blocks = self.vectors * FRAMES
        scatter = self._squares
        if not self._of_batch:
            scatter = scatter - torch.outer(self._sum, self._sum) / max(1, blocks)
        return scatter / max(1, (self.vectors if divisor == "vectors" else blocks) - 1)


class Reconstruction:
    """A trained AutoEncoder as a detector, in float64."""

    def __init__(self, network: AutoEncoder, covariances: Covariances, device: str = "cpu") -> None:
        self._network = _exact(network).to(device)
        self._covariances = covariances

    @torch.inference_mode()
    def score(self, log_mel: np.ndarray, settings: config.ReconstructionScore) -> float:
        """Anomaly score of a clip from its log-mel [128, F].

        ``mse``: the mean over all vectors and dimensions. ``mahalanobis``: the smaller one of source and target of the
        form r' P r with the inverse covariance P; r is the mean of all residual blocks, which is what averaging over
        all pairs of blocks comes to, as published; with ``residuals`` the form is averaged over the blocks instead.

        Raises:
            UserError: too few frames, or a covariance that has no inverse.
        """
        residuals = _residuals(self._network, vectors(log_mel).to(_device(self._network)))
        if settings.score == "mse":
            return float(residuals.square().mean())
        blocks = residuals.flatten(end_dim=1)
        if settings.mahalanobis_of == "mean_residual":
            blocks = blocks.mean(dim=0, keepdim=True)
        return min(float((blocks @ precision * blocks).sum(dim=1).mean()) for precision in self._precisions)

    @cached_property
    def _precisions(self) -> list[Tensor]:
        """The inverses of both covariances, once it is certain that both have one."""
        known = {name: value.to(_device(self._network)) for name, value in vars(self._covariances).items()}
        for name, covariance in known.items():
            if not _invertible(covariance):
                raise UserError(
                    f"the {name} covariance of the residuals has no inverse; more {name} clips are needed, "
                    "or scoring.autoencoder.score=mse"
                )
        return [torch.linalg.inv(covariance) for covariance in known.values()]


def _invertible(covariance: Tensor) -> bool:
    """Whether it is finite and of full rank in float64. One that is not can still have an "inverse": of noise."""
    finite = bool(covariance.isfinite().all())
    return finite and int(torch.linalg.matrix_rank(covariance, hermitian=True)) == len(covariance)


def _exact(network: AutoEncoder) -> AutoEncoder:
    """The same network in float64 and evaluation mode."""
    exact = AutoEncoder().double().to(_device(network))
    exact.load_state_dict(network.state_dict())
    return exact.eval()


def _device(network: AutoEncoder) -> torch.device:
    return next(network.parameters()).device


@torch.no_grad()
def _residuals(network: AutoEncoder, batch: Tensor) -> Tensor:
    """[B, 640] -> float64 [B, 5, 128]."""
    exact = batch.double()
    residuals: Tensor = exact - network(exact)
    return residuals.view(-1, FRAMES, NUM_MELS)
