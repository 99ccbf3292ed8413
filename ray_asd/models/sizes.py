"""How many chunks may go through a forward pass together without changing a bit of what each alone would give.

That depends on the processor and on the layout: matrix libraries choose how they add up by the number of rows, and some
give the last rows of a tile other bits. So it is tried, with noise, which shows it in any of a pass's many values.
"""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

_TRIED = 3  # chunks of noise
_MOST_ALIKE = 16  # chunks that are no windows: nothing is gained beyond
_WORTH_TRYING = 8 * _MOST_ALIKE  # chunks of a length, or the trial costs more than it can save


class Sizes:
    """Tries ``embed``, [B, T] -> [B, E], once for each length, size and number of threads."""

    def __init__(self, embed: Callable[[Tensor], Tensor]) -> None:
        self._embed = embed
        self._same: dict[tuple[int, int, int, bool], bool] = {}
        self._came: Counter[int] = Counter()

    def is_place_free(self, length: int, size: int) -> bool:
        """Whether chunks of ``length`` samples give the same bits in every place of a pass of ``size``."""
        return self._tried(length, size, alone=False)

    def alike(self, length: int, samples: int) -> int:
        """How many chunks of ``length``, of which one more has come, give the same bits in a pass of at most so many
        samples as in passes of their own: 1 until enough have come to find out."""
        self._came[length] += 1
        size = min(_MOST_ALIKE, samples // length)
        worth = size > 1 and self._came[length] > _WORTH_TRYING
        return size if worth and self._tried(length, size, alone=True) else 1

    @torch.inference_mode()
    def _tried(self, length: int, size: int, alone: bool) -> bool:
        key = length, size, torch.get_num_threads(), alone
        if key not in self._same:
            same = True
            for chunk in torch.randn(_TRIED, 1, length, generator=torch.Generator().manual_seed(0)):
                rows = self._embed(chunk.expand(size, -1).contiguous())
                expected = self._embed(chunk) if alone else rows[:1]
                same = same and bool((rows == expected).all())
            self._same[key] = same
        return self._same[key]
