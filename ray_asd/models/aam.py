"""Additive angular margin softmax: the classification loss that shapes the embedding.

Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019, equation 3.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_asd import config
from ray_asd.errors import UserError

RAMP_END = 1e-3  # share of the margin that is still missing just before the ramp ends
MIN_SINE_SQUARED = 1e-7  # float32 resolution: keeps the gradient of the sine finite where the cosine is 1


class AAMSoftmax(nn.Module):
    """Cross entropy over scaled cosines to one weight per class, the true class's angle enlarged by a margin.

    With two classes the margin is left out: every embedding that is near one weight is far from the other already,
    and the margin drives the accuracy to zero. All of it is computed in float32, under autocast too.

    Raises:
        UserError: fewer than two classes.
    """

    def __init__(self, dim: int, num_classes: int, scale: float) -> None:
        super().__init__()
        if num_classes < 2:
            raise UserError(
                f"{num_classes} condition(s) in the training clips; at least 2 are needed to tell machine types "
                "or attribute values apart"
            )
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(num_classes, dim))
        nn.init.xavier_normal_(self.weight)

    @property
    def num_classes(self) -> int:
        """Number of conditions."""
        return len(self.weight)

    def forward(self, embedding: Tensor, label: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """[B, E], class indices [B], radians -> mean loss, and cosines [B, classes] without scale and margin."""
        if self.num_classes == 2:
            margin = 0.0
        with torch.autocast(embedding.device.type, enabled=False):
            cosine = functional.linear(functional.normalize(embedding.float()), functional.normalize(self.weight))
            target = cosine.gather(1, label[:, None])
            logits = self.scale * cosine.scatter(1, label[:, None], _with_margin(target, margin))
            return functional.cross_entropy(logits, label), cosine


def _with_margin(cosine: Tensor, margin: float) -> Tensor:
    """cos(angle + margin); beyond pi, where that would rise again, a linear penalty that keeps falling."""
    sine = (1 - cosine.square()).clamp_min(MIN_SINE_SQUARED).sqrt()
    enlarged = cosine * math.cos(margin) - sine * math.sin(margin)
    return torch.where(cosine > -math.cos(margin), enlarged, cosine - margin * math.sin(margin))


def margin_at(step: int, steps: int, aam: config.AAM) -> float:
    """The margin in radians at ``step`` of ``steps``: 0, then rising between the two shares of the ramp, then whole.

    On the ramp it is margin * (1 - 10^(-3 t)), with t from 0 to 1: fast at first and nearly complete early, as the
    speaker verification toolkits do it.
    """
    start, end = (share * steps for share in aam.ramp)
    if step >= end:
        return aam.margin
    if step <= start:
        return 0.0
    return float(aam.margin * (1 - RAMP_END ** ((step - start) / (end - start))))
