"""Each model is asked for the signature by which a maintainer would know the fault."""

import numpy as np
import pytest
from scipy import signal

from ray_asd.config import SAMPLE_RATE
from ray_asd.data import machines
from ray_asd.data.machines import Fault, bearing, fan, gearbox, slider, slider_motion, valve

SAMPLES = 8 * SAMPLE_RATE
SEEDS = range(3)


def sound(model, attributes: dict[str, str], kind: str | None = None, severity: float = 1.0, seed: int = 0):
    fault = Fault(kind, severity, np.random.default_rng(seed + 1000))
    return model(attributes, fault, SAMPLES, np.random.default_rng(seed))


def added(model, attributes: dict[str, str], kind: str, severity: float = 1.0, seed: int = 0):
    """What the fault alone contributes: everything else is the same by construction."""
    return sound(model, attributes, kind, severity, seed) - sound(model, attributes, seed=seed)


def line(spectrum_of: np.ndarray, frequency: float, tolerance: float = 0.02) -> float:
    """Peak of the amplitude spectrum near ``frequency`` over the median of its surroundings."""
    spectrum = np.abs(np.fft.rfft(spectrum_of - spectrum_of.mean()))
    axis = np.fft.rfftfreq(len(spectrum_of), 1 / SAMPLE_RATE)
    near = np.abs(axis - frequency) < tolerance * frequency
    around = np.abs(axis - frequency) < 0.25 * frequency
    return float(spectrum[near].max() / np.median(spectrum[around]))


def envelope(signal_in: np.ndarray, low: float, high: float) -> np.ndarray:
    band = signal.butter(4, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos")
    return np.abs(signal.hilbert(signal.sosfilt(band, signal_in)))


def band_rms(signal_in: np.ndarray, low: float, high: float) -> float:
    return float(np.std(signal.sosfilt(signal.butter(4, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos"), signal_in)))


@pytest.mark.parametrize(
    ("kind", "per_turn"),
    # 8 balls, d/D = 0.3: BPFO = 4 (1 - 0.3), BPFI = 4 (1 + 0.3), twice BSF = (1 - 0.09) / 0.3 per turn
    [("outer_race", 2.8), ("inner_race", 5.2), ("ball", 0.91 / 0.3)],
)
def test_a_bearing_defect_shows_in_the_envelope_at_its_frequency(kind: str, per_turn: float) -> None:
    for seed in SEEDS:
        healthy, faulty = (
            line(envelope(sound(bearing, {"vel": "14"}, k, 2.0, seed), 1500, 5000), 14 * per_turn) for k in (None, kind)
        )
        assert faulty > 1.3 * healthy


def test_an_inner_race_defect_is_modulated_by_the_shaft_and_an_outer_race_defect_is_not() -> None:
    strikes = {kind: envelope(added(bearing, {"vel": "14"}, kind), 1500, 5000) for kind in ("inner_race", "outer_race")}
    assert line(strikes["inner_race"], 14.0) > 3 * line(strikes["outer_race"], 14.0)


def test_poor_lubrication_is_broadband_and_high() -> None:
    extra = added(bearing, {"vel": "14"}, "poor_lubrication")
    assert band_rms(extra, 2500, 6500) > 4 * band_rms(extra, 100, 1000)


def test_a_fan_sings_at_the_blade_pass_frequency() -> None:
    blade_pass = machines.BLADES * machines.FAN_SPEED
    heard = sound(fan, {})
    assert line(heard, blade_pass, 0.04) > 10
    assert line(heard, blade_pass * 1.3, 0.04) < 10


def test_an_unbalanced_fan_sways_and_a_rubbing_one_bursts_once_per_turn() -> None:
    for kind in ("unbalance", "rubbing"):
        healthy, faulty = (line(envelope(sound(fan, {}, k), 1500, 5000), machines.FAN_SPEED, 0.04) for k in (None, kind))
        assert faulty > 2 * healthy


def test_a_damaged_blade_sounds_between_the_blade_pass_harmonics() -> None:
    extra = added(fan, {}, "damaged_blade")
    turn, blade_pass = machines.FAN_SPEED, machines.FAN_SPEED * machines.BLADES
    assert line(extra, 3 * turn, 0.04) > 50
    assert line(extra, 3 * turn, 0.04) > 20 * line(extra, blade_pass, 0.04)


def test_a_clogged_fan_loses_tone_and_gains_rumble() -> None:
    extra = added(fan, {}, "clogging")
    assert band_rms(extra, 60, 500) > 3 * band_rms(extra, 1500, 5000)


def sidebands(heard: np.ndarray, carrier: float, spacing: float) -> float:
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    axis = np.fft.rfftfreq(len(heard), 1 / SAMPLE_RATE)

    def peak(frequency: float) -> float:
        return float(spectrum[np.abs(axis - frequency) < 2].max())

    found = carrier + axis[np.abs(axis - carrier) < 0.03 * carrier][np.argmax(spectrum[np.abs(axis - carrier) < 0.03 * carrier])] - carrier
    return (peak(found - spacing) + peak(found + spacing)) / peak(found)


def test_an_eccentric_pinion_has_sidebands_at_the_shaft_rate() -> None:
    healthy, faulty = (sidebands(sound(gearbox, {"volt": "1.5", "wt": "0"}, k), 15 * machines.PINION, 15.0) for k in (None, "eccentricity"))
    assert faulty > 2 * healthy
