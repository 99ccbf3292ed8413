"""The rule that draws a batch from a step number, whatever the workers and restarts."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Draw:
    """What one row of a global batch is: which clip or other item, and where a crop starts, as a share of the room."""

    item: int
    start: float


class Sampler:
    """Rows of the global batch of any step, from the seed and the step alone: every epoch a new permutation.

    World size, restarts and the order of calls change nothing, which is what makes a resumed or differently spread
    run the same run.
    """

    def __init__(self, num_items: int, batch_size: int, seed: int) -> None:
        self.num_items, self.batch_size, self.seed = num_items, batch_size, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def draws(self, step: int, rank: int, world_size: int) -> list[Draw]:
        """This rank's equal share of the batch of ``step``."""
        share = self.batch_size // world_size
        starts = np.random.default_rng([self.seed, 1, step]).random(self.batch_size)
        rows = range(rank * share, (rank + 1) * share)
        return [Draw(self._item(step * self.batch_size + row), float(starts[row])) for row in rows]

    def _item(self, position: int) -> int:
        epoch, place = divmod(position, self.num_items)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, 0, epoch]).permutation(self.num_items)
        return int(self._order[place])
