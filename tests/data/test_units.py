"""A plant of simulated units over nights: what differs, what is shared, what fails, and that it can be repeated."""

import csv
import io
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from ray_asd import store
from ray_asd.config import SAMPLE_RATE
from ray_asd.data import unit_sound, units
from ray_asd.data.fleet import MACHINES
from ray_asd.data.listing import read_listing
from ray_asd.data.source import Source
from ray_asd.data.unit_sound import Session, Unit
from ray_asd.data.units import Plant
from ray_asd.errors import UserError

SMALL = Plant(units=3, nights=2, clips=2, seconds=1.0, healthy=3, faulty=0.4, growth=1, seed=7)


def content(root: str) -> dict[str, bytes]:
    return {entry.path: store.read(store.join(root, entry.path)) for entry in store.listing(root)}


def test_a_plant_is_what_its_settings_say_wherever_and_by_however_many_it_is_written(
    root: str, tmp_path: object
) -> None:
    told: list[tuple[int, int]] = []
    assert units.write(SMALL, root, 1, lambda done, total: told.append((done, total))) == 30
    assert told[-1] == (30, 30)
    written = content(root)
    other = f"{tmp_path}/other"
    assert units.write(SMALL, other, 2) == 30
    assert content(other) == written
    assert {path.split("/")[0] for path in written} == {"enrol", "2025-03-01", "2025-03-02", "faults.csv", "plant.json"}
    assert units.write(SMALL, root) == 30
    with pytest.raises(UserError, match="describes another fleet; allowed: the same settings, or another place"):
        units.write(replace(SMALL, seed=8), root)
    recordings = [data for path, data in written.items() if path.endswith(".wav")]
    assert len(set(recordings)) == len(recordings) == 30


def test_paths_say_machine_and_time(tmp_path: object) -> None:
    units.write(SMALL, str(tmp_path))
    night = read_listing(Source(f"{tmp_path}/2025-03-02", pattern=units.PATTERN, split="test"))
    rows = list(night.clips.rows())
    assert len(rows) == 6
    assert not len(night.rejected)
    assert {(row["machine_type"], row["machine_id"]) for row in rows} == {SMALL.machine(unit) for unit in range(3)}
    assert {row["recorded_at"].date() for row in rows} == {date(2025, 3, 2)}
    enrolled = read_listing(Source(f"{tmp_path}/enrol", pattern=f"{{split}}/{units.PATTERN}"))
    found = [(row["split"], row["recorded_at"].date()) for row in enrolled.clips.rows()]
    assert {split: {day for own, day in found if own == split} for split in ("train", "calibration")} == {
        "train": {date(2025, 2, 26), date(2025, 2, 27)},
        "calibration": {date(2025, 2, 28)},
    }


def test_faults_begin_on_nights_that_leave_time_and_grow_to_what_they_will_be(tmp_path: object) -> None:
    plant = Plant(units=200)
    failing = units.faults(plant)
    assert len(failing) == len({one.unit for one in failing}) == 20
    for one in failing:
        assert one.kind in MACHINES[plant.machine(one.unit)[0]].faults
        assert one.nominal - one.first == timedelta(plant.growth)
        assert plant.dates[0] < one.first
        assert one.nominal + timedelta(2) <= plant.dates[-1]
        grown = [one.severity(night) for night in (one.first - timedelta(1), one.first, one.nominal, plant.dates[-1])]
        assert grown == [0.0, pytest.approx(0.2), 1.0, 1.0]
    assert len({one.first for one in failing}) > 4
    assert units.faults(replace(plant, seed=1)) != failing
    units.write(SMALL, str(tmp_path))
    (row,) = csv.DictReader(io.StringIO(store.read(f"{tmp_path}/faults.csv").decode()))
    (only,) = units.faults(SMALL)
    assert (row["machine_type"], row["machine_id"]) == SMALL.machine(only.unit)
    assert (row["fault"], row["first_night"], row["nominal_night"]) == (only.kind, str(only.first), str(only.nominal))


def test_a_fault_of_severity_0_is_the_healthy_recording_and_grows_from_there() -> None:
    for machine, kind in ((machine, kind) for machine, type_ in MACHINES.items() for kind in type_.faults[:1]):
        unit, session = Unit.drawn(machine, (1,)), Session.drawn((2,))
        healthy, mute, slight, full = (
            unit_sound.render(unit, session, (fault, severity), 2 * SAMPLE_RATE, (3,))
            for fault, severity in ((None, 0.0), (kind, 0.0), (kind, 0.5), (kind, 1.0))
        )
        assert np.array_equal(healthy, mute)
        assert 0 < np.std(slight - healthy) < np.std(full - healthy)
        assert np.abs(full).max() <= 1


def test_units_differ_and_clips_of_a_night_are_more_alike_than_those_of_several() -> None:
    """By level, one of the things that a night shares: its share in the variance of a unit's clips."""
    levels = np.array(
        [
            [
                [
                    10
                    * np.log10(
                        np.mean(np.square(unit_sound.render(unit, session, (None, 0), SAMPLE_RATE, (night, clip))))
                    )
                    for clip in range(3)
                ]
                for night, session in ((night, Session.drawn((unit_number, night))) for night in range(12))
            ]
            for unit_number, unit in ((number, Unit.drawn("fan", (number,))) for number in range(3))
        ]
    )
    within, between = levels.var(axis=2, ddof=1).mean(), levels.mean(axis=2).var(axis=1, ddof=1).mean()
    assert between / (between + within) > 0.3
    assert len({Unit.drawn("fan", (number,)).place for number in range(3)}) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"machines": ("fan", "pump")}, "unknown machine 'pump'; allowed: bearing"),
        ({"machines": ("fan", "fan")}, "machines fan,fan: allowed: each once"),
        ({"units": 0}, "units 0: allowed: 1 to 100000"),
        ({"healthy": 2}, "healthy 2: allowed: 3 to"),
        ({"faulty": 1.5}, "faulty 1.5: allowed: a share of the units, 0 to 1"),
        ({"seconds": 0.5}, "seconds 0.5: allowed: 1.0 or more"),
        ({"severity": -1.0}, "severity -1.0: allowed"),
        ({"seed": -1}, "seed -1: allowed"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Plant(**settings)  # type: ignore[arg-type]
