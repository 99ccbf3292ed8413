"""Each model is asked for the signature by which a maintainer would know the fault."""

import numpy as np
import pytest
from scipy import signal

from ray_asd.config import SAMPLE_RATE
from ray_asd.data import machines
from ray_asd.data.machines import Attributes, Fault, Model, bearing, fan, gearbox, slider, slider_motion, valve
from ray_asd.data.sound import Array

SAMPLES = 8 * SAMPLE_RATE
SEEDS = range(3)


def sound(model: Model, attributes: Attributes, kind: str | None = None, severity: float = 1.0, seed: int = 0) -> Array:
    fault = Fault(kind, severity, np.random.default_rng(seed + 1000))
    return model(attributes, fault, SAMPLES, np.random.default_rng(seed))


def added(model: Model, attributes: Attributes, kind: str, severity: float = 1.0, seed: int = 0) -> Array:
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
    band = signal.butter(4, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos")
    return float(np.std(signal.sosfilt(band, signal_in)))


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
        healthy, faulty = (
            line(envelope(sound(fan, {}, k), 1500, 5000), machines.FAN_SPEED, 0.04) for k in (None, kind)
        )
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
    """Amplitude of the two lines at ``spacing`` from the strongest line near ``carrier``, relative to it."""
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    axis = np.fft.rfftfreq(len(heard), 1 / SAMPLE_RATE)
    near = np.abs(axis - carrier) < 0.03 * carrier
    found = axis[near][spectrum[near].argmax()]
    below, above = (spectrum[np.abs(axis - found - shift) < 2].max() for shift in (-spacing, spacing))
    return float((below + above) / spectrum[near].max())


def test_an_eccentric_pinion_has_sidebands_at_the_shaft_rate() -> None:
    slow = {"volt": "1.5", "wt": "0"}  # 15 turns per second
    healthy, faulty = (
        sidebands(sound(gearbox, slow, kind), 15 * machines.PINION, 15) for kind in (None, "eccentricity")
    )
    assert faulty > 2 * healthy


def test_a_chipped_tooth_knocks_once_per_turn() -> None:
    extra = envelope(added(gearbox, {"volt": "1.5", "wt": "50"}, "chipped_tooth"), 800, 4000)
    assert line(extra, 15 / 1.02) > 25
    assert line(extra, 15 / 1.02) > 10 * line(extra, 1.5 * 15 / 1.02)


def test_a_worn_flank_raises_the_overtones_of_the_mesh() -> None:
    extra = added(gearbox, {"volt": "1.5", "wt": "0"}, "worn_flank")
    mesh = 15 * machines.PINION
    assert band_rms(extra, 1.8 * mesh, 2.2 * mesh) > 2 * band_rms(extra, 0.8 * mesh, 1.2 * mesh)


def test_load_makes_the_mesh_louder_and_a_dry_mesh_rasps_with_each_tooth() -> None:
    light, heavy = (sound(gearbox, {"volt": "1.5", "wt": wt}) for wt in ("0", "200"))
    assert band_rms(heavy, 320, 370) > 2 * band_rms(light, 320, 370)
    rasp = envelope(added(gearbox, {"volt": "1.5", "wt": "0"}, "dry_mesh"), 2500, 6000)
    assert line(rasp, 15 * machines.PINION) > 20


@pytest.mark.parametrize(("velocity", "acceleration"), [(0.5, 2.0), (0.9, 1.0)])  # a trapezium, a triangle
def test_the_slide_stays_on_its_rail_and_its_velocity_is_its_derivative(velocity: float, acceleration: float) -> None:
    time = np.arange(SAMPLES) / SAMPLE_RATE
    position, speed = slider_motion(velocity, acceleration, time)
    assert position.min() >= -1e-9
    assert position.max() == pytest.approx(machines.STROKE)
    assert np.abs(speed).max() <= velocity + 1e-9
    np.testing.assert_allclose(np.gradient(position, time), speed, atol=1e-3)


def test_the_screw_whines_higher_the_faster_the_slide() -> None:
    def centroid(heard: np.ndarray) -> float:
        spectrum = np.abs(np.fft.rfft(heard)) ** 2
        axis = np.fft.rfftfreq(len(heard), 1 / SAMPLE_RATE)
        band = (axis > 50) & (axis < 1500)
        return float(np.average(axis[band], weights=spectrum[band]))

    slow, fast = (centroid(sound(slider, {"vel": vel, "ac": "2.0"})) for vel in ("300", "700"))
    assert fast > 1.3 * slow


@pytest.mark.parametrize("kind", ["backlash", "damaged_rail"])
def test_a_slide_knocks_once_per_leg(kind: str) -> None:
    extra = np.abs(added(slider, {"vel": "500", "ac": "2.0"}, kind))
    onsets = np.flatnonzero(extra > 0.3 * extra.max()) / SAMPLE_RATE
    legs = SAMPLES / SAMPLE_RATE / (0.4 / 0.5 + 0.5 / 2.0 + 0.15)  # travel, ramp and rest in s
    assert 1 + np.sum(np.diff(onsets) > 0.1) == pytest.approx(legs, abs=1.1)


def test_stick_slip_happens_only_while_creeping_and_a_dry_rail_squeals_only_at_speed() -> None:
    attributes = {"vel": "500", "ac": "2.0"}
    slips = np.abs(added(slider, attributes, "stick_slip"))
    squeal = np.abs(added(slider, attributes, "dry_rail"))
    whirr = signal.sosfilt(signal.butter(2, 20, fs=SAMPLE_RATE, output="sos"), squeal)
    fast = whirr > 0.6 * whirr.max()
    assert slips[fast].mean() < 0.1 * slips[~fast].mean()


def test_a_leaking_valve_hisses_while_it_is_closed() -> None:
    healthy, leaking = (np.abs(sound(valve, {"pat": "00"}, kind)) for kind in (None, "leak"))
    frames = healthy.reshape(-1, 800).mean(axis=1)  # 50 ms
    closed = frames < 0.05 * frames.max()
    assert 0.2 < closed.mean() < 0.6
    assert leaking.reshape(-1, 800).mean(axis=1)[closed].min() > 10 * frames[closed].mean()


def test_a_sticking_valve_opens_late_and_softly() -> None:
    def openings(heard: Array) -> tuple[Array, Array]:
        """Times in s at which sound sets in after 0.2 s of silence, and the peaks of the 5 ms that follow."""
        loud = np.flatnonzero(np.abs(heard) > 0.1)
        starts = loud[1:][np.diff(loud) > 0.2 * SAMPLE_RATE]
        return starts / SAMPLE_RATE, np.array([np.abs(heard[start : start + 80]).max() for start in starts])

    (due, hard), (late, soft) = (openings(sound(valve, {"pat": "00"}, kind)) for kind in (None, "sticking"))
    assert len(due) == len(late) >= 7
    assert (late - due).min() > 0.01
    assert (late - due).max() < 0.075
    assert soft.mean() < 0.6 * hard.mean()


def test_a_worn_seat_bounces_after_closing_and_contamination_crackles_in_the_flow() -> None:
    healthy = np.abs(sound(valve, {"pat": "00"}))
    frames = healthy.reshape(-1, 800).mean(axis=1)
    flowing = np.roll(frames, 1) > 0.2
    bounce = np.abs(added(valve, {"pat": "00"}, "worn_seat")).reshape(-1, 800).mean(axis=1)
    crackle = np.abs(added(valve, {"pat": "00"}, "contamination")).reshape(-1, 800).mean(axis=1)
    assert np.mean(bounce > 0.2 * bounce.max()) < 0.2
    assert crackle[flowing].mean() > 5 * crackle[~flowing].mean()
