"""Where recordings lie among the healthy ones: seldom moved where nights are alike, soon where they are not."""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
import scipy

from ray_asd.fleet_tables import NIGHTS
from ray_asd.scoring.neighbourhoods import of_fleet, shift
from ray_asd.scoring.shifts import BETWEEN

LAST = date(2026, 11, 25)
RECENT, NIGHTS_OF_EACH, CLIPS, PARTS = 7, 28, 8, 40


def nights(lies, **changed):
    """NIGHTS of machines whose recordings lie at these places [M, N, C] on a line."""
    parts = np.floor(PARTS * scipy.stats.norm.cdf(lies)).astype(int).astype(str)
    rows = [
        {"machine_type": "fan", "section": "00", "machine_id": str(machine), "domain": domain, "model_digest": "d"}
        | {"night": LAST - timedelta(days=len(own) - 1 - number), "clips": CLIPS, "mean": 0.0, "deviations": 1.0}
        | {"nearest": night[half].tolist()}
        | changed
        for machine, own in enumerate(parts)
        for number, night in enumerate(own)
        for domain, half in (("source", slice(None, 4)), ("target", slice(4, None)))
    ]
    return pa.Table.from_pylist(rows, NIGHTS)


def alike(machines, count=NIGHTS_OF_EACH, seed=0):
    """Recordings that share half of their variance with their night."""
    drawn = np.random.default_rng(seed).normal(size=(machines, count, 1 + CLIPS))
    return np.sqrt(0.5) * (drawn[..., :1] + drawn[..., 1:])


def names(machines):
    return [("fan", "00", str(machine)) for machine in range(machines)]


def test_p_values_of_nights_alike_are_uniform():
    found = shift(nights(alike(400)), names(400), LAST, RECENT)
    assert scipy.stats.kstest(found.p_value, "uniform").statistic < 0.08
    assert (found.p_value < 0.01).mean() < 0.025
    assert found.p_value.min() > 1e-5
    assert set(found.nights) == {NIGHTS_OF_EACH - RECENT - BETWEEN}
    assert abs(np.mean(found.now)) < 0.05


def test_by_hand():
    """All recordings of the earlier nights nearest to one recording, all of the last ones to another."""
    lies = np.where(np.arange(14) < 7, -1.0, 1.0)[None, :, None].repeat(CLIPS, axis=2)
    found = shift(nights(lies), names(1), LAST, RECENT)
    many, few = (7 * CLIPS + 0.5) / (7 * CLIPS + 1), 0.5 / (7 * CLIPS + 1)
    whole = 2 * (many - few) * np.log(many / few)
    assert 0.8 * whole < found.now[0] < whole
    assert found.p_value[0] < 1e-3


def test_a_fleet_moves_where_half_of_it_does():
    lies = alike(20)
    lies[:9, -RECENT:] += 3
    assert of_fleet(shift(nights(lies), names(20), LAST, RECENT)).now[0] < 0.5
    lies[:12, -RECENT:] += 3
    moved = of_fleet(shift(nights(lies), names(20), LAST, RECENT))
    assert moved.now[0] > 1
    assert moved.p_value[0] < 1e-3
    assert np.isnan(of_fleet(shift(nights(lies[:4]), names(4), LAST, RECENT)).now[0]), "too few to be a fleet"


@pytest.mark.parametrize("changed", [{"nearest": None}, {"nearest": []}, {"night": LAST}])
def test_of_what_has_no_neighbours_or_no_past_nothing_is_known(changed):
    found = shift(nights(alike(2), **changed), names(2), LAST, RECENT)
    assert np.isnan(found.p_value).all()
    assert not found.beyond(0.5).any()


def test_nights_of_another_detector_do_not_count():
    old = nights(alike(1, 20), model_digest="old")
    old = old.set_column(5, NIGHTS.field("night"), pa.array([LAST - timedelta(days=30)] * len(old), pa.date32()))
    found = shift(pa.concat_tables([old, nights(alike(1, 10))]), names(1), LAST, RECENT)
    assert found.nights[0] == 3
    assert np.isnan(found.p_value[0])
    assert shift(NIGHTS.empty_table(), [], LAST, RECENT).p_value.shape == (0,)
