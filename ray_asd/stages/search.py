"""Searching a bank: the whole of it or some of its rows, in this process; and the merging of several parts' answers."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Protocol

import numpy as np

from ray_asd.build import Output
from ray_asd.scoring import knn
from ray_asd.stages import index


@dataclass(frozen=True)
class Found:
    """Cosine distances [Q, k] in ascending order, and the clip_ids they belong to (Q lists of k)."""

    distances: np.ndarray
    clip_ids: list[list[str]]


class Searcher(Protocol):
    """``search`` of vectors [Q, E], each in its group, for the k nearest other than the clip itself."""

    def search(self, vectors: np.ndarray, groups: Sequence[int], clip_ids: Sequence[str], k: int) -> Found: ...


@dataclass(frozen=True)
class Part:
    """Neighbours among some of the bank's rows: distances, rows and clip_ids, all [Q, k]; infinity where fewer are."""

    distances: np.ndarray
    rows: np.ndarray
    clip_ids: np.ndarray


class Rows:
    """Rows ``start`` to ``stop`` of a bank, in memory."""

    def __init__(self, bank: Output, start: int, stop: int, device: int | None = None) -> None:
        summary = bank.marker.summary
        shape = (summary["groups"][-1]["stop"], summary["dim"])
        vectors = np.memmap(bank.fetch(index.VECTORS), np.dtype("<f4"), "r", shape=shape)
        groups = [(group["start"], group["stop"]) for group in summary["groups"]]
        clipped = [(min(max(first, start), stop), max(min(last, stop), start)) for first, last in groups]
        self.bank = knn.Bank(vectors[start:stop], clipped, device=device, first_row=start)
        self._clip_ids = np.array(bank.table(index.CLIPS)["clip_id"][start:stop].to_pylist(), object)
        self._row_of = {clip_id: row for row, clip_id in enumerate(self._clip_ids, start)}
        self._start = start

    def search(self, vectors: np.ndarray, groups: Sequence[int], clip_ids: Sequence[str], k: int) -> Part:
        """As a ``Searcher``, among these rows alone."""
        own = np.array([self._row_of.get(clip_id, -1) for clip_id in clip_ids], np.int64)
        found = self.bank.search(vectors, np.asarray(groups, np.int64), k, own)
        clip_ids_found = self._clip_ids[np.maximum(found.rows - self._start, 0)]
        return Part(found.distances, found.rows, clip_ids_found)


class Here:
    """The whole bank in this process: for queries that are embedded already, and few."""

    def __init__(self, bank: Output) -> None:
        self._rows = Rows(bank, 0, bank.marker.counts["clips"])

    def search(self, vectors: np.ndarray, groups: Sequence[int], clip_ids: Sequence[str], k: int) -> Found:
        return merged([self._rows.search(vectors, groups, clip_ids, k)], k)


def merged(parts: Sequence[Part], k: int) -> Found:
    """The k nearest of all parts, ordered by distance and then by row, which is by clip_id."""
    distances, rows, clip_ids = (np.concatenate(columns, axis=1) for columns in zip(*map(astuple, parts), strict=True))
    order = np.lexsort((rows, distances), axis=-1)[:, :k]
    distances, clip_ids = (np.take_along_axis(values, order, -1) for values in (distances, clip_ids))
    return Found(distances, clip_ids.tolist())
