from collections.abc import Callable

import numpy as np
import pytest

from ray_asd.config import Augmentation
from ray_asd.data import augment, layouts
from ray_asd.errors import UserError

RATE = 16_000
SPEEDS = [0.9, 1.1]
Signal = Callable[[np.ndarray, float], np.ndarray]


def stationary(frequencies: list[float]) -> Signal:
    """Partials that keep their frequency at every speed, of amplitude 1/n and arbitrary phase."""
    partials = list(enumerate(frequencies, 1))
    return lambda t, _: sum((np.cos(2 * np.pi * f * t + 1.7 * n * n) / n for n, f in partials), np.zeros_like(t))


def chirp(start: float, slope: float, harmonics: int = 1) -> Signal:
    """Its instantaneous frequency at time t, played ``speed`` times as fast, is that of the original at speed * t."""

    def signal(t: np.ndarray, speed: float) -> np.ndarray:
        turns = (start * speed * t + slope / 2 * (speed * t) ** 2) / speed
        return sum((np.cos(2 * np.pi * n * turns + n) / n for n in range(1, harmonics + 1)), np.zeros_like(t))

    return signal


def snr(actual: np.ndarray, expected: np.ndarray, edge: int = 2048) -> float:
    """dB, away from the ends, where half a frame is missing."""
    error = (actual - expected)[edge:-edge]
    return float(10 * np.log10(np.square(expected[edge:-edge]).sum() / np.square(error).sum()))


def frequency(waveform: np.ndarray) -> float:
    """Hz of the strongest partial: interpolated peak of a windowed spectrum."""
    spectrum = np.log(np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 4 * len(waveform))))
    peak = int(spectrum.argmax())
    left, middle, right = spectrum[peak - 1 : peak + 2]
    offset = (left - right) / (left - 2 * middle + right) / 2
    return float(peak + offset) * RATE / (4 * len(waveform))


def play(signal: Signal, seconds: float, speed: float = 1.0) -> np.ndarray:
    return signal(np.arange(round(seconds * RATE)) / RATE, speed).astype(np.float32)


@pytest.mark.parametrize("speed", [*SPEEDS, 0.5, 0.937, 1.25, 2.0])
@pytest.mark.parametrize("mode", ["resample", "stretch"])
@pytest.mark.parametrize("samples", [1, 100, 1599, 16_000, 53_211])
def test_length_is_exact_and_a_repeat_is_equal(speed: float, mode: str, samples: int) -> None:
    waveform = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    changed = augment.change_speed(waveform, speed, mode)
    assert abs(len(changed) - samples / speed) <= 0.5 + 1e-9
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    assert augment.change_speed(waveform, speed, mode).tobytes() == changed.tobytes()


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("pitch", [60.0, 440.0, 3000.0])
def test_pitch_moves_with_resampling_and_stays_under_stretching(speed: float, pitch: float) -> None:
    tone = play(stationary([pitch]), 3)
    assert frequency(augment.change_speed(tone, speed, "resample")) == pytest.approx(speed * pitch, rel=5e-3)
    assert frequency(augment.change_speed(tone, speed, "stretch")) == pytest.approx(pitch, rel=5e-3)


@pytest.mark.parametrize("speed", SPEEDS)
def test_resampling_is_the_signal_read_faster(speed: float) -> None:
    signal = stationary([110.0 * n for n in range(1, 50)])
    fast = augment.change_speed(play(signal, 2), speed, "resample")
    assert snr(fast, signal(speed * np.arange(len(fast)) / RATE, 1.0)) > 60


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize(
    ("signal", "least"),
    [
        (stationary([1000.3]), 100),
        (stationary([50.0 * n for n in range(1, 40)]), 35),
        (stationary([237.3 * n for n in range(1, 32)]), 70),
        (chirp(300, 100), 45),
        (chirp(150, 10, harmonics=14), 45),
    ],
    ids=["tone", "mains hum", "harmonics", "chirp", "run-up"],
)
def test_stretching_equals_the_analytic_signal(signal: Signal, least: float, speed: float) -> None:
    """Phase included: partials run on as in the formula, over 5 s."""
    stretched = augment.change_speed(play(signal, 5), speed, "stretch")
    assert snr(stretched, signal(np.arange(len(stretched)) / RATE, speed)) > least


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("mode", ["resample", "stretch"])
def test_chirp_passes_each_pitch_at_the_scaled_time(speed: float, mode: str) -> None:
    changed = augment.change_speed(play(chirp(500, 400), 5), speed, mode)
    for time in (1.0, 2.0, 3.0, 4.0):  # seconds of the original
        middle = round(time / speed * RATE)
        expected = (500 + 400 * time) * (speed if mode == "resample" else 1)
        assert frequency(changed[middle - 512 : middle + 512]) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("mode", ["resample", "stretch"])
def test_strokes_come_at_the_scaled_period(speed: float, mode: str) -> None:
    waveform = np.zeros(5 * RATE, np.float32)
    waveform[4000::8000] = 1
    changed = np.abs(augment.change_speed(waveform, speed, mode))
    for stroke in range(4000, 5 * RATE, 8000):
        expected = round(stroke / speed)
        found = expected - 2000 + changed[expected - 2000 : expected + 2000].argmax()
        assert abs(found - expected) <= (1 if mode == "resample" else 0.008 * RATE)


def test_speed_one_stretches_to_the_original() -> None:
    waveform = np.random.default_rng(0).standard_normal(40_000).astype(np.float32)
    np.testing.assert_allclose(augment.change_speed(waveform, 1.0, "stretch"), waveform, atol=1e-5)


def test_level_of_noise_is_kept_and_silence_stays_silent() -> None:
    noise = np.random.default_rng(0).standard_normal(5 * RATE).astype(np.float32)
    noise[20_000:40_000] = 0
    for speed in SPEEDS:
        stretched = augment.change_speed(noise, speed, "stretch")
        assert stretched[round(44_000 / speed) :].std() == pytest.approx(1, abs=0.15)
        assert not stretched[round(22_000 / speed) : round(38_000 / speed)].any()


def test_blocks_of_frames_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    waveform = play(chirp(200, 50, harmonics=5), 5)
    whole = augment.change_speed(waveform, 0.9, "stretch")
    monkeypatch.setattr(augment, "FRAMES_AT_ONCE", 7)
    np.testing.assert_allclose(augment.change_speed(waveform, 0.9, "stretch"), whole, atol=1e-4)


def test_variants_are_every_speed_in_every_mode_once() -> None:
    assert augment.variants(Augmentation()) == [
        (0.9, "resample"),
        (0.9, "stretch"),
        (1.1, "resample"),
        (1.1, "stretch"),
    ]
    assert augment.variants(Augmentation(speeds=(1.2, 1.2), modes=("stretch",))) == [(1.2, "stretch")]


def test_absurd_speeds_are_refused() -> None:
    with pytest.raises(UserError, match=r"speeds: 5 is out of bounds; allowed: 0\.25 to 4"):
        augment.variants(Augmentation(speeds=(5.0,)))


def clip(section: str = "00", **attributes: str) -> dict[str, object]:
    condition = layouts.condition("shaker", section, attributes)
    pairs = list(attributes.items())
    return {"machine_type": "shaker", "section": section, "attributes": pairs, "condition": condition}


def test_condition_follows_the_label_policy() -> None:
    parent = clip(speed="12", loc="A")
    assert augment.condition(parent, 0.9, "stretch", "new_class") == "shaker|loc=A|speed=12|speed=0.9|stretch"
    assert augment.condition(parent, 0.9, "stretch", "keep") == "shaker|loc=A|speed=12"
    assert augment.condition(parent, 0.9, "stretch", "drop_speed_attrs") == "shaker|loc=A"


def test_a_dropped_speed_leaves_the_section() -> None:
    parents = [clip("01", vel="6"), clip("02", vel="6"), clip("01", vel="6", loc="A")]
    found = [augment.condition(parent, 0.9, "resample", "drop_speed_attrs") for parent in parents]
    assert found == ["shaker|section=01", "shaker|section=02", "shaker|loc=A|section=01"]


@pytest.mark.parametrize(
    ("key", "dropped"),
    [
        *((key, True) for key in ("vel", "Speed", "spd", "car_spd_mic", "m-rpm")),
        *((key, False) for key in ("level", "m-n", "velvet", "car_mic")),
    ],
)
def test_speed_attributes_are_told_by_their_words(key: str, dropped: bool) -> None:
    kept = augment.condition(clip(**{key: "1"}), 1.1, "resample", "drop_speed_attrs")
    assert kept == ("shaker" if dropped else f"shaker|{key}=1")


@pytest.mark.parametrize("policy", ["new_class", "keep", "drop_speed_attrs"])
def test_without_attributes_only_a_new_class_differs_and_unknown_stays_unknown(policy: str) -> None:
    assert augment.condition(clip(), 1.1, "resample", policy) == (
        "shaker|speed=1.1|resample" if policy == "new_class" else "shaker"
    )
    bare = {"machine_type": "fan", "section": "00", "attributes": None, "condition": None}
    assert augment.condition(bare, 1.1, "resample", policy) is None
    assert augment.condition(bare | {"condition": "fan"}, 1.1, "resample", "drop_speed_attrs") == "fan"
