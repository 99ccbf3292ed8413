"""Spectrograms show the tone that is there, previews sound like their recording, and neither needs a file."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ray_asd.data import audio
from ray_asd.errors import StageError, UserError
from ray_asd.report import sounds

RATE = 16_000


def tone(hertz: float, seconds: float = 2.0) -> np.ndarray:
    time = np.arange(int(RATE * seconds)) / RATE
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


@pytest.mark.parametrize("hertz", [250, 1000, 4000, 7500])
def test_a_tone_is_loudest_in_its_own_band(hertz: float) -> None:
    decibels = sounds.spectrogram(tone(hertz))
    mel = 2595 * np.log10(1 + hertz / 700)
    band = 96 * mel / (2595 * np.log10(1 + 8000 / 700))
    assert abs(int(decibels.mean(axis=1).argmax()) - band) <= 1.5
    assert np.isfinite(decibels).all()


@pytest.mark.parametrize("samples", [1, 100, 1024, RATE, 12 * RATE])
def test_clips_of_any_length_have_a_picture(samples: int) -> None:
    decibels = sounds.spectrogram(np.zeros(samples, np.float32))
    assert decibels.shape[0] == 96
    assert 1 <= decibels.shape[1] <= 420
    assert sounds.image(decibels, -80, 0).startswith("data:image/jpeg;base64,")


def test_a_preview_sounds_like_its_recording() -> None:
    data = audio.encode_preview(tone(440) * 3)  # louder than full scale: turned down, not clipped
    assert len(data) < 10_000 * 2
    heard, rate = soundfile.read(io.BytesIO(data))
    assert rate == RATE
    assert len(heard) == pytest.approx(2 * RATE, abs=0.2 * RATE)
    spectrum = np.abs(np.fft.rfft(heard[: 2 * RATE]))
    assert np.fft.rfftfreq(2 * RATE, 1 / RATE)[spectrum.argmax()] == pytest.approx(440, abs=2)
    assert np.sum(spectrum[870:891] ** 2) / np.sum(spectrum**2) > 0.99
    uri = sounds.player(tone(440))
    assert base64.b64decode(uri.removeprefix("data:audio/mpeg;base64,"))


def test_a_recording_is_cut_and_checked(tmp_path: Path) -> None:
    data = audio.encode_wav(np.stack([tone(440, 13), tone(880, 13)], axis=1), RATE)
    place = tmp_path / "a.wav"
    place.write_bytes(data)
    row = {"uri": str(place), "content_hash": audio.content_hash(data)}
    assert len(sounds.load(row, 0)) == 12 * RATE
    assert not np.array_equal(sounds.load(row, 0), sounds.load(row, 1))
    with pytest.raises(UserError, match="channel"):
        sounds.load(row, 2)
    with pytest.raises(StageError, match="has changed since"):
        sounds.load(row | {"content_hash": "another"}, 0)
    with pytest.raises(StageError, match="cannot be read any more"):
        sounds.load(row | {"uri": str(tmp_path / "b.wav")}, 0)
