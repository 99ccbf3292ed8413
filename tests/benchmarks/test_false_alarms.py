"""Whether p-values are uniform is judged by the limit of exchangeable scores, not of independent p-values."""

import numpy as np

from ray_asd.benchmarks.false_alarms import _uniformity
from ray_asd.scoring import scores


def machines(shift: float) -> list[tuple[int, np.ndarray]]:
    """p-values of 30 clips of each of 20 machines, whose scores lie ``shift`` deviations above their calibration's."""
    random = np.random.default_rng(1)
    return [(60, scores.p_values(random.standard_normal(30) + shift, random.standard_normal(60))) for _ in range(20)]


def test_exchangeable_scores_stay_below_the_limit_and_others_do_not() -> None:
    distance, limit, clips, count = _uniformity(machines(0.0))
    assert float(distance) < float(limit)
    assert float(limit) > 1.358 / np.sqrt(600)  # of as many independent p-values
    assert (clips, count) == ("600", "20")
    distance, limit, _, _ = _uniformity(machines(0.5))
    assert float(distance) > float(limit)
