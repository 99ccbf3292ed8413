import numpy as np
import pytest
from scipy import stats

from ray_asd import tables
from ray_asd.config import Threshold
from ray_asd.scoring.scores import MIN_CLIPS, false_alarms, fit_threshold, p_values

GAMMA = Threshold(method="gamma")
QUANTILE = Threshold(method="quantile")


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
    assert fit_threshold(np.arange(1.0, 21.0), QUANTILE).value == 19  # the least number of clips: ceil(21 * 0.9) = 19
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
    tighter = fit_threshold(scores, Threshold(method="gamma", false_positive_rate=0.01)).value
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
        ([], GAMMA, "0 normal clips; gamma at a false positive rate of 0.1 needs 20"),
        (SPREAD[: MIN_CLIPS - 1], GAMMA, "19 normal clips; gamma at a false positive rate of 0.1 needs 20"),
        (SPREAD[: MIN_CLIPS - 1], QUANTILE, "19 normal clips; quantile at a false positive rate of 0.1 needs 20"),
        (SPREAD, Threshold(method="quantile", false_positive_rate=0.01), "20 normal clips; quantile at a false"),
        (SPREAD, Threshold(method="quantile", false_positive_rate=0.01), "positive rate of 0.01 needs 99"),
        ([*SPREAD, np.nan, np.inf], GAMMA, "2 of 22 scores are not finite"),
        ([*SPREAD, -np.inf], QUANTILE, "1 of 21 scores are not finite"),
        (np.full(20, 0.3), GAMMA, "all 20 scores are equal (0.3)"),
        (np.zeros(20), QUANTILE, "all 20 scores are equal (0)"),
        (0.3 + 1e-9 * SPREAD, GAMMA, "all 20 scores are equal (0.3)"),
        ([*SPREAD, 0.0, -1e-16], GAMMA, "2 of 22 scores are not above 0"),
        ((1 + SPREAD) * 8e307, GAMMA, "no gamma threshold fits 20 scores"),
        ([5e-324] * 19 + [1e308], GAMMA, "the fitted quantile is inf"),
    ],
)
def test_no_threshold_and_why(scores, settings, reason):
    fit = fit_threshold(np.array(scores), settings)
    assert fit.value is None
    assert reason in fit.reason
    assert (fit.method, fit.num_clips) == (settings.method, len(scores))
    assert (fit.num_above, fit.rate_low, fit.rate_high) == (None, None, None)


def test_nearly_equal_and_negative_scores_where_they_still_work():
    scores = 1 + 1e-4 * SPREAD
    assert scores[9] < fit_threshold(scores, GAMMA).value < scores[-1] + 1e-6
    assert fit_threshold(-SPREAD, QUANTILE).value == -SPREAD[1]  # ceil(21 * 0.9) = the 19th of 20


def test_the_interval_of_the_true_rate_by_hand():
    fit = fit_threshold(np.arange(1.0, 100.0), QUANTILE)  # the 90th of 99: the share of a uniform beyond it
    assert fit.num_above == 9
    assert (fit.rate_low, fit.rate_high) == pytest.approx(stats.beta.ppf([0.05, 0.95], 10, 90))
    by_hand = fit_threshold(np.arange(1.0, 21.0), Threshold(method="manual", value=18.0))
    assert by_hand.num_above == 2
    assert stats.binom.sf(1, 20, by_hand.rate_low) == pytest.approx(0.05)  # Clopper and Pearson: two or more, ...
    assert stats.binom.cdf(2, 20, by_hand.rate_high) == pytest.approx(0.05)  # ... or at most two, are as unlikely
    none_above = fit_threshold(np.arange(3.0), Threshold(method="manual", value=2.0))
    assert (none_above.num_above, none_above.rate_low) == (0, 0)


@pytest.mark.parametrize(("count", "rate"), [(20, 0.1), (60, 0.05), (200, 0.1)])
def test_the_interval_of_a_quantile_holds_the_true_rate_as_often_as_it_says(count, rate):
    rng, times = np.random.default_rng(5), 2000
    settings = Threshold(method="quantile", false_positive_rate=rate)
    fits = [fit_threshold(rng.lognormal(size=count), settings) for _ in range(times)]
    true = stats.lognorm.sf([fit.value for fit in fits], 1)
    error = 4 * np.sqrt(0.05 * 0.95 / times)
    assert np.mean(true < [fit.rate_low for fit in fits]) == pytest.approx(0.05, abs=error)
    assert np.mean(true > [fit.rate_high for fit in fits]) == pytest.approx(0.05, abs=error)


@pytest.mark.parametrize("count", [20, 200])
def test_the_interval_of_a_gamma_quantile_holds_the_true_rate_about_as_often(count):
    rng, times = np.random.default_rng(6), 300
    fits = [fit_threshold(rng.gamma(20, 0.1, count), GAMMA) for _ in range(times)]
    true = stats.gamma.sf([fit.value for fit in fits], 20, scale=0.1)
    inside = [fit.rate_low <= share <= fit.rate_high for fit, share in zip(fits, true, strict=True)]
    assert np.mean(inside) > 0.83  # 0.88 at least, less the error of 300 draws


def test_equal_scores_at_the_threshold_are_not_above_it():
    fit = fit_threshold(np.repeat([1.0, 2.0], [10, 90]), QUANTILE)
    assert (fit.value, fit.num_above) == (2, 0)
    assert fit.rate_low > 0


def test_false_alarms_by_domain():
    scores = np.array([1.0, 2.0, 3.0, 4.0, 9.0])
    domains = ["source", "target", "source", "target", None]
    assert false_alarms(scores, domains, 2.0) == {"false_alarms_source": 0.5, "false_alarms_target": 0.5}
    assert false_alarms(scores, domains, 3.0) == {"false_alarms_source": 0, "false_alarms_target": 0.5}
    assert false_alarms(scores[:1], domains[:1], 0.0) == {"false_alarms_source": 1, "false_alarms_target": None}
    nothing = {"false_alarms_source": None, "false_alarms_target": None}
    assert false_alarms(scores, domains, None) == false_alarms(scores, [None] * 5, 0.0) == nothing
    assert set(nothing) < set(tables.THRESHOLDS.names)


def test_p_values_count_the_calibration_clips_that_score_as_high():
    rng = np.random.default_rng(7)
    calibration, scores = rng.integers(0, 10, 40).astype(float), rng.integers(-1, 11, 30).astype(float)
    by_hand = [(1 + sum(other >= score for other in calibration)) / 41 for score in scores]
    assert p_values(scores, calibration).tolist() == by_hand
    assert p_values(np.array([-np.inf, 3.0]), np.empty(0)).tolist() == [1, 1]
    assert p_values(np.empty(0), calibration).shape == (0,)


def test_p_values_of_exchangeable_clips_are_uniform():
    """On the 20 values i / 20, whatever the distribution; of clips that score higher they are small."""
    rng, times = np.random.default_rng(8), 4000
    drawn = rng.standard_cauchy((times, 20))
    found = [p_values(row[:1], row[1:])[0] for row in drawn]
    counts = np.bincount(np.rint(np.multiply(found, 20)).astype(int), minlength=21)[1:]
    assert counts.sum() == times
    assert stats.chisquare(counts).pvalue > 0.001
    assert np.mean([p_values(row[:1] + 50, row[1:])[0] for row in drawn]) < 0.1


def test_a_clip_alarms_where_its_p_value_is_at_most_the_rate():
    rng = np.random.default_rng(9)
    calibration, scores = rng.normal(size=99), rng.normal(size=500)
    value = fit_threshold(calibration, QUANTILE).value
    assert ((scores > value) == (p_values(scores, calibration) <= 0.1)).all()
