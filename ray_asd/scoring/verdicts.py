"""Whether machines alarm more often than their thresholds allow, from the calibration clips behind each threshold.

The rate that a threshold aims at is not its true rate: that one varies with the n calibration clips it was made of, so
a binomial with the aimed rate finds healthy machines guilty. Comparing the clips tested with the calibration clips
leaves no rate to assume.
"""

from collections.abc import Sequence

import scipy

FALSE_DISCOVERIES = 0.05  # share, on average, of the machines called wrong


def chance(alarms: int, clips: int, calibration: int, below: int) -> float:
    """P(at least ``alarms`` of N = ``clips`` exceed the threshold) if they are exchangeable with the calibration clips.

    ``below``: how many of the n = ``calibration`` scores do not exceed the threshold; for a conformal threshold, the
    r-th smallest score, that is r. The alarms are then beta-binomial(N, n + 1 - r, r): binomial with a rate that is
    Beta(n + 1 - r, r), whatever the distribution of the scores. It is computed as the hypergeometric tail it equals,
    which keeps its digits where the chance is small: k or more clips lie above the threshold where, of the
    n - r + k highest of all n + N, k or more are of the N. So it is the one-sided exact test of Fisher for the share of
    alarms among both, and as that holds for a threshold set by hand too. For a fitted threshold (gamma), which depends
    on all calibration scores, it is an approximation.

    Clips of one night are not independent: a machine's state, load and background are shared, so that a whole healthy
    night may be off together. Then so many alarms are more likely than this says.
    """
    return float(scipy.stats.hypergeom.sf(alarms - 1, calibration + clips, clips, calibration - below + alarms))


def discoveries(chances: Sequence[float | None], rate: float = FALSE_DISCOVERIES) -> list[bool]:
    """Which of these stand out, by Benjamini and Hochberg (1995): a share of at most ``rate`` of them by chance alone.

    That holds on average, for machines independent of each other. None, where there is no threshold or it rests on
    fewer than ``scores.MIN_CLIPS`` clips, is never a discovery and does not count among the tests.
    """
    return [value is not None and value <= rate for value in adjusted(chances)]


def adjusted(chances: Sequence[float | None]) -> list[float | None]:
    """The smallest rate at which each of these is one of the ``discoveries``; None where it has no chance."""
    known = [number for number, value in enumerate(chances) if value is not None]
    found: list[float | None] = [None] * len(chances)
    if known:
        values = scipy.stats.false_discovery_control([chances[number] for number in known])
        for number, value in zip(known, values, strict=True):
            found[number] = float(value)
    return found
