"""Forward passes of one fixed size over the chunks of many clips, so that an embedding depends on its own chunk alone.

Matrix libraries choose how they add up by the number of rows, not by where a row stands: in bf16 a chunk's hidden
states differ in the last bit between passes of 8 and of 16 windows, and never with its place in either (measured on
oneDNN, all families, tiny and base). Hence passes of whole windows always hold the same number of them, the last one
filled up with repetitions, and a chunk of any other length is a pass of its own, or gives the bits of one.

Shapes: B chunks of a pass, T samples of a chunk, C chunks of a clip, E embedding size.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_WAITING = 1024  # clips that may wait for the one before them


@dataclass(eq=False)
class _Clip:
    """The embeddings [E] of its chunks, None where still to come."""

    rows: list[Tensor | None]

    @property
    def complete(self) -> bool:
        return all(row is not None for row in self.rows)


@dataclass(frozen=True)
class _Chunk:
    samples: Tensor
    clip: _Clip
    place: int


@dataclass(frozen=True)
class _Pass:
    """One that a GPU may still be working on; ``done`` tells when its embeddings [B, E] have reached the CPU."""

    chunks: Sequence[_Chunk]
    embeddings: Tensor
    done: "torch.cuda.Event | None"


def alone(length: int) -> int:
    """No chunks of this length go through a pass together."""
    return 1


class Passes:
    """Chunks to embeddings by ``embed``, [B, T] -> [B, E] on ``device``: ``size`` chunks of ``window`` samples at once,
    and as many as ``alike`` says of any other length, where as many are at hand.

    On a GPU a pass is copied there while the one before is computed, and its results are fetched one pass late.
    """

    def __init__(
        self,
        embed: Callable[[Tensor], Tensor],
        window: int,
        size: int,
        device: torch.device,
        alike: Callable[[int], int] = alone,
    ) -> None:
        self._embed, self._window, self._size, self._device, self._alike = embed, window, size, device, alike
        self._pending: defaultdict[int, list[_Chunk]] = defaultdict(list)  # by length, fewer than a pass
        self._launched: deque[_Pass] = deque()
        self._clips: deque[_Clip] = deque()  # in order; the first one is not handed out yet

    def clips(self, cut: Iterable[Sequence[Tensor]]) -> Iterator[Tensor]:
        """Chunks [T] of one clip after the other -> float32 [C, E] of each on the CPU, in order.

        ``cut`` is read as far as a full pass needs.
        """
        for chunks in cut:
            clip = _Clip([None] * len(chunks))
            self._clips.append(clip)
            for place, samples in enumerate(chunks):
                self._take(_Chunk(samples, clip, place))
            if len(self._clips) > _WAITING:
                self._flush()
            yield from self._finished()
        self._flush()
        yield from self._finished()

    def _take(self, chunk: _Chunk) -> None:
        length = len(chunk.samples)
        size = self._size if length == self._window else self._alike(length)
        self._pending[length].append(chunk)
        if len(self._pending[length]) >= size:
            self._launch(self._pending.pop(length), size)

    def _flush(self) -> None:
        for length, chunks in self._pending.items():
            size = self._size if length == self._window else 1
            for first in range(0, len(chunks), size):
                self._launch(chunks[first : first + size], size)
        self._pending.clear()
        self._settle(running=0)

    @torch.inference_mode()
    def _launch(self, chunks: Sequence[_Chunk], size: int) -> None:
        batch = torch.stack([chunks[row % len(chunks)].samples for row in range(size)])
        if self._device.type != "cuda":
            self._launched.append(_Pass(chunks, self._embed(batch.to(self._device)).cpu(), None))
            self._settle(running=0)
            return
        made = self._embed(batch.pin_memory().to(self._device, non_blocking=True))
        fetched = torch.empty(made.shape, dtype=made.dtype, pin_memory=True).copy_(made, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()  # type: ignore[no-untyped-call]
        self._launched.append(_Pass(chunks, fetched, done))
        self._settle(running=1)

    def _settle(self, running: int) -> None:
        """Hand the embeddings of all but the newest ``running`` passes to their clips."""
        while len(self._launched) > running:
            oldest = self._launched.popleft()
            if oldest.done:
                oldest.done.synchronize()  # type: ignore[no-untyped-call]
            for chunk, row in zip(oldest.chunks, oldest.embeddings, strict=False):  # what filled the pass has no clip
                chunk.clip.rows[chunk.place] = row

    def _finished(self) -> Iterator[Tensor]:
        while self._clips and self._clips[0].complete:
            yield torch.stack([row for row in self._clips.popleft().rows if row is not None])
