"""Whitening of healthy embeddings: directions in which healthy clips differ count less, those they agree in more.

A Euclidean distance of whitened vectors is the Mahalanobis distance of the vectors. N clips, E values. One thread fits,
since BLAS adds up in another order with another number of them: machines of any size get the same bits.
"""

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from ray_asd.scoring.cosine import Floats, Vectors, blocks

MIN_CLIPS = 20  # a smaller group takes the covariance of all groups


@dataclass(frozen=True, slots=True)
class Scatter:
    """Sum of the outer products of deviations from a group's mean [E, E], and of how many clips."""

    products: Floats
    count: int

    @classmethod
    def of(cls, vectors: Vectors) -> "Scatter":
        """That of one group [N, E], in float64."""
        mean = centre(vectors)
        products = np.zeros((vectors.shape[1], vectors.shape[1]))
        with threadpool_limits(1, user_api="blas"):
            for block in blocks(*vectors.shape):
                deviations = vectors[block] - mean
                products += deviations.T @ deviations
        return cls(products, len(vectors))

    def __add__(self, other: "Scatter") -> "Scatter":
        return Scatter(self.products + other.products, self.count + other.count)

    def __sub__(self, other: "Scatter") -> "Scatter":
        return Scatter(self.products - other.products, self.count - other.count)

    @property
    def covariance(self) -> Floats:
        """[E, E], by the number of clips as maximum likelihood has it."""
        return self.products / max(1, self.count)


def centre(vectors: Vectors) -> Floats:
    """The mean [E] of vectors [N, E], in float64."""
    return np.asarray(vectors.mean(axis=0, dtype=np.float64))


def inverse_root(group: Scatter, fleet: Scatter | None, shrinkage: float) -> Floats:
    """Symmetric W [E, E] with W W the inverse of the shrunk covariance (1 - s) C + s tr(C) / E I.

    C is the group's covariance, or the ``fleet``'s within its groups where the group has fewer than ``MIN_CLIPS``
    clips. Shrinking to a scaled unit matrix is that of scikit-learn's ``shrunk_covariance``. Clips that are all equal
    say nothing: W is then the unit matrix.
    """
    chosen = fleet if fleet is not None and group.count < MIN_CLIPS else group
    covariance = chosen.covariance
    size = len(covariance)
    scale = np.trace(covariance) / size
    if not scale > 0:
        return np.eye(size)
    with threadpool_limits(1, user_api="blas"):
        values, vectors = np.linalg.eigh((1 - shrinkage) * covariance + shrinkage * scale * np.eye(size))
        return np.asarray((vectors / np.sqrt(values.clip(min=shrinkage * scale / 2))) @ vectors.T)


def applied(vectors: Vectors, mean: Floats, root: Floats) -> Floats:
    """W (x - mean) of each of vectors [N, E]: to the same bits whatever the other rows are, as BLAS would not do."""
    whitened = np.empty(vectors.shape)
    for block in blocks(len(vectors), len(root)):
        np.einsum("nj,ij->ni", vectors[block] - mean, root, out=whitened[block], optimize=False)
    return whitened
