"""Searching a bank: the whole of it or some of its rows, in this process; and the merging of several parts' answers."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ray_asd.build import Output
from ray_asd.config import Index
from ray_asd.errors import StageError
from ray_asd.scoring import cosine, knn
from ray_asd.scoring.bank import Bank, open_vectors, shard_ranges
from ray_asd.stages.detection import index


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
    """Rows ``start`` to ``stop`` of a bank, in memory.

    Raises StageError for an embedding, of the bank or to be searched for, that has no direction.
    """

    def __init__(self, bank: Output, start: int, stop: int, device: int | None = None) -> None:
        settings, groups = Index(**bank.marker.config), bank.marker.summary["groups"]
        vectors = open_vectors(bank.fetch(index.VECTORS), bank.marker.summary["dim"])[start:stop]
        self._clip_ids = np.array(bank.table(index.CLIPS)["clip_id"][start:stop].to_pylist(), object)
        self._row_of = {clip_id: row for row, clip_id in enumerate(self._clip_ids, start)}
        self._start = start
        with _named(self._clip_ids, start):
            self._bank = Bank(vectors, [(group["start"], group["stop"]) for group in groups], device, start)
        for number, group in enumerate(groups):
            if "file" in group and start <= group["start"] and group["stop"] <= stop:
                self._bank.attach(number, knn.load(bank.fetch(group["file"])), settings.refine)

    def search(self, vectors: np.ndarray, groups: Sequence[int], clip_ids: Sequence[str], k: int) -> Part:
        """As a ``Searcher``, among these rows alone."""
        own = np.array([self._row_of.get(clip_id, -1) for clip_id in clip_ids], np.int64)
        with _named(clip_ids):
            found = self._bank.search(vectors, np.asarray(groups, np.int64), k, own)
        return Part(found.distances, found.rows, self._clip_ids[np.maximum(found.rows - self._start, 0)])


@contextmanager
def _named(clip_ids: Sequence[str] | np.ndarray, start: int = 0) -> Iterator[None]:
    try:
        yield
    except cosine.NoDirection as error:
        raise StageError(f"the embedding of {clip_ids[error.row - start]} is zero or not finite") from error


def bounds(bank: Output, shards: int) -> list[tuple[int, int]]:
    """The rows of each shard. A group with an approximate index is not cut, so there may be fewer."""
    groups = bank.marker.summary["groups"]
    edges = {stop for _, stop in shard_ranges(groups[-1]["stop"], shards)}
    for group in groups:
        if "file" in group:
            edges = {group["stop"] if group["start"] < edge < group["stop"] else edge for edge in edges}
    return list(itertools.pairwise(sorted({0, *edges})))


class Here:
    """The whole bank in this process: for queries that are embedded already, and few."""

    def __init__(self, bank: Output) -> None:
        self._rows = Rows(bank, 0, bank.marker.counts["clips"])

    def search(self, vectors: np.ndarray, groups: Sequence[int], clip_ids: Sequence[str], k: int) -> Found:
        return merged([self._rows.search(vectors, groups, clip_ids, k)], k)


def merged(parts: Sequence[Part], k: int) -> Found:
    """The k nearest of all parts, ordered by distance and then by row, which is by clip_id."""
    columns = zip(*((part.distances, part.rows, part.clip_ids) for part in parts), strict=True)
    distances, rows, clip_ids = (np.concatenate(column, axis=1) for column in columns)
    order = np.lexsort((rows, distances), axis=-1)[:, :k]
    distances, clip_ids = (np.take_along_axis(values, order, -1) for values in (distances, clip_ids))
    return Found(distances, clip_ids.tolist())
