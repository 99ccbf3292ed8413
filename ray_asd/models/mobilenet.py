"""The classification baseline: MobileNetV2 on log-mel patches, and its score, the negative log-odds of a class.

The challenge's 2021 baseline (Kawaguchi et al., arXiv 2106.04492) classifies sections; here it is conditions, as the
paper's other systems do. B patches of a batch, P of a clip, F frames of a clip, W of a patch, N classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from ray_asd import config
from ray_asd.errors import UserError


class PatchClassifier(nn.Module):
    """Patches [B, 128, W] -> logits [B, N], the one log-mel channel in place of each of the three colours.

    Raises:
        UserError: fewer than two classes.
    """

    def __init__(self, num_classes: int, settings: config.MobileNet) -> None:
        super().__init__()
        if num_classes < 2:
            raise UserError(f"{num_classes} condition(s) in the training clips; at least 2 are needed")
        self.network = mobilenet_v2(width_mult=settings.width, num_classes=num_classes, dropout=0.0)

    def forward(self, patches: Tensor) -> Tensor:
        logits: Tensor = self.network(patches.unsqueeze(1).expand(-1, 3, -1, -1))
        return logits


def patches(log_mel: Tensor, frames: int, hop: int) -> Tensor:
    """Log-mel [128, F] -> patches [P, 128, W], one each ``hop`` frames; what is left at the end is not heard.

    Raises:
        UserError: the clip has fewer frames than a patch.
    """
    if log_mel.shape[1] < frames:
        raise UserError(f"{log_mel.shape[1]} log-mel frames are too few; a patch has {frames}")
    return log_mel.unfold(1, frames, hop).transpose(0, 1)


def anomaly_score(logits: Tensor, candidates: Sequence[int]) -> float:
    """Mean over a clip's patches of log((1 - p) / p), p the probability of the true class, from logits [P, N].

    Where the true class may be any of several ``candidates`` it is the one that fits best.
    """
    exact = logits.double()
    scores = []
    for candidate in candidates:
        others = torch.cat([exact[:, :candidate], exact[:, candidate + 1 :]], dim=1)
        scores.append(float((others.logsumexp(dim=1) - exact[:, candidate]).mean()))
    return min(scores)
