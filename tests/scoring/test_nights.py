"""Nights: decisions on machines against sums done one by one, and what rates they keep on simulated fleets."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from plants import SCHEMA, START, Plant
from scipy import stats

from ray_asd import tables
from ray_asd.errors import UserError
from ray_asd.fleet_tables import DECISIONS, MACHINE, NIGHTS
from ray_asd.scoring import nights, standards
from ray_asd.scoring.nights import BY_CLIPS, BY_NIGHTS
from ray_asd.scoring.rules import Settings

NO_PAST, NO_CALIBRATION = NIGHTS.empty_table(), tables.CALIBRATION.empty_table()


def scores(values, machine="a", domain="source", unit=None):
    """Clips of one machine in one night."""
    named = {"machine_type": machine, "section": "00", "domain": domain, "machine_id": unit, "model_digest": "d"}
    rows = [named | {"clip_id": f"{machine}/{number}.wav", "score": value} for number, value in enumerate(values)]
    return pa.Table.from_pylist(rows, SCHEMA)


def past_of(*tables_of_nights):
    """NIGHTS, one after the other."""
    found = [nights.summary(table, START + timedelta(days=day)) for day, table in enumerate(tables_of_nights)]
    return pa.concat_tables([NO_PAST, *found])


def calibration(values, machine="a", domain="source"):
    rows = [
        {"machine_type": machine, "section": "00", "clip_id": f"{number:05d}", "domain": domain, "score": value}
        | {"source": "calibration"}
        for number, value in enumerate(values)
    ]
    return pa.Table.from_pylist(rows, tables.CALIBRATION)


def played(plant, days, calibration_days, times, faulty=4):
    """Per night: the share of healthy machines among alarms, of the faulty ones found, and of small p-values."""
    found = []
    for _ in range(times):
        night = START + timedelta(days=days)
        given = plant.past(days) if days else NO_PAST
        known = plant.calibration(calibration_days) if calibration_days else NO_CALIBRATION
        decisions = nights.decide(plant.tonight(worse=3.5, faulty=faulty), night, given, known)
        alarm = decisions["alarm"].to_numpy(zero_copy_only=False).astype(bool)
        small = decisions["p_value"].to_numpy()[faulty:] <= 0.05
        found.append((alarm[faulty:].sum() / max(alarm.sum(), 1), alarm[:faulty].mean(), small.mean()))
    rules = set(decisions["rule"].to_pylist())
    return np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(times), rules


def test_past_nights_find_faults_and_keep_the_rate_of_false_discoveries():
    (false, power, small), error, rules = played(Plant(), days=38, calibration_days=0, times=40)
    assert rules == {BY_NIGHTS}
    assert false == pytest.approx(0.06, abs=0.05)
    assert false <= 0.1 + 2 * error[0]
    assert power >= 0.9
    assert small == pytest.approx(0.05, abs=4 * error[2])


def test_ten_nights_are_enough_for_a_fleet():
    (false, power, small), error, rules = played(Plant(seed=1), days=10, calibration_days=0, times=40)
    assert rules == {BY_NIGHTS}
    assert false <= 0.1 + 2 * error[0]
    assert power >= 0.8
    assert small == pytest.approx(0.05, abs=4 * error[2])


def test_without_past_nights_clips_find_faults_and_keep_the_rate():
    """Their calibration clips are of 38 nights, whose level they share."""
    (false, power, small), error, rules = played(Plant(seed=2), days=0, calibration_days=38, times=40)
    assert rules == {BY_CLIPS}
    assert false <= 0.1 + 2 * error[0]
    assert power >= 0.75
    assert 0.02 <= small <= 0.06


def test_clips_combined_as_if_independent_would_not_keep_it():
    """What the unit of decision is for: the same nights, with the p-values of a machine's clips combined by Fisher."""
    plant = Plant(seed=3)
    new, old = standards.clips(plant.tonight(worse=3.5, faulty=4), plant.calibration(38))
    p_values = nights.p_values(new, old).reshape(plant.machines, plant.clips)
    combined = stats.chi2.sf(-2 * np.log(p_values).sum(axis=1), 2 * plant.clips)
    alarm = stats.false_discovery_control(combined) <= 0.1
    assert alarm[4:].sum() / alarm.sum() > 0.5


@pytest.mark.parametrize("clips", [1, 3])
def test_healthy_fleets_with_nights_of_uneven_length_get_even_p_values(clips):
    """Machines of which few clips come vary more, and are told so."""
    long, short = Plant(machines=60, clips=12, seed=4), Plant(machines=60, clips=clips, seed=5)
    short.names = np.array([f"short {name}" for name in short.names])
    shares = []
    for _ in range(20):
        given = pa.concat_tables([long.past(15), short.past(15)])
        scored = pa.concat_tables([long.tonight(), short.tonight()])
        found = nights.decide(scored, START + timedelta(days=15), given, NO_CALIBRATION)
        small = found["p_value"].to_numpy() <= 0.05
        shares.append((small[:60].mean(), small[60:].mean()))
    error = np.std(shares, axis=0) / np.sqrt(len(shares))
    np.testing.assert_array_less(np.abs(np.mean(shares, axis=0) - 0.05), 0.01 + 3 * error)


def test_by_hand():
    """Two machines, two domains, nights of uneven length; each night in the unit of the machine's others."""
    rng = np.random.default_rng(0)
    lengths = {("a", "source"): (3, 5, 4, 6, 2), ("a", "target"): (2, 2, 1, 3, 4), ("b", "source"): (4, 1, 4, 4, 3)}
    drawn = {key: [rng.normal(size=count) for count in counts] for key, counts in lengths.items()}
    of_nights = [pa.concat_tables([scores(drawn[key][day], *key) for key in drawn]) for day in range(5)]
    night = START + timedelta(days=4)
    found = nights.decide(of_nights[4], night, past_of(*of_nights[:4]), NO_CALIBRATION, Settings(0.5, min_nights=2))

    units, within, freedom = {}, 0.0, 0
    for key, all_nights in drawn.items():
        for day, values in enumerate(all_nights):
            others = np.concatenate([other for at, other in enumerate(all_nights) if at != day])
            spread = others.std(ddof=1)
            unit = (values.mean() - others.mean()) / spread / np.sqrt(1 + 1 / 4)
            units[(*key, day)] = (len(values), unit)
            within, freedom = within + values.var() * len(values) / spread**2, freedom + len(values) - 1
    shared = np.clip(1 - within / freedom, 0, 1)
    expected = {}
    for machine in "ab":
        for day in range(5):
            own = [units[key] for key in units if key[0] == machine and key[2] == day]
            total = sum(count for count, _ in own)
            mean = sum(count * unit for count, unit in own) / total
            expected[machine, day] = mean / np.sqrt(shared + (1 - shared) / total)
    old = [value for (_, day), value in expected.items() if day < 4]
    for row in found.to_pylist():
        statistic = expected[row["machine_type"], 4]
        assert row["statistic"] == pytest.approx(statistic, rel=1e-9)
        assert row["p_value"] == (1 + sum(value >= statistic for value in old)) / 9
        assert (row["smallest"], row["night"], row["rule"], row["detail"]) == (1 / 9, night, BY_NIGHTS, None)
    assert found.schema == DECISIONS
    assert found["clips"].to_pylist() == [6, 3]
    np.testing.assert_allclose(found["q_value"], stats.false_discovery_control(found["p_value"].to_numpy()))
    assert found["alarm"].to_pylist() == [value <= 0.5 for value in found["q_value"].to_pylist()]


def test_clips_by_hand():
    """Parts of two clips each, in the unit of the other eighteen; the lowest p-value times the number of clips."""
    rng = np.random.default_rng(1)
    known = {machine: rng.normal(loc, scale, 20) for machine, loc, scale in (("a", 0, 1), ("b", 50, 9))}
    new = {"a": [0.3, 1.9, -1.0], "b": [51.0]}
    given = pa.concat_tables([calibration(values, machine) for machine, values in known.items()])
    mixed = given.take(pa.array(rng.permutation(40)))
    tonight = pa.concat_tables([scores(values, machine) for machine, values in new.items()])
    old = []
    for values in known.values():
        for place, value in enumerate(values):
            others = np.delete(values, [place // 2 * 2, place // 2 * 2 + 1])
            old.append((value - others.mean()) / others.std(ddof=1))
    for row in nights.decide(tonight, START, NO_PAST, mixed).to_pylist():
        values = known[row["machine_type"]]
        units = (np.array(new[row["machine_type"]]) - values.mean()) / values.std(ddof=1)
        lowest = min((1 + sum(np.array(old) >= unit)) / 41 for unit in units)
        assert row["p_value"] == pytest.approx(min(len(units) * lowest, 1), rel=1e-12)
        assert row["statistic"] == pytest.approx(units.mean(), rel=1e-9)
        assert row["smallest"] == len(units) / 41


def test_a_domain_that_always_sounds_odd_is_no_fault():
    rng = np.random.default_rng(2)
    days = [
        pa.concat_tables([scores(rng.normal(size=6), "a"), scores(rng.normal(8, 1, size=2), "a", "target")])
        for _ in range(12)
    ]
    only_target = scores(rng.normal(8, 1, size=6), "a", "target")
    found = nights.decide(only_target, START + timedelta(days=12), past_of(*days), NO_CALIBRATION)
    assert found["p_value"][0].as_py() > 0.05
    known = pa.concat_tables(
        [calibration(rng.normal(size=40)), calibration(rng.normal(8, 1, size=20), domain="target")]
    )
    found = nights.decide(only_target, START, NO_PAST, known)
    assert found["p_value"][0].as_py() > 0.1
    few = pa.concat_tables([calibration(rng.normal(size=40)), calibration(rng.normal(8, 1, size=19), domain="target")])
    assert np.isfinite(standards.clips(only_target, few)[0]).all(), "of too few to tell, all clips are the standard"


def test_order_of_rows_and_later_nights_change_nothing():
    plant = Plant(machines=12, seed=6)
    tonight, past, known = plant.tonight(worse=3.0, faulty=2), plant.past(14), plant.calibration(5)
    night = START + timedelta(days=11)
    found = nights.decide(tonight, night, past, known)
    before = past.filter(np.array([day < night for day in past["night"].to_pylist()]))
    assert len(before) == 12 * 11
    shuffled = [table.take(pa.array(plant.rng.permutation(len(table)))) for table in (tonight, before, known)]
    again = nights.decide(shuffled[0], night, *shuffled[1:])
    assert again.drop_columns(["statistic"]).equals(found.drop_columns(["statistic"]))
    np.testing.assert_allclose(again["statistic"], found["statistic"], rtol=1e-9)
    assert found["section"].to_pylist() == sorted(found["section"].to_pylist())


def test_another_detector_has_other_scores():
    """Its first nights are compared by clips, its tenth with all nights, each in the unit of its own detector."""
    plant = Plant(machines=30, seed=8)
    known, before = plant.calibration(10), plant.past(15)
    plant.detector, plant.level = "another", plant.level + 100
    after = plant.past(10)
    later = [day + timedelta(days=15) for day in after["night"].to_pylist()]
    after = after.set_column(after.column_names.index("night"), NIGHTS.field("night"), pa.array(later, pa.date32()))
    past, tonight = pa.concat_tables([before, after]), plant.tonight()
    ninth = nights.decide(tonight, START + timedelta(days=24), past, known)
    assert set(ninth["rule"].to_pylist()) == {BY_CLIPS}
    tenth = nights.decide(tonight, START + timedelta(days=25), past, known)
    assert set(tenth["rule"].to_pylist()) == {BY_NIGHTS}
    assert set(tenth["smallest"].to_pylist()) == {1 / (30 * 25 + 1)}
    assert 0.2 < np.mean(tenth["p_value"].to_numpy()) < 0.8


def test_units_of_one_kind_are_machines_of_their_own():
    rng = np.random.default_rng(3)
    days = [
        pa.concat_tables(
            [scores(rng.normal(10 * number, 1, 5), unit=unit) for number, unit in enumerate(("x", "y", None))]
        )
        for _ in range(13)
    ]
    found = nights.decide(days[12], START + timedelta(days=12), past_of(*days[:12]), NO_CALIBRATION)
    assert found["machine_id"].to_pylist() == ["x", "y", None]
    assert min(found["p_value"].to_pylist()) > 0.02, "each in its own unit"


def test_which_machines_could_alarm_is_told():
    plant = Plant(machines=20, seed=7)
    night = START + timedelta(days=10)
    stranger = pa.concat_tables([plant.tonight(), scores([1.0, 2.0], "new")])
    found = nights.decide(stranger, night, plant.past(10), NO_CALIBRATION).to_pylist()
    assert {row["smallest"] for row in found[:20]} == {1 / 201}
    assert [row["could_alarm"] for row in found] == [True] * 20 + [False], "201 nights against 20 machines at 0.1"
    assert (found[20]["rule"], found[20]["alarm"], found[20]["p_value"]) == (None, None, None)
    assert found[20]["detail"] == "0 past nights of 10, and no 20 calibration clips of its kind"
    table = pa.Table.from_pylist(found, DECISIONS)
    compared = "20 are compared with past nights, 0 with calibration clips, 1 are learning"
    assert nights.could_alarm(table) == f"20 of 21 machines could alarm alone: {compared}"
    nine = nights.decide(plant.tonight(), night - timedelta(days=1), plant.past(10), NO_CALIBRATION)
    assert nine["detail"][0].as_py().startswith("9 past nights of 10")
    thin = nights.decide(plant.tonight(), night, plant.past(10), NO_CALIBRATION, Settings(rate=0.05))
    assert set(thin["could_alarm"].to_pylist()) == {False}, "400 would be needed"
    assert set(thin["rule"].to_pylist()) == {BY_NIGHTS}
    finer = nights.decide(plant.tonight(), night, plant.past(10), plant.calibration(20), Settings(rate=0.05))
    assert set(finer["rule"].to_pylist()) == {BY_CLIPS}, "8 in 3201 is less than 1 in 400"


def test_nothing_scored_and_nothing_that_differs():
    empty = nights.decide(SCHEMA.empty_table(), START, NO_PAST, NO_CALIBRATION)
    assert empty.equals(DECISIONS.empty_table())
    same = scores([1.0] * 4)
    found = nights.decide(same, START + timedelta(days=12), past_of(*[same] * 12), calibration([1.0] * 30))
    assert found["rule"].to_pylist() == [None], "scores that are all equal have no unit"


def test_a_night_in_short():
    table = pa.concat_tables([scores([1.0, 2.0, 6.0]), scores([5.0], "b", None)])
    found = {row["machine_type"]: row for row in nights.summary(table, START).to_pylist()}
    assert found["a"] | {"deviations": 0} == dict(zip(MACHINE, ("a", "00", None), strict=True)) | {
        "domain": "source", "model_digest": "d", "night": START, "clips": 3, "mean": 3.0, "deviations": 0,
        "nearest": [],
    }  # fmt: skip
    assert found["a"]["deviations"] == pytest.approx(14)
    hashes = [[64 * "a", 64 * "b"], [], [64 * "c"], [64 * "d"]]  # a baseline has no neighbours
    table = table.append_column("neighbour_hashes", pa.array(hashes))
    nearest = {row["machine_type"]: row["nearest"] for row in nights.summary(table, START).to_pylist()}
    assert nearest == {"a": [12 * "a", 12 * "c"], "b": [12 * "d"]}
    assert (found["b"]["domain"], found["b"]["deviations"]) == (None, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 0}, r"^--rate 0: no share of false alarms; allowed: between 0 and 1$"),
        ({"rate": 1.5}, r"^--rate 1.5: no share"),
        ({"min_nights": 1}, r"^--min-nights 1: too few to tell how nights differ; allowed: 2 or more$"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(UserError, match=message):
        Settings(**settings)
