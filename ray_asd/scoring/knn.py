"""Exact cosine k-nearest neighbours whose result depends on the vectors alone: not on batch, order, shard or device.

The distance of two vectors is ``1 - sum(a * b)`` in float64, a and b divided by their own norms in float64 first. faiss
only proposes candidates from float32 inner products. The bound on what float32 can be wrong by tells whether a true
neighbour may lie beyond the candidates; if so, everything within the bound is looked at.

Shapes: N bank clips, Q queries, E embedding values, C candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from ray_asd.errors import StageError, UserError

SPARE_CANDIDATES = 8  # fetched beyond the k neighbours, so that few queries need a second look
MAX_GPU_CANDIDATES = 2048  # more than that, faiss's GPU search refuses
_BLOCK = 2**20  # float64 values held at once per array: bounds memory, never changes a result

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Cosine distances [Q, k] in ascending order, and the bank's clip_ids they belong to (Q lists of k)."""

    distances: Floats
    clip_ids: list[list[str]]


class Bank:
    """The embeddings of healthy clips that new clips are compared with, in order of clip_id."""

    def __init__(self, embeddings: NDArray[np.float32], clip_ids: Sequence[str], device: int | None = None) -> None:
        """A bank of ``embeddings`` (float32 [N, E]) with unique ``clip_ids``.

        ``device`` is the GPU that proposes candidates, where faiss sees one; the result is the same without.

        Raises:
            UserError: a clip_id occurs twice.
            StageError: an embedding is zero or not finite, or there are not as many embeddings as clip_ids.
        """
        vectors = _float32_rows(embeddings, clip_ids)
        order = sorted(range(len(clip_ids)), key=clip_ids.__getitem__)
        self.clip_ids = [clip_ids[row] for row in order]
        for one, next_one in zip(self.clip_ids, self.clip_ids[1:], strict=False):
            if one == next_one:
                raise UserError(f"clip_id {one!r} is in the bank more than once; every clip_id must be unique")
        self._row = {clip_id: row for row, clip_id in enumerate(self.clip_ids)}
        self._vectors = np.ascontiguousarray(vectors[order])
        self._norms = _norms(self._vectors, self.clip_ids)
        faiss.cvar.distance_compute_blas_threshold = 0  # its own products take up to 12 times as long as BLAS
        self._cpu_index = faiss.IndexFlatIP(self.dim)
        for block in _blocks(len(order), self.dim):
            self._cpu_index.add(_normalised(self._vectors[block], self._norms[block]).astype(np.float32))
        self._index: faiss.Index = self._cpu_index
        if device is not None and faiss.get_num_gpus():
            self._index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device, self._cpu_index)

    def __len__(self) -> int:
        """N, the number of clips."""
        return len(self.clip_ids)

    @property
    def dim(self) -> int:
        """E, the number of values of one embedding."""
        return int(self._vectors.shape[1])

    def search(self, queries: NDArray[np.float32], k: int, exclude: Sequence[str] | None = None) -> Neighbours:
        """The k bank clips nearest to each query (float32 [Q, E]), ordered by distance, then clip_id.

        ``exclude`` names the queries: a query whose own clip_id is in the bank is not its own neighbour (leave one
        out); names that the bank does not hold change nothing.

        Raises:
            UserError: the bank holds fewer than k clips besides the query, or embeddings of another size.
            StageError: a query is zero or not finite, or ``exclude`` is not one name per query.
        """
        names = exclude if exclude is not None else [f"query {row}" for row in range(len(queries))]
        vectors = _float32_rows(queries, names)
        if vectors.shape[1] != self.dim:
            raise UserError(f"queries have {vectors.shape[1]} values each, the bank's embeddings {self.dim}")
        own = np.array([-1 if exclude is None else self._row.get(name, -1) for name in names], dtype=np.int64)
        smallest = len(self) - bool((own >= 0).any())
        if not 1 <= k <= smallest:
            raise UserError(f"k={k} neighbours asked of a bank of {smallest} clips; allowed: 1 to {smallest}")
        distances, neighbours = np.empty((len(vectors), k)), np.empty((len(vectors), k), dtype=np.int64)
        norms = _norms(vectors, names)
        for block in _blocks(len(vectors), self.dim):
            units = _normalised(vectors[block], norms[block])
            distances[block], neighbours[block] = self._search(units, k, own[block])
        return Neighbours(distances, [[self.clip_ids[row] for row in found] for found in neighbours])

    def _search(self, units: Floats, k: int, own: Rows) -> tuple[Floats, Rows]:
        """Distances and bank rows, both [Q, k], of normalised queries [Q, E] that are not to find their ``own`` row."""
        count = min(k + SPARE_CANDIDATES, len(self))
        index = self._index if count <= MAX_GPU_CANDIDATES else self._cpu_index
        similarities, candidates = index.search(units.astype(np.float32), count)
        distances = self._distances(units, candidates)
        distances[candidates == own[:, None]] = np.inf
        distances, neighbours = _smallest(distances, candidates, k)
        if count < len(self):
            needed = 1 - distances[:, -1] - _float32_error(self.dim)  # what no unseen neighbour can be below
            for query in np.flatnonzero(similarities[:, -1].astype(np.float64) >= needed):
                one = slice(query, query + 1)
                found = self._within(units[one], needed[query], own[query])
                distances[one], neighbours[one] = _smallest(self._distances(units[one], found), found, k)
        return distances, neighbours

    def _within(self, unit: Floats, similarity: float, own: int) -> Rows:
        """Bank rows [1, C] other than ``own`` whose float32 similarity to one query [1, E] reaches ``similarity``."""
        below = np.nextafter(np.float32(similarity), np.float32(-2))  # faiss keeps what is strictly above
        _, _, found = self._cpu_index.range_search(unit.astype(np.float32), float(below))
        return np.asarray(found[None, found != own])

    def _distances(self, units: Floats, rows: Rows) -> Floats:
        """Cosine distances [Q, C] of normalised queries [Q, E] to bank rows [Q, C]."""
        distances = np.empty(rows.shape)
        for part in _blocks(rows.shape[1], len(rows) * self.dim):
            banked = _normalised(self._vectors[rows[:, part]], self._norms[rows[:, part]])
            # The sum over a contiguous last axis runs in one order, whatever the other axes: BLAS does not promise so.
            distances[:, part] = 1 - np.multiply(units[:, None], banked, order="C").sum(axis=-1)
        return distances


def _float32_error(dim: int) -> float:
    """The most that a float32 inner product of two unit vectors of ``dim`` values differs from the exact one.

    Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: n u / (1 - n u) whatever the order of the sum,
    here with n = dim + 4 (both vectors are rounded too) and u = 2^-23 (rounding or truncating arithmetic).
    """
    total = (dim + 4) * float(np.finfo(np.float32).eps)
    return total / (1 - total)


def _float32_rows(vectors: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float32]:
    array = np.asarray(vectors, dtype=np.float32)
    if array.ndim != 2 or len(array) != len(names):
        raise StageError(f"{len(names)} clip_ids for embeddings of shape {array.shape}; one row per clip is needed")
    return array


def _norms(vectors: NDArray[np.float32], names: Sequence[str]) -> Floats:
    """Euclidean norms [N] of rows [N, E]; no square of a float32 value overflows or vanishes in float64."""
    norms = np.empty(len(vectors))
    for block in _blocks(*vectors.shape):
        norms[block] = np.sqrt(np.square(vectors[block], dtype=np.float64).sum(axis=-1))
    useless = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if len(useless):
        what = "zero" if norms[useless[0]] == 0 else "not finite"
        raise StageError(f"the embedding of {names[useless[0]]!r} is {what}: it has no direction ({len(useless)} such)")
    return norms


def _normalised(vectors: NDArray[np.float32], norms: Floats) -> Floats:
    return vectors / norms[..., None]


def _smallest(distances: Floats, rows: Rows, k: int) -> tuple[Floats, Rows]:
    """The k smallest of each row of [Q, C], by distance and then by bank row, which is the order of clip_id."""
    order = np.lexsort((rows, distances), axis=-1)[:, :k]
    return np.take_along_axis(distances, order, -1), np.take_along_axis(rows, order, -1)


def _blocks(count: int, values_each: int) -> list[slice]:
    size = max(1, _BLOCK // max(1, values_each))
    return [slice(start, start + size) for start in range(0, count, size)]
