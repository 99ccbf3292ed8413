"""What faiss does for the k-NN: it proposes candidates, from all rows or from an approximate index of them.

Distances are not its business: ``bank.Bank`` computes those of the candidates in float64.

Shapes: N rows, Q queries, E values, C candidates per query.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from ray_asd.config import Index
from ray_asd.errors import StageError
from ray_asd.scoring import cosine
from ray_asd.scoring.cosine import Rows, Vectors

MAX_GPU_CANDIDATES = 2048  # more than that, faiss's GPU search refuses
_POINTS_PER_LIST = 64  # drawn to place the centre of a list: faiss asks for 39 at least
_PQ_POINTS = 65_536  # drawn to train product quantisers, 256 centres each
_BLOCK = 2**24  # values added at a time


def use_threads(count: int) -> None:
    """How many threads faiss searches with in this process."""
    faiss.omp_set_num_threads(count)


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
