"""Whether a machine's recordings lie elsewhere among the healthy ones than they did: drift of embeddings.

Each healthy recording of a bank has the part of the space of embeddings that is nearest to it. How the recordings of a
machine fall into these parts in its last nights is compared with its earlier nights by the population stability index
(PSI), the sum over parts of (p - q) ln(p / q). Recordings of one night fall together, so what chance does is learnt
from nights exchanged, not recordings: the index is that beyond the mean of such exchanges. Its p-value is that of a
normal distribution of their logarithms, since no number of exchanges tells small ones.

Shapes: M machines, N nights of one machine in order, K healthy recordings that were nearest to any, X exchanges.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import date
from functools import lru_cache

import numpy as np
import pyarrow as pa
import scipy

from ray_asd.scoring import shifts
from ray_asd.scoring.alerts import Machine
from ray_asd.scoring.shifts import MIN_EARLIER, MIN_FLEET, Shift
from ray_asd.scoring.standards import Bools, Floats

_EXCHANGES = 499
_LEAST = 1e-9  # of an index: two sides may be alike
_PRIOR = 0.5  # recordings, that each part holds of each side beside those which were heard

Nights = dict[date, Counter[str]]
"""How many recordings of each night were nearest to which healthy one."""


def shift(nights: pa.Table, machines: Sequence[Machine], night: date, recent: int) -> Shift:
    """How far the last ``recent`` nights of each of ``machines`` [M], ``night`` the last, lie from its earlier ones.

    Args:
        nights: NIGHTS of it and of nights before it; those that another detector scored tell nothing.
    """
    known = _known(nights, night)
    found = np.array([_index(known.get(machine, {}), night, recent) for machine in machines]).reshape(-1, 3)
    count, now, p_value = found.T
    return Shift(count.astype(np.int64), np.where(np.isnan(now), np.nan, 0.0), now, now, p_value)


def of_fleet(own: Shift) -> Shift:
    """That [1] of the median machine: what is beyond a limit there, is so for at least half of the machines."""
    judged = np.isfinite(own.p_value)
    if judged.sum() < MIN_FLEET:
        nothing = np.full(1, np.nan)
        return Shift(np.zeros(1, np.int64), nothing, nothing, nothing, nothing)
    now, p_value = (np.median(values[judged], keepdims=True) for values in (own.now, own.p_value))
    return Shift(np.zeros(1, np.int64), np.zeros(1), now, now, p_value)


def _known(nights: pa.Table, night: date) -> dict[Machine, Nights]:
    columns = ("machine_type", "section", "machine_id", "night", "model_digest", "nearest")
    rows = list(zip(*(nights[name].to_pylist() for name in columns), strict=True))
    tonights = {digest for *_, day, digest, _ in rows if day == night}
    known: dict[Machine, Nights] = {}
    for *machine, day, digest, nearest in rows:
        if nearest and digest in tonights and day <= night:
            of_machine = known.setdefault((machine[0], machine[1], machine[2]), {})
            of_machine.setdefault(day, Counter()).update(nearest)
    return known


def _index(nights: Nights, night: date, recent: int) -> tuple[float, float, float]:
    """How many nights a machine's last ones are compared with, the index and its p-value; NaN where it has too few."""
    earlier = max(int(shifts.earlier(np.array(len(nights)), recent)), 0)
    if night not in nights or earlier < MIN_EARLIER:
        return earlier, np.nan, np.nan
    days = sorted(nights)
    compared = [nights[day] for day in (*days[:earlier], *days[-recent:])]
    parts = sorted(set().union(*compared))
    heard = np.array([[own[part] for part in parts] for own in compared], float)
    is_late = np.arange(len(heard)) >= earlier
    by_chance, (index,) = _psi(heard, _exchanged(earlier, recent)), _psi(heard, is_late[None])
    logarithms = np.log(by_chance + _LEAST)
    spread = logarithms.std()
    if not spread > 0:
        return earlier, 0.0, 1.0
    away = (np.log(index + _LEAST) - logarithms.mean()) / spread
    return earlier, float(index - by_chance.mean()), float(scipy.stats.norm.sf(away))


@lru_cache(maxsize=32)  # most machines have as many nights
def _exchanged(earlier: int, recent: int) -> Bools:
    """Choices [X, N] of as many nights as are ``recent``, drawn."""
    is_late = np.arange(earlier + recent) >= earlier
    return np.random.default_rng(0).permuted(np.tile(is_late, (_EXCHANGES, 1)), axis=1)


def _psi(heard: Floats, is_late: Bools) -> Floats:
    """The index [X] of those nights against the others, of counts [N, K] and X choices [X, N]."""
    late = is_late @ heard
    early = heard.sum(axis=0) - late
    p, q = ((side + _PRIOR) / (side + _PRIOR).sum(axis=1, keepdims=True) for side in (late, early))
    return np.asarray(((p - q) * np.log(p / q)).sum(axis=1))
