"""The reconstruction baseline of the DCASE 2023 challenge: an AutoEncoder of log-mel vectors, and its two scores.

Dohi et al., "Description and discussion on DCASE 2023 challenge task 2", arXiv 2305.07828, and the organisers' code.
A vector is five consecutive frames, frame after frame, and its residual falls into five blocks of 128 mel bands.
F frames, V vectors of a clip, B batch; residual blocks [5 V, 128].
"""

from collections.abc import Iterable
from dataclasses import dataclass
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
    A domain without vectors has the other one's. The network is left as it was but for its mode, which is evaluation.
    """
    exact = _exact(network)
    domains = (_Scatter(settings.residual_mean), _Scatter(settings.residual_mean))
    for batch, is_target in batches:
        residuals = _residuals(exact, batch.to(_device(exact)))
        for scatter, chosen in zip(domains, (~is_target, is_target), strict=True):
            scatter.add(residuals[chosen.to(residuals.device)])
    found = [scatter.covariance(settings.residual_divisor) for scatter in domains]
    source, target = found[0] if found[0] is not None else found[1], found[1] if found[1] is not None else found[0]
    assert source is not None
    assert target is not None
    return Covariances(source, target)


class _Scatter:
    """Sums over one domain's residual blocks."""

    def __init__(self, mean: Literal["batch", "all"]) -> None:
        self._of_batch = mean == "batch"
        self._squares: Tensor | None = None
        self._sum: Tensor | float = 0.0
        self._vectors = 0

    def add(self, residuals: Tensor) -> None:
        """Residuals [B, 5, 128] of one batch, which may be none."""
        if not len(residuals):
            return
        blocks = residuals.flatten(end_dim=1)
        if self._of_batch:
            blocks = blocks - blocks.mean(dim=0)
        squares = blocks.T @ blocks
        self._squares = squares if self._squares is None else self._squares + squares
        self._sum = self._sum + blocks.sum(dim=0)
        self._vectors += len(residuals)

    def covariance(self, divisor: Literal["vectors", "blocks"]) -> Tensor | None:
        if self._squares is None:
            return None
        blocks = self._vectors * FRAMES
        scatter = self._squares
        if not self._of_batch:
            assert isinstance(self._sum, Tensor)
            scatter = scatter - torch.outer(self._sum, self._sum) / blocks
        return scatter / max(1, (self._vectors if divisor == "vectors" else blocks) - 1)


class Reconstruction:
    """A trained AutoEncoder as a detector, in float64."""

    def __init__(self, network: AutoEncoder, covariances: Covariances, device: str = "cpu") -> None:
        self._network = _exact(network).to(device)
        self._covariances = covariances
        self._precisions: list[Tensor] = []

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
        return min(float((blocks @ precision * blocks).sum(dim=1).mean()) for precision in self._inverses())

    def _inverses(self) -> list[Tensor]:
        if not self._precisions:
            for name, covariance in vars(self._covariances).items():
                inverse, failed = torch.linalg.inv_ex(covariance.to(_device(self._network)))
                if failed or not inverse.isfinite().all():
                    raise UserError(
                        f"the {name} covariance of the residuals has no inverse; more {name} clips are needed, "
                        "or scoring.autoencoder.score=mse"
                    )
                self._precisions.append(inverse)
        return self._precisions


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
