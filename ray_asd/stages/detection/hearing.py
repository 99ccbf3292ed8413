"""Clips in, what a model says of each out: an embedding, or the score of a baseline that needs no bank.

A clip whose recording is gone, changed, damaged or without the channel is told apart, and holds up no other.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ray_asd.data.recordings import Unheard, heard
from ray_asd.errors import UserError
from ray_asd.stages.training.usage import Used, embedding

_WHERE = ["clip_id", "machine_type", "section", "condition", "uri", "content_hash", "pack", "pack_row"]
_WHERE += ["channels", "dead_channels"]  # of CLIPS that tell of the latter


@dataclass(frozen=True)
class Heard:
    """Of some rows of CLIPS: positions of those that were heard [n], what the model says of these (float32 [n, E], or
    float64 [n, 1] scores), and why the others were not, by position."""

    positions: np.ndarray
    values: np.ndarray
    unheard: dict[int, Unheard] = field(default_factory=dict)


class Model:
    """The model of a worker, which computes while the recordings that follow are decoded."""

    def __init__(self, used: Used) -> None:
        self._channel = used.audio.channel
        self._threads = max(1, round(used.usage.resources.embed.cpus))
        self._embed = embedding(used) if used.has_bank else None
        self._score: Any = None
        if not used.has_bank:
            from ray_asd.stages.detection import baselines

            self._score = baselines.load(used)

    def __call__(self, clips: pa.Table) -> Heard:
        """CLIPS rows -> what is said of each."""
        rows = clips.select([name for name in _WHERE if name in clips.column_names]).to_pylist()
        unheard: dict[int, Unheard] = {}
        positions: list[int] = []

        def waves() -> Iterator[np.ndarray]:
            for position, wave in enumerate(heard(rows, self._channel, self._threads)):
                if isinstance(wave, Unheard):
                    unheard[position] = wave
                else:
                    positions.append(position)
                    yield wave

        found = self._embeddings(waves()) if self._embed else self._scores(waves(), rows, positions)
        said = dict(zip(positions, found, strict=True))
        unheard |= {position: value for position, value in said.items() if isinstance(value, Unheard)}
        usable = {position: value for position, value in said.items() if position not in unheard}
        values = np.stack(list(usable.values())) if usable else np.empty((0, 1))
        return Heard(np.array(list(usable), np.int64), values, unheard)

    def _embeddings(self, waves: Iterator[np.ndarray]) -> list[Any]:
        assert self._embed is not None
        useless = Unheard("no_vector", "its embedding is zero or not finite")
        return [
            vector if np.isfinite(vector).all() and vector.any() else useless
            for vector in map(np.asarray, self._embed(waves))
        ]

    def _scores(self, waves: Iterator[np.ndarray], rows: list[dict[str, Any]], positions: list[int]) -> list[Any]:
        """``positions`` ends with that of the waveform taken last."""
        from ray_asd.stages.detection.baselines import NeverTrained

        found: list[Any] = []
        for wave in waves:
            try:
                score = np.array([self._score(wave, rows[positions[-1]])])
                found.append(score if np.isfinite(score).all() else Unheard("no_vector", "its score is not finite"))
            except NeverTrained as error:
                found.append(Unheard("no_bank", str(error)))
            except UserError as error:  # covariances of its machine type that have no inverse
                found.append(Unheard("no_vector", str(error)))
        return found
