"""Exact nearest points by distance, or by distance relative to how dense the points lie around each.

A product in float64 bounds every distance; whatever the bounds cannot exclude is computed pair by pair. So an answer
does not depend on the other queries, their order or threads; equal values are ordered by row.

N points, Q queries, E values, k neighbours, K neighbours that a density is taken from.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ray_asd.scoring.cosine import Floats, Rows, blocks

Metric = Literal["cosine", "euclidean"]
Density = Literal["none", "ratio", "difference"]

_BLOCK = 2**23  # values of a product held at a time: bounds memory, never changes a result
_SAFETY = 4  # times the bound on rounding of a product


@dataclass(frozen=True)
class Near:
    """The k smallest values [Q, k] in ascending order and their rows; where there are fewer: infinity, row -1."""

    values: Floats
    rows: Rows


@dataclass(frozen=True)
class Surroundings:
    """How dense points lie: the K + 1 nearest others of each, distances and rows [N, K + 1].

    One more than counts, so that a point which is left out can be replaced. The density of points that equal all their
    neighbours (up to ``rounding``) is not zero but ``least``: the smallest other one of all, or 1 where there is none.
    """

    distances: Floats
    rows: Rows
    rounding: float
    least: float

    @classmethod
    def of(cls, distances: Floats, rows: Rows, metric: Metric, dim: int) -> "Surroundings":
        """What distances [N, K + 1] of points of ``dim`` values tell."""
        rounding = _SAFETY * (dim + 4) * float(np.finfo(np.float64).eps) if metric == "cosine" else 0.0
        means = distances[:, :-1].mean(axis=1)
        positive = means[means > rounding]
        return cls(distances, rows, rounding, float(positive.min()) if len(positive) else 1.0)

    @cached_property
    def means(self) -> Floats:
        """rho [N]: the mean distance to the K nearest others."""
        return self._bounded(self.distances[:, :-1].mean(axis=1))

    @cached_property
    def _touched(self) -> tuple[Rows, Rows]:
        """Points in order of the neighbour (one of K) that they have, and these neighbours."""
        neighbours = self.rows[:, :-1].ravel()
        order = np.argsort(neighbours, kind="stable")
        return order // (self.rows.shape[1] - 1), neighbours[order]

    def without(self, row: int) -> tuple[Rows, Floats]:
        """The points whose density depends on the one left out, and what it is without."""
        points, neighbours = self._touched
        first, last = np.searchsorted(neighbours, [row, row + 1])
        touched = points[first:last]
        others = np.where(self.rows[touched] == row, np.nan, self.distances[touched])
        return touched, self._bounded(np.nanmean(others, axis=1))

    def _bounded(self, means: Floats) -> Floats:
        return np.where(means > self.rounding, means, self.least)


@dataclass(frozen=True)
class Points:
    """Points [N, E], of unit length where the metric is the cosine's, and their surroundings where these count."""

    points: Floats
    metric: Metric
    density: Density = "none"
    surroundings: Surroundings | None = None

    def __len__(self) -> int:
        return len(self.points)

    def nearest(self, queries: Floats, k: int, own: Rows) -> Near:
        """The k nearest to each of ``queries`` [Q, E]; ``own`` [Q] is left out as if it were not there (-1: none)."""
        found = Near(np.full((len(queries), k), np.inf), np.full((len(queries), k), -1))
        for block in blocks(len(queries), len(self.points), _BLOCK):
            self._search(queries[block], k, own[block], found.values[block], found.rows[block])
        return found

    def surrounded(self, neighbours: int) -> Surroundings:
        """What lies around each point, for densities of so many neighbours."""
        near = Points(self.points, self.metric).nearest(self.points, neighbours + 1, np.arange(len(self.points)))
        return Surroundings.of(near.values, near.rows, self.metric, self.points.shape[1])

    def _search(self, queries: Floats, k: int, own: Rows, values: Floats, rows: Rows) -> None:
        densities = self._densities(own)
        low, high = (self._relative(bound, densities) for bound in self._bounds(queries))
        left_out = np.flatnonzero(own >= 0)
        low[left_out, own[left_out]] = high[left_out, own[left_out]] = np.inf
        count = min(k, len(self.points))
        worst = np.partition(high, count - 1, axis=1)[:, count - 1]
        which, candidates = np.nonzero((low <= worst[:, None]) & np.isfinite(low))
        distances = self._distances(queries, which, candidates)
        distances = self._relative(distances, None if densities is None else densities[which, candidates])
        order = np.lexsort((candidates, distances, which))
        which, candidates, distances = which[order], candidates[order], distances[order]
        place = np.arange(len(which)) - np.searchsorted(which, which)
        kept = place < k
        values[which[kept], place[kept]] = distances[kept]
        rows[which[kept], place[kept]] = candidates[kept]

    def _bounds(self, queries: Floats) -> tuple[Floats, Floats]:
        """What the distances [Q, N] are not below and not above."""
        squares, theirs = np.square(self.points).sum(axis=1), np.square(queries).sum(axis=1)
        size = self.points.shape[1] + 4
        error = _SAFETY * size * np.finfo(np.float64).eps * (theirs[:, None] + squares.max(initial=0.0))
        products = queries @ self.points.T
        if self.metric == "cosine":
            return 1 - products - error, 1 - products + error
        found = theirs[:, None] + squares - 2 * products
        return np.sqrt(np.maximum(found - error, 0)), np.sqrt(np.maximum(found, 0) + error)

    def _distances(self, queries: Floats, which: Rows, rows: Rows) -> Floats:
        """Exactly, of pairs [P]."""
        found = np.empty(len(which))
        for block in blocks(len(which), self.points.shape[1]):
            ours, theirs = queries[which[block]], self.points[rows[block]]
            if self.metric == "cosine":
                found[block] = 1 - (ours * theirs).sum(axis=1)
            else:
                found[block] = np.sqrt(np.square(ours - theirs).sum(axis=1))
        return found

    def _densities(self, own: Rows) -> Floats | None:
        """Around each point as each query sees it [Q, N]: without the query itself where it is a point."""
        if self.surroundings is None or self.density == "none":
            return None
        densities = np.broadcast_to(self.surroundings.means, (len(own), len(self.points)))
        queries = np.flatnonzero(own >= 0)
        if len(queries):
            densities = densities.copy()
        for query in queries:
            rows, means = self.surroundings.without(int(own[query]))
            densities[query, rows] = means
        return densities

    def _relative(self, distances: Floats, densities: Floats | None) -> Floats:
        if densities is None:
            return distances
        return distances / densities if self.density == "ratio" else distances - densities
