"""Whether a machine alarms too often, against orders counted one by one, Fisher's exact test and simulated machines."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ray_asd.scoring.verdicts import chance, discoveries


@pytest.mark.parametrize(("calibration", "clips"), [(4, 3), (5, 4), (2, 6)])
def test_equals_the_share_of_all_orders(calibration, clips):
    """Exchangeable: each choice of the places that the tested clips take among all, sorted, is as likely."""
    places = list(itertools.combinations(range(calibration + clips), clips))
    for below in range(1, calibration + 1):
        alarms = []
        for tested in places:
            others = [place for place in range(calibration + clips) if place not in tested]
            alarms.append(sum(place > others[below - 1] for place in tested))
        for count in range(clips + 1):
            by_hand = np.mean(np.array(alarms) >= count)
            assert chance(count, clips, calibration, below) == pytest.approx(by_hand, abs=1e-12)


def test_equals_the_beta_binomial_and_fishers_test():
    for alarms, clips, calibration, below in [(5, 20, 99, 90), (3, 8, 20, 19), (12, 30, 60, 54), (2, 2, 40, 40)]:
        found = chance(alarms, clips, calibration, below)
        assert found == pytest.approx(stats.betabinom.sf(alarms - 1, clips, calibration + 1 - below, below), rel=1e-6)
        counts = [[alarms, clips - alarms], [calibration - below, below]]
        assert found == pytest.approx(stats.fisher_exact(counts, alternative="greater").pvalue, rel=1e-9)


def test_small_chances_keep_their_digits_and_the_ends_are_certain():
    by_hand = np.prod([(10 + i) / (100 + i) for i in range(100)])  # each of 100 clips in turn lies above the 90th of 99
    assert chance(100, 100, 99, 90) == pytest.approx(by_hand, rel=1e-9)
    assert chance(0, 20, 99, 90) == 1
    assert chance(20, 20, 30, 0) == 1, "where every calibration clip alarms, alarms say nothing"
    assert chance(0, 0, 30, 27) == 1


@pytest.mark.parametrize(("calibration", "rate", "clips"), [(20, 0.1, 20), (20, 0.1, 200), (99, 0.05, 100)])
def test_a_healthy_machine_stands_out_as_seldom_as_its_chance_says(calibration, rate, clips):
    rng, times = np.random.default_rng(0), 4000
    below = int(np.ceil((calibration + 1) * (1 - rate) - 1e-9))
    limits = np.sort(rng.exponential(size=(times, calibration)))[:, below - 1]
    alarms = (rng.exponential(size=(times, clips)) > limits[:, None]).sum(axis=1)
    found = np.array([chance(count, clips, calibration, below) for count in alarms.tolist()])
    for level in (0.01, 0.05, 0.2):
        assert np.mean(found <= level) <= level + 4 * np.sqrt(level * (1 - level) / times)
    reached = max(value for value in set(found) if value <= 0.2)  # alarms are whole numbers: not all levels are
    assert np.mean(found <= reached) == pytest.approx(reached, abs=4 * np.sqrt(reached / times))


def test_discoveries_by_hand():
    chances = [0.011, None, 0.6, 0.001, 0.03, None, 0.024]  # of five tests: limits 0.01, 0.02, 0.03, 0.04, 0.05
    assert discoveries(chances) == [True, False, False, True, True, False, True]
    assert discoveries(chances, 0.01) == [False, False, False, True, False, False, False]
    assert discoveries([0.04]) == [True]
    assert discoveries([0.04, 0.9]) == [False, False], "one of two must be below half the rate"
    assert discoveries([None, None]) == [False, False]
    assert discoveries([]) == []


def test_few_of_the_machines_that_stand_out_are_healthy():
    rng, times, shares = np.random.default_rng(1), 200, []
    for _ in range(times):
        faulty = np.arange(40) < 8
        limits = np.sort(rng.normal(size=(40, 60)), axis=1)[:, 53]
        alarms = (rng.normal(size=(40, 30)) + 2 * faulty[:, None] > limits[:, None]).sum(axis=1)
        found = np.array(discoveries([chance(count, 30, 60, 54) for count in alarms.tolist()]))
        assert found[faulty].any()
        shares.append(np.mean(~faulty[found]))
    assert np.mean(shares) <= 0.05 + 4 * np.std(shares) / np.sqrt(times)
