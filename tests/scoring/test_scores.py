import numpy as np
import pytest
from scipy import stats

from ray_asd.config import Threshold
from ray_asd.scoring.scores import MIN_GAMMA_CLIPS, clip_scores, fit_threshold

GAMMA = Threshold()
QUANTILE = Threshold(method="quantile")


def test_clip_score_is_the_mean_distance_whatever_the_batch():
    assert clip_scores(np.array([[1.0, 2.0], [0.5, 0.5]])).tolist() == [1.5, 0.5]
    distances = np.random.default_rng(0).random((50, 20))
    alone = [clip_scores(row[None])[0] for row in distances]
    assert clip_scores(distances).tolist() == alone
    assert clip_scores(np.empty((0, 2))).shape == (0,)


def test_quantile_by_hand():
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 100.0))
    fit = fit_threshold(scores, QUANTILE)  # ceil(100 * 0.9) = the 90th of 99
    assert (fit.value, fit.reason, fit.method, fit.false_positive_rate, fit.num_clips) == (
        90,
        None,
        "quantile",
        0.1,
        99,
    )
    assert fit_threshold(np.arange(1.0, 10.0), QUANTILE).value == 9  # the least number of clips: ceil(10 * 0.9) = 9
    # ceil(100 * 0.71) = 71, though (99 + 1) * 0.29 is 28.999... in floats
    assert fit_threshold(scores, Threshold(method="quantile", false_positive_rate=0.29)).value == 71


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.25])
def test_quantile_bounds_the_false_positive_rate(rate):
    """Conformal: on average over calibration sets, rate - 1 / (n + 1) < P(score > threshold) <= rate."""
    rng = np.random.default_rng(1)
    settings = Threshold(method="quantile", false_positive_rate=rate)
    achieved = [stats.expon.sf(fit_threshold(rng.exponential(size=30), settings).value) for _ in range(3000)]
    error = 4 * np.std(achieved) / np.sqrt(len(achieved))
    assert rate - 1 / 31 - error < np.mean(achieved) <= rate + error


def test_gamma_recovers_the_quantile_of_many_clips():
    scores = stats.gamma.rvs(3, scale=0.1, size=50_000, random_state=2)
    fit = fit_threshold(scores, GAMMA)
    assert fit.reason is None
    assert fit.value == pytest.approx(stats.gamma.ppf(0.9, 3, scale=0.1), rel=0.01)


@pytest.mark.parametrize("shape", [2, 20, 300])
@pytest.mark.parametrize(("count", "low", "high"), [(20, 0.09, 0.14), (100, 0.09, 0.115)])
def test_gamma_keeps_the_false_positive_rate_on_fresh_clips(shape, count, low, high):
    rng = np.random.default_rng(3)
    values = [fit_threshold(rng.gamma(shape, 0.1, count), GAMMA).value for _ in range(300)]
    achieved = stats.gamma.sf(values, shape, scale=0.1)
    assert low < achieved.mean() < high


def test_gamma_does_not_depend_on_order_or_unit():
    scores = np.random.default_rng(4).gamma(5, 0.01, 40)
    value = fit_threshold(scores, GAMMA).value
    assert fit_threshold(scores[::-1], GAMMA).value == value
    assert fit_threshold(1e6 * scores, GAMMA).value == pytest.approx(1e6 * value, rel=1e-9)
    tighter = fit_threshold(scores, Threshold(false_positive_rate=0.01)).value
    assert scores.min() < value < tighter


def test_manual_needs_no_clips():
    fit = fit_threshold(np.array([]), Threshold(method="manual", value=0.25))
    assert (fit.value, fit.reason, fit.method, fit.false_positive_rate, fit.num_clips) == (
        0.25,
        None,
        "manual",
        None,
        0,
    )


SPREAD = np.linspace(0.1, 0.2, 20)


@pytest.mark.parametrize(
    ("scores", "settings", "reason"),
    [
        ([], GAMMA, "0 normal clips; gamma at a false positive rate of 0.1 needs 8"),
        (SPREAD[: MIN_GAMMA_CLIPS - 1], GAMMA, "7 normal clips; gamma"),
        (SPREAD[:8], QUANTILE, "8 normal clips; quantile at a false positive rate of 0.1 needs 9"),
        (SPREAD, Threshold(method="quantile", false_positive_rate=0.01), "needs 99"),
        ([*SPREAD, np.nan, np.inf], GAMMA, "2 of 22 scores are not finite"),
        ([*SPREAD, -np.inf], QUANTILE, "1 of 21 scores are not finite"),
        (np.full(20, 0.3), GAMMA, "all 20 scores are equal (0.3)"),
        (np.zeros(20), QUANTILE, "all 20 scores are equal (0)"),
        (0.3 + 1e-9 * SPREAD, GAMMA, "all 20 scores are equal (0.3)"),
        ([*SPREAD, 0.0, -1e-16], GAMMA, "2 of 22 scores are not above 0"),
        ((1 + SPREAD) * 8e307, GAMMA, "no gamma threshold fits 20 scores"),
        ([5e-324] * 7 + [1e308], GAMMA, "the fitted quantile is inf"),
    ],
)
def test_no_threshold_and_why(scores, settings, reason):
    fit = fit_threshold(np.array(scores), settings)
    assert fit.value is None
    assert reason in fit.reason
    assert (fit.method, fit.num_clips) == (settings.method, len(scores))


def test_nearly_equal_and_negative_scores_where_they_still_work():
    scores = 1 + 1e-4 * SPREAD
    assert scores[9] < fit_threshold(scores, GAMMA).value < scores[-1] + 1e-6
    assert fit_threshold(-SPREAD, QUANTILE).value == -SPREAD[1]  # ceil(21 * 0.9) = the 19th of 20
