"""Waveform to embedding: backbone, weighted sum, pooling over time and projection, applied to crops and whole clips.

A system trained on resampled clips hears each crop and each window through a low-pass first.

Shapes: B batch, T samples at 16 kHz, F frames, H hidden size, L layers, C chunks of a clip, E embedding size.
"""

import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_asd.config import SAMPLE_RATE, Embedding, Recipe
from ray_asd.errors import UserError
from ray_asd.models import backbones
from ray_asd.models.backbones import SpeechBackbone
from ray_asd.models.checkpoints import Checkpoint
from ray_asd.models.low_pass import LowPass
from ray_asd.models.packed import Packed, pack
from ray_asd.models.passes import Passes, alone
from ray_asd.models.pooling import POOLINGS, TransformerPooling, padded
from ray_asd.models.seeding import seeded
from ray_asd.models.sizes import Sizes

BATCH_SECONDS = 64.0  # of audio in one forward pass when embedding; another one is another result, to the last bit


class WeightedSum(nn.Module):
    """WS: sum of all L + 1 hidden states, each with one learned weight and no softmax; starts as their mean."""

    def __init__(self, num_states: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.full((num_states,), 1 / num_states))

    def forward(self, states: Iterable[Tensor]) -> Tensor:
        """L + 1 times [B, F, H] -> [B, F, H], in float32."""
        total = self.weights.new_zeros(())
        for weight, state in zip(self.weights, states, strict=True):  # a stack would hold all states twice
            total = torch.addcmul(total, state.float(), weight)
        return total


class Embedder(nn.Module):
    """One chunk of waveform to one embedding. All of it is trained, as the paper does, unless the recipe freezes.

    Of a backbone that nobody trains the pooled states are the embedding: a random projection would only blur them.
    """

    def __init__(
        self,
        backbone: SpeechBackbone,
        embedding: Embedding,
        weighted_sum: bool,
        low_pass: LowPass | None = None,
        is_trained: bool = True,
    ) -> None:
        super().__init__()
        self.low_pass = low_pass
        self.backbone: SpeechBackbone | Packed = backbone
        self.weighted_sum = WeightedSum(backbone.num_layers + 1) if weighted_sum else None
        self.pooling = POOLINGS[embedding.pooling](backbone.hidden_size)
        width: int = self.pooling.output_size  # type: ignore[assignment]
        self.projection: nn.Module = nn.Linear(width, embedding.dim) if is_trained else nn.Identity()

    def forward(self, chunks: Tensor) -> Tensor:
        """[B, T], normalised by clip where ``backbone.normalize`` -> [B, E], of any length."""
        return self.pooled(self.states(chunks))

    def states(self, chunks: Tensor) -> Tensor:
        """[B, T] -> [B, F, H] in float32: the weighted sum of all hidden states, or the last one."""
        heard = self.low_pass(chunks) if self.low_pass else chunks
        return self.weighted_sum(self.backbone(heard)) if self.weighted_sum else self.backbone.last(heard).float()

    def pooled(self, states: Tensor) -> Tensor:
        """[B, F, H] -> [B, E]."""
        embedding: Tensor = self.projection(self.pooling(states))
        return embedding


@dataclass(frozen=True, slots=True)
class Chunking:
    """How a clip is cut before it is embedded, both in samples."""

    window: int
    hop: int

    @classmethod
    def of_seconds(cls, window: float, hop: float) -> "Chunking":
        """Windows of so many seconds, rounded to samples."""
        return cls(max(1, round(window * SAMPLE_RATE)), max(1, round(hop * SAMPLE_RATE)))


WHOLE = Chunking(sys.maxsize, sys.maxsize)
"""The whole clip as its only chunk."""


class ClipEmbedder(nn.Module):
    """A recording of any length to one embedding of length 1: what is saved, released and scored with.

    Without transformer pooling (TFP) it is the mean of the chunk embeddings, each brought to length 1, over windows or
    over the whole clip at once, as the recipe's ``inference`` says. With it, windows and hop are the TFP's own.

    Attributes:
        batch_seconds: of audio in one forward pass of windows, where a window's place in it changes nothing. In bf16 it
            may change the last bits.
    """

    def __init__(self, embedder: Embedder, pooling: TransformerPooling | None, recipe: Recipe) -> None:
        super().__init__()
        self.embedder = embedder
        self.pooling = pooling
        self.recipe = recipe
        self.batch_seconds = BATCH_SECONDS
        self._sizes: Sizes | None = None

    def pack(self) -> None:
        """Lay the backbone out for inference alone: on its device, as fast as the recipe's precision and it allow.

        It cannot be trained or saved afterwards. All that stands on the backbone stays in float32.
        """
        assert isinstance(self.embedder.backbone, SpeechBackbone), "packed already"
        self.embedder.backbone = pack(self.embedder.backbone, self.recipe.inference.precision)
        self._sizes = Sizes(self._forward)

    @property
    def chunking(self) -> Chunking:
        """How this system cuts a clip."""
        pooling, inference = self.recipe.transformer_pooling, self.recipe.inference
        if pooling:
            return Chunking.of_seconds(pooling.window_seconds, pooling.hop_seconds)
        if inference.mode == "whole":
            return WHOLE
        return Chunking.of_seconds(inference.window_seconds, inference.hop_seconds)

    def embed(self, waveforms: Iterable[np.ndarray]) -> np.ndarray:
        """Raw clips, each float32 [T] of its own length -> float32 [len, E], rows of length 1.

        A row depends on its clip alone, to the last bit on a CPU. The module is left in evaluation mode.

        Raises:
            UserError: a clip is too short for the backbone.
        """
        rows = list(self.embed_stream(waveforms))
        return np.stack(rows) if rows else np.empty((0, self.recipe.embedding.dim), np.float32)

    def embed_stream(self, waveforms: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The rows of ``embed`` one by one, in order; ``waveforms`` is read no further than full passes need.

        Raises:
            UserError: a clip is too short for the backbone; rows before it may not have been handed out.
        """
        return (self._pooled(chunks) for chunks in self._chunk_embeddings(waveforms, self.chunking))

    def embed_chunks(self, waveforms: Iterable[np.ndarray], chunking: Chunking) -> list[np.ndarray]:
        """Raw clips -> chunk embeddings of each, float32 [C, E] of any length: what transformer pooling trains on.

        Raises:
            UserError: a clip or a window is too short for the backbone.
        """
        return [clip.numpy() for clip in self._chunk_embeddings(waveforms, chunking)]

    def _chunk_embeddings(self, waveforms: Iterable[np.ndarray], chunking: Chunking) -> Iterator[Tensor]:
        self.eval()
        samples = int(self.batch_seconds * SAMPLE_RATE)
        size, alike = max(1, samples // chunking.window), alone
        if self._device.type == "cpu":  # a GPU's last bits are nobody's
            # A backbone that is not packed is never trusted: transformers' WavLM takes the sigmoids of a whole pass at
            # once, and torch gives the last few values of a tensor other bits, too rarely for a few tries to show it.
            if size > 1 and not (self._sizes and self._sizes.is_place_free(chunking.window, size)):
                size = 1
            if self._sizes:
                alike = partial(self._sizes.alike, samples=samples)
        passes = Passes(self._forward, chunking.window, size, self._device, alike)
        return passes.clips(windows(self._prepared(waveform), chunking) for waveform in waveforms)

    def _prepared(self, waveform: np.ndarray) -> Tensor:
        signal = torch.tensor(waveform, dtype=torch.float32)
        return normalise(signal) if self.embedder.backbone.normalize else signal

    def _forward(self, chunks: Tensor) -> Tensor:
        """[B, T] -> [B, E]."""
        length, shortest = chunks.shape[1], self.embedder.backbone.min_samples
        if length < shortest:
            raise UserError(f"a clip or window of {length} samples is too short; the backbone needs {shortest} or more")
        states = self.embedder.states(chunks)
        if states.is_cuda:
            return self.embedder.pooled(states)
        return torch.cat(
            [self.embedder.pooled(state) for state in torch.split(states, 1)]
        )  # a row's place changes nothing

    @torch.inference_mode()
    def _pooled(self, chunks: Tensor) -> np.ndarray:
        """Chunk embeddings [C, E] of one clip -> [E]."""
        if self.pooling is None:
            clip = functional.normalize(chunks, dim=-1).mean(dim=0)
        else:
            clip = self.pooling(*padded([chunks.to(self._device)]))[0].float().cpu()
        return np.asarray(functional.normalize(clip, dim=-1).numpy())

    @property
    def _device(self) -> torch.device:
        return self.embedder.backbone.device


def build(recipe: Recipe, checkpoint: Checkpoint) -> ClipEmbedder:
    """A system before training: the checkpoint's weights, everything else drawn from the recipe's seed.

    Raises:
        UserError: the checkpoint cannot be loaded.
    """
    return assemble(recipe, backbones.load(checkpoint, recipe.backbone))


def assemble(recipe: Recipe, backbone: SpeechBackbone) -> ClipEmbedder:
    """``backbone`` and the parts that ``recipe`` puts on it, these with random weights drawn from its seed."""
    settings = recipe.transformer_pooling
    with seeded(recipe.seed):
        low_pass = LowPass.against(recipe.augmentation)
        weighted_sum = recipe.backbone.weighted_sum
        embedder = Embedder(backbone, recipe.embedding, weighted_sum, low_pass, recipe.is_trained)
        pooling = TransformerPooling(recipe.embedding.dim, settings) if settings else None
    return ClipEmbedder(embedder, pooling, recipe)


def normalise(waveform: Tensor) -> Tensor:
    """[..., T] to zero mean and unit variance, as transformers' feature extractors do: population variance + 1e-7."""
    variance, mean = torch.var_mean(waveform, dim=-1, correction=0, keepdim=True)
    return (waveform - mean) / (variance + 1e-7).sqrt()


def windows(waveform: Tensor, chunking: Chunking) -> list[Tensor]:
    """[T] -> views [window] at every hop; the last one ends with the clip and nothing is ever padded.

    A clip that is shorter than a window is one chunk of its own length.
    """
    total = len(waveform)
    if total <= chunking.window:
        return [waveform]
    last = total - chunking.window
    starts = [min(index * chunking.hop, last) for index in range(math.ceil(last / chunking.hop) + 1)]
    return [waveform[start : start + chunking.window] for start in starts]
