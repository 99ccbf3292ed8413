"""From many vectors to one: over the frames of a chunk, and over the chunks of a clip.

Shapes: B batch, F frames, H hidden size, C chunks, E embedding size.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_asd import config


class MeanPooling(nn.Module):
    """Mean over time, [B, F, H] -> [B, H]."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.output_size = hidden_size

    def forward(self, states: Tensor) -> Tensor:
        """[B, F, H] -> [B, H]."""
        return states.mean(dim=1)


class StatisticsPooling(nn.Module):
    """Mean and standard deviation over time, [B, F, H] -> [B, 2H]; it has no weights that would need a training."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.output_size = 2 * hidden_size

    def forward(self, states: Tensor) -> Tensor:
        """[B, F, H] -> [B, 2H]: mean, then standard deviation."""
        return torch.cat([states.mean(dim=1), states.std(dim=1, correction=0)], dim=1)


class AttentiveStatisticsPooling(nn.Module):
    """Weighted mean and standard deviation over time, [B, F, H] -> [B, 2H].

    Okabe, Koshinaka and Shinoda, "Attentive Statistics Pooling for Deep Speaker Embedding", Interspeech 2018,
    equations 3 to 7: frame t has the weight softmax_t(v' tanh(W h_t + b)).
    """

    def __init__(self, hidden_size: int, attention_size: int = 128) -> None:
        super().__init__()
        self.output_size = 2 * hidden_size
        # A bias on the score itself would cancel in the softmax.
        self.score = nn.Sequential(
            nn.Linear(hidden_size, attention_size), nn.Tanh(), nn.Linear(attention_size, 1, bias=False)
        )

    def forward(self, states: Tensor) -> Tensor:
        """[B, F, H] -> [B, 2H]: mean, then standard deviation."""
        weights = self.score(states).softmax(dim=1)  # [B, F, 1]
        mean = (weights * states).sum(dim=1)
        variance = (weights * (states - mean[:, None]).square()).sum(dim=1)
        return torch.cat([mean, variance.clamp_min(1e-7).sqrt()], dim=1)


POOLINGS = {"mean": MeanPooling, "statistics": StatisticsPooling, "attentive_statistics": AttentiveStatisticsPooling}
"""Pooling over time by its name in a recipe; each has ``output_size``."""


class TransformerPooling(nn.Module):
    """TFP: a transformer encoder over the chunk embeddings of a clip, then the mean over its chunks.

    The paper names no more than that, so the rest is ours. Chunks carry no position (Vaswani et al., "Attention Is All
    You Need", 2017, section 3.5): a recording starts anywhere in what the machine does. Without one, attention and mean
    see a set of chunks and in what proportions it holds them: neither their order nor how often the whole clip is
    repeated changes an embedding. Chunk embeddings are brought to length sqrt(E), and layers normalise first
    (pre-norm), which trains without warm-up.
    """

    def __init__(self, dim: int, settings: config.TransformerPooling) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            dim, settings.heads, settings.feedforward, settings.dropout, batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(dim)
        self.encoder = nn.TransformerEncoder(layer, settings.layers, norm, enable_nested_tensor=False)

    def forward(self, chunks: Tensor, valid: Tensor) -> Tensor:
        """[B, C, E] and [B, C], True where a chunk is one and not padding (at least one per clip) -> [B, E]."""
        chunks = chunks.masked_fill(~valid[..., None], 0)  # whatever stands in the padding, even NaN
        scaled = functional.normalize(chunks, dim=-1) * math.sqrt(chunks.shape[-1])
        encoded: Tensor = self.encoder(scaled, src_key_padding_mask=~valid)
        encoded = encoded.masked_fill(~valid[..., None], 0)
        return encoded.sum(dim=1) / valid.sum(dim=1, keepdim=True)


def padded(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Chunk embeddings [C, E] of each clip -> zero-padded [B, C, E] and the mask [B, C], True where valid."""
    lengths = torch.tensor([len(clip) for clip in clips], device=clips[0].device)
    chunks = nn.utils.rnn.pad_sequence(list(clips), batch_first=True)
    return chunks, torch.arange(chunks.shape[1], device=lengths.device) < lengths[:, None]
