import numpy as np
import pytest
from scipy import signal

from ray_asd.config import SAMPLE_RATE
from ray_asd.data import toys
from ray_asd.data.machines import Attributes, Fault, Model
from ray_asd.data.toys import toy_car, toy_train

SAMPLES = 8 * SAMPLE_RATE
CAR = {"car": "A1", "spd": "3.1V"}
TRAIN = {"car": "A1", "spd": "8"}  # 0.4 m/s
MOTOR = toys.TURNS_PER_VOLT * 3.1  # rev/s


def sound(model: Model, attributes: Attributes, kind: str | None = None) -> np.ndarray:
    return model(attributes, Fault(kind, 1.0, np.random.default_rng(1)), SAMPLES, np.random.default_rng(0))


def added(model: Model, attributes: Attributes, kind: str) -> np.ndarray:
    return sound(model, attributes, kind) - sound(model, attributes)


def envelope(heard: np.ndarray) -> np.ndarray:
    """Amplitude averaged over 5 ms, 200 values per second."""
    return np.abs(heard).reshape(-1, SAMPLE_RATE // 200).mean(axis=1)


def rate(series: np.ndarray, per_second: float, low: float, high: float) -> float:
    """Frequency in Hz of the strongest line between ``low`` and ``high``."""
    spectrum = np.abs(np.fft.rfft((series - series.mean()) * np.hanning(len(series))))
    axis = np.fft.rfftfreq(len(series), 1 / per_second)
    return float(axis[spectrum == spectrum[(axis > low) & (axis < high)].max()][0])


def test_the_cars_gears_whine_at_teeth_times_motor_speed() -> None:
    teeth, _ = toys.CARS["A1"]
    assert rate(sound(toy_car, CAR), SAMPLE_RATE, 900, 1000) == pytest.approx(MOTOR * teeth, rel=0.035)


def test_more_voltage_makes_the_car_faster() -> None:
    slow, fast = (rate(sound(toy_car, {"car": "A1", "spd": volt}), SAMPLE_RATE, 700, 1200) for volt in ("2.8V", "3.4V"))
    assert fast / slow == pytest.approx(3.4 / 2.8, rel=0.07)


@pytest.mark.parametrize(
    ("kind", "per_second"),
    [("flat_tyre", MOTOR * toys.AXLE), ("deformed_gear", MOTOR / 2), ("bent_shaft", MOTOR * toys.AXLE)],
)
def test_a_faulty_part_of_the_car_returns_at_its_own_rate(kind: str, per_second: float) -> None:
    found = rate(envelope(added(toy_car, CAR, kind)), 200, 0.7 * per_second, 1.4 * per_second)
    assert found == pytest.approx(per_second, rel=0.04)


def test_worn_brushes_spark_at_each_commutation() -> None:
    sparks = np.abs(added(toy_car, CAR, "worn_brushes"))
    assert rate(sparks, SAMPLE_RATE, 500, 900) == pytest.approx(6 * MOTOR, rel=0.035)


def test_the_train_is_loudest_when_it_passes() -> None:
    heard = np.sqrt(np.mean(sound(toy_train, TRAIN).reshape(-1, SAMPLE_RATE // 2) ** 2, axis=1))
    assert heard.max() > 1.5 * heard.min()


def test_the_trains_gears_whine_at_teeth_times_wheel_speed() -> None:
    expected = 0.4 / toys.WHEEL * toys.TRAINS["A1"]
    assert rate(sound(toy_train, TRAIN), SAMPLE_RATE, 200, 300) == pytest.approx(expected, rel=0.035)


def test_a_chipped_wheel_clicks_once_per_turn() -> None:
    found = rate(envelope(added(toy_train, TRAIN, "chipped_wheel")), 200, 6, 12)
    assert found == pytest.approx(0.4 / toys.WHEEL, rel=0.04)


def test_a_broken_rail_is_passed_once_per_lap_by_every_axle() -> None:
    extra = np.abs(added(toy_train, TRAIN, "broken_rail"))
    clicks = signal.find_peaks(extra, height=0.3 * extra.max(), distance=int(0.07 * SAMPLE_RATE))[0] / SAMPLE_RATE
    passes = np.split(clicks, np.flatnonzero(np.diff(clicks) > 1.0) + 1)
    assert [len(group) for group in passes] == [4, 4]
    assert passes[1][0] - passes[0][0] == pytest.approx(toys.LAP / 0.4, rel=0.05)


def test_a_stone_scrapes_beside_the_knocks() -> None:
    knocks, scrape = (np.sort(np.abs(added(toy_train, TRAIN, kind))) for kind in ("broken_rail", "stone_on_rail"))
    assert np.mean(scrape > 0.1) > 2 * np.mean(knocks > 0.1)


def test_dry_flanges_squeal_in_the_two_curves_of_a_lap() -> None:
    squeal = envelope(added(toy_train, TRAIN, "flange_squeal"))
    loud = squeal > 0.3 * squeal.max()
    curves = np.sum(np.diff(loud.astype(int)) == 1)
    assert 2 <= curves <= 5  # two per lap, 8 s are 1.8 laps
    assert rate(added(toy_train, TRAIN, "flange_squeal"), SAMPLE_RATE, 2000, 4000) == pytest.approx(2900, rel=0.1)
