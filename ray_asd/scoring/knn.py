"""What faiss does for the k-NN: it proposes candidates, from all rows or from an approximate index of them.

Distances are not its business: ``bank.Bank`` computes those of the candidates in float64.

Shapes: N rows, Q queries, E values, C candidates per query.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from ray_asd.config import Index
from ray_asd.errors import StageError, UserError
from ray_asd.scoring import cosine
from ray_asd.scoring.cosine import Rows, Vectors

MAX_GPU_CANDIDATES = 2048  # more than that, faiss's GPU search refuses
_POINTS_PER_LIST = 64  # drawn to place the centre of a list: faiss asks for 39 at least
_PQ_POINTS = 65_536  # drawn to train product quantisers, 256 centres each
_BLOCK = 2**24  # values added at a time


def on_gpu(groups: Iterable[Vectors], device: int | None) -> dict[int, Any]:
    """An index on the GPU ``device`` of the rows [N, E] of each group that has any; none where faiss sees no GPU."""
    if device is None or not faiss.get_num_gpus():
        return {}
    resources = faiss.StandardGpuResources()
    settings = faiss.GpuIndexFlatConfig()
    settings.device = device
    indexes: dict[int, Any] = {}
    for group, units in enumerate(groups):
        if len(units):
            indexes[group] = faiss.GpuIndexFlatIP(resources, units.shape[1], settings)
            indexes[group].add(units)
    return indexes


def propose(units: Vectors, queries: Vectors, count: int, index: Any = None) -> tuple[Vectors, Rows]:
    """Similarities [Q, C], descending, and rows [Q, C] of the ``count`` likeliest neighbours of queries [Q, E].

    ``index`` holds ``units`` (float32 [N, E], normalised): on the GPU, or approximately. It may be missing.
    """
    faiss.cvar.distance_compute_blas_threshold = 0  # its own products take up to 12 times as long as BLAS
    if index is None:
        return _nearest(units, queries, count)
    similarities, rows = index.search(queries, count)
    short = rows[:, -1] < 0  # an approximate index that looked at too few rows
    if short.any():
        similarities[short], rows[short] = _nearest(units, queries[short], count)
    return similarities, rows


def _nearest(units: Vectors, queries: Vectors, count: int) -> tuple[Vectors, Rows]:
    similarities, rows = faiss.knn(queries, units, count, metric=faiss.METRIC_INNER_PRODUCT)
    return similarities, rows


def build_approximate(vectors: Vectors, settings: Index, seed: int = 0) -> Any:
    """An approximate index of ``settings.kind`` of rows [N, E], two or more.

    The same for the same seed and number of faiss threads, except that HNSW links rows in the order that its threads
    come by: with one thread it is the same as well.

    Raises:
        StageError: the kind is exact, or ``pq_parts`` does not divide E.
    """
    count, dim = vectors.shape
    index: Any
    if settings.kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, settings.hnsw_links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = settings.hnsw_construction
    elif settings.kind in ("ivf", "pq"):
        index = _inverted(count, dim, settings, seed)
        index.train(_sample(vectors, max(_POINTS_PER_LIST * index.nlist, _PQ_POINTS), seed))
    else:
        raise StageError(f"no approximate index is of kind {settings.kind!r}; allowed: ivf, hnsw, pq")
    for block in cosine.blocks(count, dim, _BLOCK):
        index.add(_unit(vectors[block]))
    tune(index, settings)
    return index


def _inverted(count: int, dim: int, settings: Index, seed: int) -> Any:
    lists = min(count, settings.lists or max(1, min(round(4 * count**0.5), count // _POINTS_PER_LIST)))
    centres = faiss.IndexFlatIP(dim)
    index: Any
    if settings.kind == "ivf":
        index = faiss.IndexIVFFlat(centres, dim, lists, faiss.METRIC_INNER_PRODUCT)
    else:
        parts = settings.pq_parts or next(parts for parts in range(max(1, dim // 8), 0, -1) if dim % parts == 0)
        if dim % parts:
            raise StageError(f"pq_parts={parts} does not divide vectors of {dim} values")
        bits = max(1, min(8, count.bit_length() - 1))  # no more centres than rows
        index = faiss.IndexIVFPQ(centres, dim, lists, parts, bits, faiss.METRIC_INNER_PRODUCT)
        index.pq.cp.seed = seed
    index.cp.seed = seed
    index.cp.spherical = True
    index.cp.max_points_per_centroid = _POINTS_PER_LIST
    return index


def tune(index: Any, settings: Index) -> None:
    """Set how far an index searches, which needs no new one: ``probes`` of its lists, or ``hnsw_search`` rows."""
    if isinstance(index, faiss.IndexIVF):
        index.nprobe = min(index.nlist, settings.probes or max(1, index.nlist // 16))
    else:
        index.hnsw.efSearch = settings.hnsw_search


def save(index: Any, path: Path) -> None:
    """Write an approximate index to a local file."""
    faiss.write_index(index, str(path))


def load(path: Path) -> Any:
    """Read an approximate index from a local file.

    Raises:
        StageError: there is none, or the file holds something else.
    """
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise StageError(f"{path} holds no faiss index: {str(error).splitlines()[-1]}") from error


def _sample(vectors: Vectors, count: int, seed: int) -> Vectors:
    if len(vectors) <= count:
        return _unit(vectors)
    rows = np.random.default_rng(seed).choice(len(vectors), count, replace=False)
    return _unit(vectors[np.sort(rows)])


def _unit(vectors: Vectors) -> Vectors:
    return cosine.float32_units(vectors, cosine.norms(vectors, "bank row"))


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Cosine distances [Q, k] in ascending order, and the bank's clip_ids they belong to (Q lists of k)."""

    distances: cosine.Floats
    clip_ids: list[list[str]]


class Bank:
    """One group of clips with names, in order of clip_id: ``bank.Bank`` for who has no rows yet."""

    def __init__(self, embeddings: Vectors, clip_ids: Sequence[str]) -> None:
        from ray_asd.scoring import bank  # that module imports this one

        if len(embeddings) != len(clip_ids):
            raise StageError(f"{len(clip_ids)} clip_ids for embeddings of shape {embeddings.shape}")
        order = sorted(range(len(clip_ids)), key=clip_ids.__getitem__)
        self.clip_ids = [clip_ids[row] for row in order]
        self._row = {clip_id: row for row, clip_id in enumerate(self.clip_ids)}
        self._bank = bank.Bank(np.asarray(embeddings, dtype=np.float32)[order], [(0, len(order))])

    def search(self, queries: Vectors, k: int, exclude: Sequence[str] | None = None) -> Neighbours:
        """The k clips nearest to each query [Q, E]; ``exclude`` names the queries, which do not find themselves."""
        own = np.array([self._row.get(name, -1) for name in exclude]) if exclude is not None else None
        smallest = len(self.clip_ids) - bool(own is not None and (own >= 0).any())
        if k > smallest:
            raise UserError(f"k={k} neighbours asked of a bank of {smallest} clips; allowed: 1 to {smallest}")
        found = self._bank.search(queries, np.zeros(len(queries), dtype=np.int64), k, own)
        return Neighbours(found.distances, [[self.clip_ids[row] for row in rows] for rows in found.rows])
