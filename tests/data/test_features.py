import math
import sys

import numpy as np
import pytest

from ray_asd.data import features

RATE = 16_000


def slaney_hz(mel: float) -> float:
    """Slaney's scale (Auditory Toolbox, 1998): linear to 1 kHz at 15 mels, then a factor of 6.4 every 27 mels."""
    return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def reference_log_mel(waveform: np.ndarray) -> np.ndarray:
    """The pipeline written out in float64: periodic Hann, FFT, triangles of unit area, 10 log10."""
    padded = np.pad(waveform.astype(np.float64), 512)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    frames = [padded[start : start + 1024] * window for start in range(0, len(padded) - 1023, 512)]
    power = np.abs(np.fft.rfft(frames)) ** 2
    top = 15 + 27 * math.log(8000 / 1000) / math.log(6.4)
    edges = [slaney_hz(top * i / 129) for i in range(130)]
    bins = np.arange(513) * RATE / 1024
    mel = np.empty((128, len(frames)))
    for band in range(128):
        low, centre, high = edges[band : band + 3]
        triangle = np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)
        mel[band] = power @ (triangle * 2 / (high - low))
    return 10 * np.log10(np.maximum(mel, sys.float_info.epsilon))


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32)


def test_log_mel_equals_a_float64_reference(noise: np.ndarray) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    np.testing.assert_allclose(features.log_mel(noise), reference_log_mel(noise), atol=1e-3)
    audible = reference_log_mel(tone) > -60  # below lies the rounding of float32
    np.testing.assert_allclose(features.log_mel(tone)[audible], reference_log_mel(tone)[audible], atol=0.05)


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (511, 1), (512, 2), (1023, 2), (1024, 3), (160_000, 313)])
def test_every_length_has_its_frames(samples: int, frames: int) -> None:
    mel = features.log_mel(np.ones(samples, np.float32))
    assert mel.shape == (128, frames)
    assert mel.dtype == np.float32
    assert np.isfinite(features.log_mel_embedding(np.ones(samples, np.float32))).all()


def test_silence_is_at_the_floor() -> None:
    np.testing.assert_allclose(features.log_mel(np.zeros(2048, np.float32)), 10 * math.log10(2**-52), rtol=1e-6)


def test_log_mel_embedding_is_mean_and_deviation_per_band(noise: np.ndarray) -> None:
    embedding, reference = features.log_mel_embedding(noise), reference_log_mel(noise)
    assert embedding.shape == (256,)
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(embedding[:128], reference.mean(axis=1), atol=1e-3)
    np.testing.assert_allclose(embedding[128:], reference.std(axis=1), atol=1e-3)


def test_a_louder_clip_moves_the_means_alone(noise: np.ndarray) -> None:
    soft, loud = features.log_mel_embedding(noise), features.log_mel_embedding(10 * noise)
    np.testing.assert_allclose(loud[:128] - soft[:128], 20, atol=1e-3)
    np.testing.assert_allclose(loud[128:], soft[128:], atol=1e-3)


def test_the_spectral_embedding_is_mean_deviation_and_deviation_of_changes() -> None:
    wave = np.random.default_rng(0).standard_normal(8_000).astype(np.float32)
    mel = features.log_mel(wave).astype(np.float64)
    expected = np.concatenate([mel.mean(axis=1), mel.std(axis=1), np.diff(mel, axis=1).std(axis=1)])
    np.testing.assert_allclose(features.spectral_embedding(wave), expected, rtol=1e-4, atol=1e-4)
    short = features.spectral_embedding(wave[:100])
    assert short.shape == (384,)
    np.testing.assert_array_equal(short[256:], 0)
