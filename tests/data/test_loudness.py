"""Level and clipping, as ingest measures them while it decodes."""

import numpy as np
import pytest

from ray_asd.data import audio

RATE = 16_000
LENGTH = 2 * audio.BLOCK + 777  # two whole blocks and a part


def tone(amplitude: float, offset: float = 0.0) -> np.ndarray:
    return offset + amplitude * np.sin(2 * np.pi * 440 * np.arange(LENGTH) / RATE)


def decibels(waveform: np.ndarray) -> float:
    return 20 * np.log10(np.std(waveform, axis=0).max())


def heard(waveform: np.ndarray, subtype: str = "PCM_16", container: str = "WAV") -> tuple[float, float]:
    info = audio.inspect(audio.encode(waveform, RATE, container, subtype))
    assert info.level is not None
    assert info.clipped is not None
    return info.level, info.clipped


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_level_is_the_rms_in_decibels_of_full_scale(container: str) -> None:
    level, clipped = heard(tone(0.5), container=container)
    assert level == pytest.approx(-9.03, abs=0.01)
    assert clipped == 0
    assert heard(tone(0.25), container=container)[0] == pytest.approx(level - 6.02, abs=0.01)
    assert heard(np.sign(tone(0.99)) * 0.99)[0] == pytest.approx(-0.09, abs=0.01), "a square wave"


@pytest.mark.parametrize(("amplitude", "offset"), [(0.3, 0.4), (0.01, -0.5), (1e-4, 0.5), (2e3, 1e5)])
def test_an_offset_is_no_sound(amplitude: float, offset: float) -> None:
    assert heard(tone(amplitude, offset), "FLOAT")[0] == pytest.approx(decibels(tone(amplitude)), abs=0.1)


def test_of_the_channels_that_hear_something() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (LENGTH, 3))
    power = np.mean(np.var(noise, axis=0))
    assert heard(noise, "FLOAT")[0] == pytest.approx(10 * np.log10(power), abs=1e-3)
    stuck = np.stack([tone(0.5), np.ones(LENGTH)], axis=1)
    assert heard(stuck, "FLOAT") == (pytest.approx(-9.03, abs=0.01), 0.0)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT"])
def test_clipped_is_the_share_at_full_scale(subtype: str) -> None:
    loud = tone(2.0)
    expected = np.mean(np.abs(loud) >= 1)
    assert heard(np.clip(loud, -1, 1), subtype)[1] == pytest.approx(expected, abs=0.006)
    if subtype == "FLOAT":
        assert heard(loud, subtype)[1] == pytest.approx(expected, abs=0.001), "beyond it, too"
    assert heard(tone(0.97), subtype)[1] == 0
    assert heard(np.stack([np.clip(loud, -1, 1), tone(0.1)], axis=1), subtype)[1] == pytest.approx(
        expected / 2, abs=0.003
    )


def test_twelve_bits_that_stand_at_the_top_of_sixteen() -> None:
    converted = np.clip(np.round(tone(2.0) * 2048), -2048, 2047) / 2048
    assert heard(converted)[1] == pytest.approx(np.mean(np.abs(tone(2.0)) >= 1), abs=0.001)
