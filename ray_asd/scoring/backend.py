"""Back-ends: how far a clip is from the healthy clips of its machine type and section.

The paper's is the cosine k-NN. Beyond it: whitening by the group's own covariance, Euclidean distances, distances
relative to the local density of the bank (Wilkinghoff et al. 2025, "Local density-based anomaly score normalization
for domain generalization"), and separate banks for source and target domain, whose distances are standardised by
their own leave-one-out scores and of which the smaller counts.

N clips of a group, Q queries, E values, k neighbours.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ray_asd.config import Backend
from ray_asd.scoring import cosine, whitening
from ray_asd.scoring.bank import Bank
from ray_asd.scoring.cosine import Floats, Rows, Vectors
from ray_asd.scoring.points import Points, Surroundings
from ray_asd.scoring.whitening import Scatter
from ray_asd.tables import DOMAINS

FOLDS = 50  # of the bank, each left out in turn where leaving out a clip changes the whitening
MAX_LEFT_OUT = 2000  # clips of a group that are left out in turn; of a larger group so many are drawn by their key
COLLAPSED = 32 * float(np.finfo(np.float32).eps)  # cosine distances below are mostly rounding of float32 embeddings

_MAD = 1.4826  # times the median deviation is a normal distribution's standard deviation


@dataclass(frozen=True)
class Found:
    """Scores [Q], the rows of the nearest clips [Q, k] (-1: there are fewer) and how far each of them is [Q, k]."""

    scores: Floats
    rows: Rows
    values: Floats


@dataclass(frozen=True)
class Domain:
    """A bank of its own: its clips' rows [n], and what its scores are standardised by."""

    rows: Rows
    points: Points
    centre: float = 0.0
    spread: float = 1.0


@dataclass
class Fitted:
    """The healthy clips of a group behind a back-end, ready to be compared with."""

    settings: Backend
    bank: Bank | None  # the paper's
    mean: Floats | None = None
    root: Floats | None = None
    domains: list[Domain] = field(default_factory=list)

    def attach(self, index: Any, refine: int) -> None:
        """Let an approximate index propose the candidates of the paper's k-NN, see ``Bank.attach``."""
        assert self.bank is not None, "only plain cosines have approximate indexes"
        self.bank.attach(0, index, refine)

    def search(self, queries: Vectors, own: Rows) -> Found:
        """Compare vectors (float32 [Q, E], finite, not zero), each without row ``own`` [Q] (-1: with all)."""
        k = self.settings.neighbours
        if self.bank is not None:
            near = self.bank.search(queries, np.zeros(len(queries), np.int64), k, own)
            return Found(near.distances.mean(axis=1), near.rows, near.distances)
        points = self._points(queries)
        found = [_within(domain, points, k, own) for domain in self.domains]
        best = np.argmin([part.scores for part in found], axis=0)
        return Found(
            np.choose(best, [part.scores for part in found]),
            np.choose(best[:, None], [part.rows for part in found]),
            np.choose(best[:, None], [part.values for part in found]),
        )

    def _points(self, vectors: Vectors) -> Floats:
        if self.root is not None and self.mean is not None:
            placed = whitening.applied(vectors, self.mean, self.root)
        else:
            placed = vectors.astype(np.float64)
        return _unit(placed) if self.settings.metric == "cosine" else placed

    def tensors(self) -> dict[str, np.ndarray]:
        """All that ``load`` needs besides the vectors."""
        if self.bank is not None:
            return {}
        found: dict[str, np.ndarray] = {}
        if self.mean is not None and self.root is not None:
            found |= {"mean": self.mean, "root": self.root}
        for number, domain in enumerate(self.domains):
            found[f"{number}.rows"] = domain.rows
            found[f"{number}.points"] = domain.points.points
            found[f"{number}.standard"] = np.array([domain.centre, domain.spread])
            around = domain.points.surroundings
            if around is not None:
                found |= {f"{number}.near": around.distances, f"{number}.near_rows": around.rows}
        return found


def needed(settings: Backend) -> int:
    """Clips of a group without which a clip of it could not be left out and compared with the others."""
    return max(settings.neighbours, 0 if settings.density == "none" else settings.density_neighbours + 1) + 1


def fit(
    vectors: Vectors,
    domains: Sequence[str | None],
    settings: Backend,
    fleet: Scatter | None = None,
    device: int | None = None,
    split: bool | None = None,
) -> Fitted:
    """The back-end of a group: its ``needed`` healthy vectors or more (float32 [N, E]) and their domains [N].

    Args:
        fleet: scatter within all groups, this one among them, for whitening groups of fewer than
            ``whitening.MIN_CLIPS`` clips.
        device: GPU that proposes the candidates of plain cosines.
        split: whether each domain has a bank of its own; None: where ``is_split`` says so.

    Raises:
        StageError: a vector has no direction and cosines are asked for (``cosine.NoDirection``).
    """
    if settings.is_paper:
        return Fitted(settings, Bank(vectors, [(0, len(vectors))], device))
    if settings.metric == "cosine":
        cosine.norms(np.asarray(vectors, np.float32), "bank row")
    fitted = Fitted(settings, None)
    if settings.whiten is not None:
        fitted.mean = whitening.centre(vectors)
        fitted.root = whitening.inverse_root(Scatter.of(vectors), fleet, settings.whiten)
    points = fitted._points(vectors)
    apart = is_split(domains, settings) if split is None else split
    parts = _parts(domains) if apart else [np.arange(len(domains))]
    fitted.domains = [_domain(points, rows, settings) for rows in parts]
    if len(fitted.domains) > 1:
        fitted.domains = [_standardised(domain, settings.neighbours) for domain in fitted.domains]
    return fitted


def load(tensors: Mapping[str, np.ndarray], vectors: Vectors, settings: Backend, device: int | None = None) -> Fitted:
    """What ``fit`` made of ``vectors`` and ``tensors`` saved: it answers to the same bits."""
    if settings.is_paper:
        return Fitted(settings, Bank(vectors, [(0, len(vectors))], device))
    fitted = Fitted(settings, None, tensors.get("mean"), tensors.get("root"))
    count = sum(name.endswith(".points") for name in tensors)
    for number in range(count):
        near = tensors.get(f"{number}.near")
        placed, around = tensors[f"{number}.points"], None
        if near is not None:
            around = Surroundings.of(near, tensors[f"{number}.near_rows"], settings.metric, placed.shape[1])
        points = Points(placed, settings.metric, settings.density, around)
        centre, spread = tensors[f"{number}.standard"].tolist()
        fitted.domains.append(Domain(tensors[f"{number}.rows"], points, centre, spread))
    return fitted


def left_out(
    vectors: Vectors,
    domains: Sequence[str | None],
    keys: Sequence[str],
    settings: Backend,
    fleet: Scatter | None = None,
    fitted: Fitted | None = None,
) -> tuple[Rows, Floats]:
    """Rows of a group, and the score that each would get if it were not in the bank.

    Without whitening each clip is left out exactly. Whitening is fitted anew for each of ``FOLDS`` parts of the clips,
    which are left out together (as many parts as clips where these are fewer than twice as many); where a whole group
    takes the scatter of the ``fleet``, which it is part of, they are left out of that as well. Parts go by the rank of
    ``keys`` [N]; of a group of more than ``MAX_LEFT_OUT`` clips so many are drawn, by a hash of their keys.
    """
    chosen = _drawn(keys)
    split = is_split(domains, settings)
    if settings.whiten is None:
        fitted = fitted or fit(vectors, domains, settings, fleet)
        return np.sort(chosen), fitted.search(vectors[np.sort(chosen)], np.sort(chosen)).scores
    others = None if fleet is None or len(vectors) >= whitening.MIN_CLIPS else fleet - Scatter.of(vectors)
    folds = _folds(len(vectors))
    scores = np.full(len(vectors), np.nan)
    for fold in range(folds):
        apart = np.sort(chosen[fold::folds])
        rest = np.setdiff1d(np.arange(len(vectors)), apart)
        scatter = None if others is None else others + Scatter.of(vectors[rest])
        without = fit(vectors[rest], [domains[row] for row in rest], settings, scatter, split=split)
        scores[apart] = without.search(vectors[apart], np.full(len(apart), -1)).scores
    return np.sort(chosen), scores[np.sort(chosen)]


def _drawn(keys: Sequence[str]) -> Rows:
    """Rows in order of their keys: all of them, or as many as are left out at most."""
    rows = np.arange(len(keys))
    if len(keys) > MAX_LEFT_OUT:
        hashed = [hashlib.sha256(key.encode()).digest() for key in keys]
        rows = np.array(sorted(rows.tolist(), key=hashed.__getitem__)[:MAX_LEFT_OUT])
    return np.asarray(rows[np.argsort(np.array(keys)[rows], kind="stable")])


def _folds(count: int) -> int:
    return FOLDS if count >= 2 * FOLDS else count


def median_nearest(vectors: Vectors) -> float:
    """Median cosine distance from a clip to its nearest other; below ``COLLAPSED`` it is mostly rounding."""
    usable = vectors[np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)][:MAX_LEFT_OUT]
    if len(usable) < 2:
        return float("inf")
    points = Points(_unit(usable.astype(np.float64)), "cosine")
    return float(np.median(points.nearest(points.points, 1, np.arange(len(usable))).values))


def standard(scores: Floats) -> tuple[float, float]:
    """Median and robust spread of healthy scores; never a spread of zero."""
    median = float(np.median(scores))
    spread = _MAD * float(np.median(np.abs(scores - median))) or float(np.std(scores))
    return median, spread if spread > 0 else 1.0


def _within(domain: Domain, points: Floats, k: int, own: Rows) -> Found:
    place = np.searchsorted(domain.rows, own)
    here = np.flatnonzero((own >= 0) & (place < len(domain.rows)))
    here = here[domain.rows[place[here]] == own[here]]
    left_out = np.full(len(own), -1)
    left_out[here] = place[here]
    near = domain.points.nearest(points, k, left_out)
    rows = np.where(near.rows >= 0, domain.rows[near.rows], -1)
    return Found((near.values.mean(axis=1) - domain.centre) / domain.spread, rows, near.values)


def is_split(domains: Sequence[str | None], settings: Backend) -> bool:
    """Whether each domain of a group has a bank of its own: asked for, and large enough with a part left out too."""
    if settings.banks == "pooled":
        return False
    largest = -(-min(len(domains), MAX_LEFT_OUT) // max(1, _folds(len(domains))))
    return all(domains.count(domain) >= needed(settings) + largest for domain in DOMAINS)


def _parts(domains: Sequence[str | None]) -> list[Rows]:
    """Rows of each domain; clips that may be of either, such as those of feedback, are healthy in both."""
    return [np.flatnonzero([found in (domain, None) for found in domains]) for domain in DOMAINS]


def _domain(points: Floats, rows: Rows, settings: Backend) -> Domain:
    own = np.ascontiguousarray(points[rows])
    around = None
    if settings.density != "none":
        around = Points(own, settings.metric).surrounded(settings.density_neighbours)
    return Domain(rows, Points(own, settings.metric, settings.density, around))


def _standardised(domain: Domain, k: int) -> Domain:
    near = domain.points.nearest(domain.points.points, k, np.arange(len(domain.rows)))
    return Domain(domain.rows, domain.points, *standard(near.values.mean(axis=1)))


def _unit(vectors: Floats) -> Floats:
    lengths = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    return vectors / np.where(lengths > 0, lengths, 1.0)
