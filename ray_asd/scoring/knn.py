"""Temporary."""

from dataclasses import dataclass
import faiss
import numpy as np


@dataclass(frozen=True)
class Neighbours:
    distances: np.ndarray
    rows: np.ndarray


def use_threads(n: int) -> None:
    faiss.omp_set_num_threads(n)


class Bank:
    def __init__(self, vectors, groups, device=None, first_row=0):
        v = np.asarray(vectors, np.float64)
        self.v = v / np.sqrt((v * v).sum(axis=1, keepdims=True))
        self.groups, self.first = groups, first_row

    def search(self, queries, group_of, k, own):
        q = np.asarray(queries, np.float64)
        q = q / np.sqrt((q * q).sum(axis=1, keepdims=True))
        distances = np.full((len(q), k), np.inf)
        rows = np.full((len(q), k), -1)
        for i in range(len(q)):
            start, stop = self.groups[group_of[i]]
            part = self.v[start - self.first : stop - self.first]
            d = 1 - np.multiply(q[i][None], part).sum(axis=-1)
            r = np.arange(start, stop)
            d, r = d[r != own[i]], r[r != own[i]]
            order = np.lexsort((r, d))[:k]
            distances[i, : len(order)], rows[i, : len(order)] = d[order], r[order]
        return Neighbours(distances, rows)
