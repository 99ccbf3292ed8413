"""Clip scores from neighbour distances, and decision thresholds that need no anomalies."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ray_asd.config import Threshold

MIN_GAMMA_CLIPS = 8  # fewer scores say too little about two parameters
MIN_RELATIVE_SPREAD = 1e-6  # of the scores; below it they are equal, as far as float32 embeddings can tell

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ThresholdFit:
    """A clip is called anomalous when its score exceeds ``value``; without a value, ``reason`` says why."""

    value: float | None
    reason: str | None
    method: str
    false_positive_rate: float | None  # aimed at, among normal clips; none when the value was given by hand
    num_clips: int


def clip_scores(distances: Floats) -> Floats:
    """Anomaly scores [Q]: the mean of each clip's neighbour distances [Q, k]."""
    return np.asarray(np.mean(distances, axis=-1, dtype=np.float64))


def fit_threshold(scores: Floats, settings: Threshold) -> ThresholdFit:
    """The threshold for scores [n] of normal clips that were not trained on.

    gamma: the ``1 - false_positive_rate`` quantile of a gamma distribution fitted by maximum likelihood, as in the
    DCASE 2023 Task 2 baseline, except that its location is 0 (distances start there): three free parameters do not
    settle on the few clips of a calibration set. quantile: the split conformal bound (Vovk et al.; Lei et al. 2018),
    the ``ceil((n + 1)(1 - rate))``-th smallest score, which a further normal clip exceeds with at most that
    probability, whatever the distribution. manual: the value of the settings.

    Never degenerate: too few, non-finite, equal or (gamma) non-positive scores give a reason instead of a value.
    """
    count = len(scores)
    if settings.method == "manual":
        return ThresholdFit(settings.value, None, settings.method, None, count)
    scores = np.sort(np.asarray(scores, dtype=np.float64))
    rate = settings.false_positive_rate
    value, reason = None, _useless(scores, settings)
    if reason is None:
        try:
            value = _gamma_quantile(scores, rate) if settings.method == "gamma" else _conformal_quantile(scores, rate)
        except (stats.FitError, ValueError) as error:  # ValueError: from the root finder inside scipy's fit
            reason = f"no {settings.method} threshold fits {count} scores: {error}"
    return ThresholdFit(value, reason, settings.method, rate, count)


def _useless(scores: Floats, settings: Threshold) -> str | None:
    count = len(scores)
    rate = settings.false_positive_rate
    needed = MIN_GAMMA_CLIPS if settings.method == "gamma" else math.ceil(1 / Fraction(str(rate))) - 1
    if count < needed:
        return f"{count} normal clips; {settings.method} at a false positive rate of {rate} needs {needed}"
    if not np.isfinite(scores).all():
        return f"{np.count_nonzero(~np.isfinite(scores))} of {count} scores are not finite"
    if scores[-1] - scores[0] <= MIN_RELATIVE_SPREAD * max(abs(scores[-1]), abs(scores[0])):
        return f"all {count} scores are equal ({scores[0]:g})"
    if settings.method == "gamma" and scores[0] <= 0:
        return f"{np.count_nonzero(scores <= 0)} of {count} scores are not above 0, so no gamma distribution fits"
    return None


def _gamma_quantile(scores: Floats, rate: float) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        shape, location, scale = stats.gamma.fit(scores, floc=0)
        value = float(stats.gamma.ppf(1 - rate, shape, location, scale))
    if not math.isfinite(value):
        raise ValueError(f"the fitted quantile is {value}")
    return value


def _conformal_quantile(scores: Floats, rate: float) -> float:
    exact_rate = Fraction(str(rate))  # (n + 1) * 0.29 in floats may fall one clip short
    above = math.floor((len(scores) + 1) * exact_rate)
    return float(scores[len(scores) - above])
