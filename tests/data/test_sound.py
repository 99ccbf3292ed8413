import numpy as np
import pytest

from ray_asd.config import SAMPLE_RATE
from ray_asd.data import sound
from ray_asd.data.sound import Place


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def amplitude(signal: np.ndarray, frequency: float) -> float:
    time = np.arange(len(signal)) / SAMPLE_RATE
    return float(2 * np.abs(np.mean(signal * np.exp(-2j * np.pi * frequency * time))))


def test_tones_have_the_amplitudes_asked_for() -> None:
    angle = sound.turns(np.full(SAMPLE_RATE, 200.0))
    heard = sound.tones(angle, (0.5, 0.0, 0.25), rng())
    found = [amplitude(heard, f) for f in (200, 400, 600, 800)]
    np.testing.assert_allclose(found, [0.5, 0.0, 0.25, 0.0], atol=1e-3)


def test_tones_above_the_limit_do_not_fold_back() -> None:
    angle = sound.turns(np.full(SAMPLE_RATE, 3000.0))
    heard = sound.tones(angle, (1.0, 1.0, 1.0), rng())  # the third would be 9 kHz and fold to 7 kHz
    np.testing.assert_allclose([amplitude(heard, f) for f in (3000, 6000, 7000)], [1.0, 1.0, 0.0], atol=1e-3)


def test_passages_are_locked_to_the_angle() -> None:
    angle = sound.turns(np.full(2 * SAMPLE_RATE, 5.0))
    times = sound.passages(angle, per_turn=2.0, rng=rng())
    np.testing.assert_allclose(np.diff(times), 0.1, atol=1e-6)
    assert 19 <= len(times) <= 20


def test_slip_spreads_the_intervals() -> None:
    angle = sound.turns(np.full(20 * SAMPLE_RATE, 50.0))
    intervals = np.diff(sound.passages(angle, 1.0, rng(), jitter=0.05))
    assert np.std(intervals) / np.mean(intervals) == pytest.approx(0.05, rel=0.1)


def test_a_knock_between_samples_is_shared_and_one_outside_is_dropped() -> None:
    train = sound.knocks(np.array([-0.1, 2.25 / SAMPLE_RATE, 1.0]), np.array([9.0, 4.0, 9.0]), samples=5)
    np.testing.assert_allclose(train, [0, 0, 3, 1, 0], atol=1e-9)


def test_ring_is_a_decaying_sine() -> None:
    impulse = np.zeros(400)
    impulse[0] = 1.0
    time = np.arange(400) / SAMPLE_RATE
    expected = 0.7 * np.exp(-time / 0.005) * np.sin(2 * np.pi * 1000 * time)
    np.testing.assert_allclose(sound.ring(impulse, [(1000.0, 0.005, 0.7)]), expected, atol=1e-9)


@pytest.mark.parametrize("samples", [SAMPLE_RATE * 4, SAMPLE_RATE * 4 + 1])
def test_noise_has_unit_rms_within_its_band(samples: int) -> None:
    heard = sound.noise(samples, rng(), 1000.0, 8000.0)
    power = np.abs(np.fft.rfft(heard)) ** 2
    frequency = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    octave_below, within = (power[np.abs(frequency - f) < 50].mean() for f in (500, 3000))
    assert len(heard) == samples
    assert np.std(heard) == pytest.approx(1.0, rel=0.03)
    assert octave_below / within == pytest.approx(1 / 17, rel=0.2)  # 1 + 2^4


def test_noise_falls_with_its_slope() -> None:
    power = np.abs(np.fft.rfft(sound.noise(SAMPLE_RATE * 4, rng(), 10.0, 8000.0, slope=0.5))) ** 2
    frequency = np.fft.rfftfreq(SAMPLE_RATE * 4, 1 / SAMPLE_RATE)
    low, high = (power[np.abs(frequency - f) < 50].mean() for f in (200, 2000))
    assert low / high == pytest.approx(10, rel=0.2)


def test_cosine_takes_turns() -> None:
    np.testing.assert_allclose(sound.cosine(np.array([0.0, 0.25, -0.5, 7.0])), [1, 0, -1, 1], atol=1e-6)


def test_wander_is_slow_and_as_long_as_asked() -> None:
    curve = sound.wander(SAMPLE_RATE * 3 + 5, rng(), rate=4.0)
    assert len(curve) == SAMPLE_RATE * 3 + 5
    assert np.abs(np.diff(curve)).max() < 8 * 4.0 / SAMPLE_RATE


def test_a_quieter_place_has_the_higher_signal_to_noise_ratio() -> None:
    silence = np.zeros(SAMPLE_RATE * 2)
    loud, quiet = (np.std(sound.record(silence, Place(snr=snr, events=0), rng())) for snr in (0.0, 20.0))
    assert loud / quiet == pytest.approx(10.0, rel=1e-3)


def test_a_microphone_lifts_its_peak() -> None:
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    for frequency, gain in ((2500.0, 2.0), (300.0, 1.0)):
        tone = np.sin(2 * np.pi * frequency * time)
        flat, lifted = (
            amplitude(sound.record(tone, Place(snr=60.0, events=0, lift=lift), rng()), frequency) for lift in (0.0, 1.0)
        )
        assert lifted / flat == pytest.approx(gain, rel=0.05)


def test_a_recording_never_leaves_full_scale() -> None:
    heard = sound.record(1000 * np.ones(SAMPLE_RATE) * (-1.0) ** np.arange(SAMPLE_RATE), Place(snr=0.0), rng())
    assert heard.dtype == np.float32
    assert np.abs(heard).max() <= 1.0
