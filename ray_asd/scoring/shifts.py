"""Whether what is measured of machines night by night is another thing of late.

Of each machine the mean of its last nights is compared with its earlier ones by Student's t test, in which the earlier
ones alone say how far nights lie apart: the last ones may be of two kinds, as it begins.

Shapes: M machines, N nights in order, tonight's the last; NaN where there is no value.
"""

from dataclasses import dataclass

import numpy as np
import scipy

from ray_asd.scoring.standards import Bools, Floats, Ints

MIN_EARLIER = 7  # nights, that tell how far they lie apart
MIN_FLEET = 5  # machines whose median is the fleet's
BETWEEN = 7  # nights of which a change is told, before it is what is usual
A_MONTH = 28  # the same of a change of the fleet, whose alarms rest on as many nights


@dataclass(frozen=True)
class Shift:
    """Of each machine [M]: how many nights were compared with, the means ``before`` and ``now``, tonight's value, and
    the chance of such a difference; NaN where there is nothing to compare.
    """

    nights: Ints
    before: Floats
    now: Floats
    tonight: Floats
    p_value: Floats

    def beyond(self, least: float) -> Bools:
        """Which differ by so much, and tonight by half of it."""
        step, tonight = self.now - self.before, self.tonight - self.before
        with np.errstate(invalid="ignore"):
            return np.asarray((np.abs(step) >= least) & (tonight * np.sign(step) >= least / 2))


def earlier(nights: Ints, recent: int, between: int = BETWEEN) -> Ints:
    """With how many of so many nights, the first ones, the ``recent`` last ones are compared; none: 0 or less.

    Up to ``between`` of the nights before the recent ones are left out, as long as enough remain: they may be what
    these are already.
    """
    return np.asarray(nights - recent - np.clip(nights - recent - MIN_EARLIER, 0, between))


def of_machines(values: Floats, floor: float, recent: int, between: int = BETWEEN) -> Shift:
    """The shift of values [M, N]; nights are taken to lie ``floor`` apart at least.

    The ``recent`` ones are compared with what ``earlier`` says.
    """
    known = np.isfinite(values)
    since = np.cumsum(known[:, ::-1], axis=1)[:, ::-1]  # of the known ones, how many from here to the last
    others = earlier(since[:, 0], recent, between)
    late, early = known & (since <= recent), known & (since > (since[:, 0] - others)[:, None])
    count = early.sum(axis=1)
    before, now = _mean(values, early), _mean(values, late)
    left = np.where(early, values - before[:, None], 0)
    spread = np.maximum(np.sqrt((left**2).sum(axis=1) / np.maximum(count - 1, 1)), floor)
    statistic = (now - before) / (spread * np.sqrt(1 / recent + 1 / np.maximum(count, 1)))
    p_value = 2 * scipy.stats.t.sf(np.abs(statistic), np.maximum(count - 1, 1))
    judged = known[:, -1] & (count >= MIN_EARLIER) & (late.sum(axis=1) == recent)
    before, now, p_value = (np.where(judged, each, np.nan) for each in (before, now, p_value))
    return Shift(count, before, now, values[:, -1], p_value)


def of_fleet(values: Floats, floor: float) -> Shift:
    """Tonight's shift [1] of the median machine, each being compared with its own nights of a month ago; from 0 on.

    Where it is beyond a limit, at least half of the machines are.
    """
    own = of_machines(values, floor, 1, A_MONTH).before[:, None]
    return of_machines(median(values - own), floor, 1, A_MONTH)


def median(values: Floats) -> Floats:
    """Of the machines in each night: [1, N]; NaN where there are few."""
    found = np.full((1, values.shape[1]), np.nan)
    many = np.isfinite(values).sum(axis=0) >= MIN_FLEET
    if many.any():
        found[0, many] = np.nanmedian(values[:, many], axis=0)
    return found


def from_zero(values: Floats, most: int) -> Shift:
    """How far the last nights, ``most`` of them and ``MIN_EARLIER`` at least, lie from 0 altogether."""
    known = np.isfinite(values)
    late = known & (np.cumsum(known[:, ::-1], axis=1)[:, ::-1] <= most)
    count = late.sum(axis=1)
    now = _mean(values, late)
    left = np.where(late, values - now[:, None], 0)
    spread = np.sqrt((left**2).sum(axis=1) / np.maximum(count - 1, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        p_value = 2 * scipy.stats.t.sf(np.abs(now) / (spread / np.sqrt(np.maximum(count, 1))), np.maximum(count - 1, 1))
    judged = known[:, -1] & (count >= MIN_EARLIER) & np.isfinite(p_value)
    now, p_value = (np.where(judged, each, np.nan) for each in (now, p_value))
    return Shift(count, np.zeros(len(values)), now, now, p_value)


def _mean(values: Floats, where: Bools) -> Floats:
    return np.asarray(np.where(where, values, 0).sum(axis=1) / np.maximum(where.sum(axis=1), 1))
