"""What scores of normal clips say of others: p-values and thresholds.

Shapes: Q clips to judge, n normal clips that were not trained on (the calibration set).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import scipy
from numpy.typing import NDArray

from ray_asd import tables
from ray_asd.config import Threshold

MIN_CLIPS = 20  # with fewer, the true false positive rate may be several times the one aimed at
RATE_LEVEL = 0.9  # of the interval of the true false positive rate
MIN_RELATIVE_SPREAD = 1e-6  # of the scores; below it they are equal, as far as float32 embeddings can tell

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ThresholdFit:
    """A clip is called anomalous when its score exceeds ``value``; without a value, ``reason`` says why.

    ``num_above`` of the ``num_clips`` calibration clips exceed it. ``rate_low`` and ``rate_high`` are the ends of the
    central ``RATE_LEVEL`` interval of its true false positive rate. All three are None where nothing says so.
    """

    value: float | None
    reason: str | None
    method: str
    false_positive_rate: float | None  # aimed at, among normal clips; none when the value was given by hand
    num_clips: int
    num_above: int | None = None
    rate_low: float | None = None
    rate_high: float | None = None


def p_values(scores: Floats, calibration: Floats) -> Floats:
    """Conformal p-values [Q] of scores [Q] among those of normal clips [n]: (1 + #{calibration >= score}) / (n + 1).

    Of a clip exchangeable with the calibration clips, P(p <= a) is at most a for each a, and at least a - 1 / (n + 1)
    where no scores are equal (Vovk et al.; Bates et al. 2023). The p-values of several clips share the calibration
    set: they are not independent.
    """
    at_least = len(calibration) - np.searchsorted(np.sort(calibration), scores, side="left")
    return np.asarray((1 + at_least) / (len(calibration) + 1))


def false_alarms(scores: Floats, domains: Sequence[str | None], threshold: float | None) -> dict[str, float | None]:
    """Share of the calibration scores [n] above the threshold, by column of THRESHOLDS: one for each domain.

    None where no clip is known to be of the domain, or there is no threshold. A threshold fitted to clips of both
    domains keeps its rate for their mixture alone: these shares tell how the alarms fall on either.
    """
    named = np.asarray(domains, dtype=object)
    found: dict[str, float | None] = {}
    for domain in tables.DOMAINS:
        own = scores[named == domain]
        found[f"false_alarms_{domain}"] = None if threshold is None or not len(own) else float(np.mean(own > threshold))
    return found


def fit_threshold(scores: Floats, settings: Threshold) -> ThresholdFit:
    """The threshold for scores [n] of normal clips that were not trained on.

    gamma: the ``1 - false_positive_rate`` quantile of a gamma distribution fitted by maximum likelihood, as in the
    DCASE 2023 Task 2 baseline, except that its location is 0 (distances start there): three free parameters do not
    settle on the few clips of a calibration set. quantile: the split conformal bound (Vovk et al.; Lei et al. 2018),
    the r-th smallest score, r = ``ceil((n + 1)(1 - rate))``, which a further normal clip exceeds with at most that
    probability on average over calibration sets, whatever the distribution, as long as that clip is exchangeable
    with these: one of a rarer domain is not. manual: the value of the settings.

    The interval of the true rate, given these n clips, is exact for the quantile: the rate is Beta(n + 1 - r, r), or
    lower where scores are equal. Otherwise it is Clopper and Pearson's, of the share of calibration clips above the
    threshold; the gamma quantile was fitted to the same clips, which that interval leaves out of account (simulated,
    it holds the true rate in 88% to 96% of calibration sets all the same).

    Never degenerate: too few (``MIN_CLIPS`` at least), non-finite, equal or (gamma) non-positive scores give a reason
    instead of a value.
    """
    scores = np.sort(np.asarray(scores, dtype=np.float64))
    value, reason = (settings.value, None) if settings.method == "manual" else _fitted(scores, settings)
    rate = None if settings.method == "manual" else settings.false_positive_rate
    if value is None or not len(scores):
        return ThresholdFit(value, reason, settings.method, rate, len(scores))
    above = int(np.count_nonzero(scores > value))
    ends = _rate_interval(len(scores), above, settings)
    return ThresholdFit(value, reason, settings.method, rate, len(scores), above, *ends)


def _fitted(scores: Floats, settings: Threshold) -> tuple[float | None, str | None]:
    reason = _useless(scores, settings)
    if reason is not None:
        return None, reason
    try:
        quantile = _gamma_quantile if settings.method == "gamma" else _conformal_quantile
        return quantile(scores, settings.false_positive_rate), None
    except (scipy.stats.FitError, ValueError) as error:  # ValueError: from the root finder inside scipy's fit
        return None, f"no {settings.method} threshold fits {len(scores)} scores: {error}"


def _useless(scores: Floats, settings: Threshold) -> str | None:
    count = len(scores)
    rate = settings.false_positive_rate
    needed = MIN_CLIPS
    if settings.method == "quantile":
        needed = max(MIN_CLIPS, math.ceil(1 / Fraction(str(rate))) - 1)
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
        shape, location, scale = scipy.stats.gamma.fit(scores, floc=0)
        value = float(scipy.stats.gamma.ppf(1 - rate, shape, location, scale))
    if not math.isfinite(value):
        raise ValueError(f"the fitted quantile is {value}")
    return value


def _conformal_quantile(scores: Floats, rate: float) -> float:
    return float(scores[len(scores) - _expected_above(len(scores), rate)])


def _expected_above(count: int, rate: float) -> int:
    """n + 1 - r: of n + 1 exchangeable clips so many are expected above the r-th smallest of n."""
    return math.floor((count + 1) * Fraction(str(rate)))  # (n + 1) * 0.29 in floats may fall one clip short


def _rate_interval(count: int, above: int, settings: Threshold) -> tuple[float, float]:
    if settings.method == "quantile":
        expected = _expected_above(count, settings.false_positive_rate)
        low, high = scipy.stats.beta.interval(RATE_LEVEL, expected, count + 1 - expected)
    else:
        low, high = scipy.stats.binomtest(above, count).proportion_ci(RATE_LEVEL, method="exact")
    return float(low), float(high)
