"""Exact cosine k-nearest neighbours of any number of groups in one bank, however large, in one piece or in shards.

The result depends on the vectors alone: not on batch, order, shard, threads or device. (Where an approximate index
proposes, it depends on that index too; distances stay exact.) faiss only proposes candidates from float32 inner
products, which are wrong by at most e (``cosine.error``). With s the k-th largest of them, k rows have a true one of at
least s - e, so nothing whose float32 one is below s - 2e can be among the k nearest: the rest, a few more than k, is
computed in float64. Where the candidates do not reach that far, everything that may be nearer than the k-th distance
is looked at.

Shapes: N bank rows, Q queries, E values, C candidates per query.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np

from ray_asd.errors import StageError, UserError
from ray_asd.scoring import cosine, knn
from ray_asd.scoring.cosine import Floats, Neighbours, Rows, Vectors, merge, nearest

SPARE_CANDIDATES = 3  # fetched beyond the k neighbours, so that few queries need a second look
_BLOCK = 2**22  # values held at a time: bounds memory, never changes a result


def create_vectors(path: Path, count: int, dim: int) -> np.memmap:
    """A new bank's file of ``count`` rows, one or more, of ``dim`` values: raw little-endian float32, to be filled."""
    return np.memmap(path, dtype="<f4", mode="w+", shape=(count, dim))


def open_vectors(path: Path, dim: int) -> Vectors:
    """The rows [N, E] of a bank's file, one or more, mapped and not read, with E = ``dim``.

    Raises:
        StageError: the file does not hold whole rows of that size.
    """
    size = path.stat().st_size
    if not size or size % (4 * dim):
        raise StageError(f"{path} holds {size} bytes, not a multiple of {4 * dim}: its rows do not have {dim} values")
    return np.asarray(np.memmap(path, dtype="<f4", mode="r").reshape(-1, dim))


def shard_ranges(count: int, shards: int) -> list[tuple[int, int]]:
    """``shards`` ranges of rows, first and one past the last, of sizes that differ by at most one."""
    edges = [count * shard // shards for shard in range(shards + 1)]
    return list(pairwise(edges))


@dataclass(frozen=True, slots=True)
class _Batch:
    """Queries in order of their groups: units [Q, E], groups [Q] and the rows [Q] that are not to be found."""

    units: Floats
    groups: Rows
    own: Rows
    k: int

    def __len__(self) -> int:
        return len(self.units)

    def part(self, queries: Rows) -> Self:
        return replace(self, units=self.units[queries], groups=self.groups[queries], own=self.own[queries])


class Bank:
    """Vectors of healthy clips in groups that are searched apart: the whole bank, or one shard of it.

    Memory: one float32 copy of the vectors, normalised. The vectors themselves are only read, best mapped from a file.
    """

    def __init__(
        self, vectors: Vectors, groups: Sequence[tuple[int, int]], device: int | None = None, first_row: int = 0
    ) -> None:
        """A bank of ``vectors`` (float32 [N, E]), the rows from ``first_row`` on of all rows that there are.

        ``groups`` are ranges of rows, first and one past the last, counted over all rows; parts of them that lie in
        other shards are left to those. ``device`` is the GPU that proposes candidates, where faiss sees one.

        Raises:
            StageError: a vector is zero or not finite (``NoDirection``), or a group is not a range.
        """
        self._vectors = _matrix(vectors, "bank")
        self._first_row = first_row
        for group, (start, stop) in enumerate(groups):
            if not 0 <= start <= stop:
                raise StageError(f"group {group} is no range of rows: {start} to {stop}")
        ranges = np.array(groups, dtype=np.int64).reshape(-1, 2) - first_row
        self._starts, self._stops = ranges.clip(0, len(self._vectors)).T
        self._norms = cosine.norms(self._vectors, "bank row", first_row)
        self._units = cosine.float32_units(self._vectors, self._norms)
        self._on_gpu: dict[int, Any] = knn.on_gpu(map(self._units_of, range(len(groups))), device)
        self._approximate: dict[int, tuple[Any, int]] = {}

    def __len__(self) -> int:
        """N, the number of rows here."""
        return len(self._vectors)

    @property
    def dim(self) -> int:
        """E, the number of values of one vector."""
        return int(self._vectors.shape[1])

    def rows_of(self, group: int) -> Vectors:
        """The vectors of a group that lie here, to build an approximate index of."""
        return self._vectors[self._starts[group] : self._stops[group]]

    def attach(self, group: int, index: Any, refine: int = 1) -> None:
        """Let an approximate index of ``rows_of(group)`` propose the candidates, ``refine`` times k of them or more.

        Raises:
            StageError: it is an index of other rows.
        """
        rows = self.rows_of(group)
        if (index.ntotal, index.d) != rows.shape:
            raise StageError(
                f"the index of group {group} holds {index.ntotal} vectors of {index.d} values, the bank {rows.shape}"
            )
        self._approximate[group] = index, refine

    def search(
        self, queries: Vectors, group_of: Rows, k: int, own: Rows | None = None, exact: bool = False
    ) -> Neighbours:
        """The k rows nearest to each query (float32 [Q, E]) in its group (``group_of`` [Q]), by distance, then row.

        Rows are counted over all rows, and ``own`` [Q] names one per query that is not to be found (-1: none), as for
        clips of the bank itself. ``exact`` leaves the approximate indexes out.

        Raises:
            StageError: a query is zero or not finite (``NoDirection``), has another size than the bank's vectors or an
                unknown group, or there is not one group and one own row per query.
            UserError: k is not positive.
        """
        queries = _matrix(queries, "query")
        group_of, own = self._checked(queries, group_of, k, own)
        norms = cosine.norms(queries, "query")
        order = np.argsort(group_of, kind="stable")
        found = Neighbours(np.empty((len(order), k)), np.empty((len(order), k), dtype=np.int64))
        for block in cosine.blocks(len(order), self.dim, _BLOCK):
            some = order[block]
            batch = _Batch(cosine.units(queries[some], norms[some]), group_of[some], own[some], k)
            part = self._search(batch, exact)
            found.distances[some], found.rows[some] = part.distances, part.rows
        found.rows[found.rows >= 0] += self._first_row
        return found

    def recall(self, group: int, k: int, sample: int = 1000, seed: int = 0) -> float:
        """The share of the true k nearest rows that a search finds, for a random sample of the group's own rows.

        Each row is left out of its own search. A row as near as the k-th, but not among the k nearest, does not count.
        """
        start, stop = int(self._starts[group]), int(self._stops[group])
        drawn = np.random.default_rng(seed).choice(stop - start, min(sample, stop - start), replace=False)
        rows = start + np.sort(drawn)
        groups, own = np.full(len(rows), group), rows + self._first_row
        found, true = (self.search(self._vectors[rows], groups, k, own, exact).rows for exact in (False, True))
        wanted = true >= 0
        hits = (true[:, :, None] == found[:, None, :]).any(axis=2) & wanted
        return float(hits.sum() / wanted.sum()) if wanted.any() else 1.0

    def _checked(self, queries: Vectors, group_of: Rows, k: int, own: Rows | None) -> tuple[Rows, Rows]:
        """``group_of`` [Q], and ``own`` [Q] counted from this bank's first row, any negative number for none."""
        if k < 1:
            raise UserError(f"k={k} neighbours asked for; allowed: 1 or more")
        if queries.shape[1] != self.dim:
            raise StageError(f"queries have {queries.shape[1]} values each, the bank's vectors {self.dim}")
        group_of = np.asarray(group_of, dtype=np.int64)
        own = np.full(len(queries), -1) if own is None else np.asarray(own, dtype=np.int64) - self._first_row
        if group_of.shape != (len(queries),) or own.shape != (len(queries),):
            raise StageError(f"{len(queries)} queries with groups {group_of.shape} and own rows {own.shape}")
        unknown = group_of[(group_of < 0) | (group_of >= len(self._starts))]
        if len(unknown):
            raise StageError(f"unknown group {unknown[0]}; allowed: 0 to {len(self._starts) - 1}")
        return group_of, own

    def _search(self, batch: _Batch, exact: bool) -> Neighbours:
        similarities, rows, reached, bound = self._candidates(batch, exact)
        similarities[rows == batch.own[:, None]] = -np.inf
        worth = np.sort(similarities, axis=1)[:, -batch.k, None] - 2 * bound[:, None]
        queries, columns = np.nonzero((similarities >= worth) & (similarities > -np.inf))
        found = self._nearest(batch, queries, rows[queries, columns])
        missed = 1 - found.distances[:, -1] - bound  # below this, no row that was not proposed can be nearer
        unsure = np.flatnonzero((reached >= missed) & (reached > -np.inf))
        for start, stop in _runs(batch.groups[unsure]):
            some = unsure[start:stop]
            better = self._second_look(batch.part(some), found.distances[some, -1])
            found.distances[some], found.rows[some] = better.distances, better.rows
        return found

    def _candidates(self, batch: _Batch, exact: bool) -> tuple[Vectors, Rows, Floats, Floats]:
        """Similarities and rows [Q, C], what no other row's similarity exceeds and their error, both [Q].

        An approximate index's similarities tell nothing: their error is infinite, and no other row is asked for.
        """
        indexes = {} if exact else self._approximate
        few = batch.k + 1 + SPARE_CANDIDATES  # its own row among them
        on_gpu = self._on_gpu if few <= knn.MAX_GPU_CANDIDATES else {}
        width = max([few, *(refine * batch.k for _, refine in indexes.values())])
        similarities = np.full((len(batch), width), -np.inf, dtype=np.float32)
        rows = np.full((len(batch), width), -1, dtype=np.int64)
        reached, bound = np.full(len(batch), -np.inf), np.full(len(batch), cosine.error(self.dim, np.float32))
        units = batch.units.astype(np.float32)
        for start, stop in _runs(batch.groups):
            group = int(batch.groups[start])
            bank = self._units_of(group)
            index, refine = indexes.get(group, (on_gpu.get(group), 0))
            count = min(max(few, refine * batch.k), len(bank))
            if not count:
                continue
            found, places = knn.propose(bank, units[start:stop], count, index)
            similarities[start:stop, :count] = found
            rows[start:stop, :count] = places + self._starts[group]
            if refine:
                bound[start:stop] = np.inf
            elif count < len(bank):
                reached[start:stop] = found[:, -1]
        return similarities, rows, reached, bound

    def _second_look(self, batch: _Batch, distance: Floats) -> Neighbours:
        """The k nearest for queries of one group whose k-th distance [Q] is known to be at most ``distance``.

        Float32 first drops the rows that are too far from all queries, then float64 products those too far from each:
        distances that lie close together cost two products, not one distance of each pair.
        """
        bound, fine = (cosine.error(self.dim, dtype) for dtype in (np.float32, np.float64))
        units = batch.units.astype(np.float32)
        needed = np.nextafter((1 - distance - bound).astype(np.float32), np.float32(-3))[:, None]
        parts = [Neighbours(np.empty((len(batch), 0)), np.empty((len(batch), 0), dtype=np.int64))]
        for block in self._row_blocks(int(batch.groups[0]), max(self.dim, len(batch))):
            rows = block.start + np.flatnonzero((units @ self._units[block].T >= needed).any(axis=0))
            products = batch.units @ cosine.units(self._vectors[rows], self._norms[rows]).T
            queries, columns = np.nonzero(products >= (1 - distance - fine)[:, None])
            others = rows[columns] != batch.own[queries]
            parts.append(self._nearest(batch, queries[others], rows[columns[others]]))
        return merge(parts, batch.k)

    def _nearest(self, batch: _Batch, queries: Rows, rows: Rows) -> Neighbours:
        distances = cosine.distances(batch.units, queries, self._vectors, self._norms, rows)
        return nearest(queries, rows, distances, len(batch), batch.k)

    def _units_of(self, group: int) -> Vectors:
        return self._units[self._starts[group] : self._stops[group]]

    def _row_blocks(self, group: int, values_each: int) -> list[slice]:
        start, stop = int(self._starts[group]), int(self._stops[group])
        parts = cosine.blocks(stop - start, values_each, _BLOCK)
        return [slice(start + part.start, start + part.stop) for part in parts]


def _matrix(vectors: Vectors, what: str) -> Vectors:
    array = np.asarray(vectors, dtype=np.float32)
    if array.ndim != 2:
        raise StageError(f"{what} vectors of shape {array.shape}; rows of equal size are needed")
    return array


def _runs(groups: Rows) -> list[tuple[int, int]]:
    """First and one past the last position of each run of equal values."""
    edges = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(groups)]
    return [(start, stop) for start, stop in pairwise(edges) if start < stop]
