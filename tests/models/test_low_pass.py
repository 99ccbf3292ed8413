"""The filter of systems trained on resampled clips: what it takes away, what it leaves, and that rows do not mix."""

import numpy as np
import pytest
import torch

from ray_asd.config import Augmentation
from ray_asd.data.augment import change_speed
from ray_asd.data.features import log_mel
from ray_asd.models.low_pass import ATTENUATION, TRANSITION, LowPass
from small_models import noise

RATE = 16_000
STOP = 0.91 * 0.9 * RATE / 2  # Hz
HALF = 137  # samples on either side that a sample depends on
RESAMPLED = Augmentation(speeds=(0.9, 1.1), modes=("resample", "stretch"))


def heard(waveform: np.ndarray) -> np.ndarray:
    low_pass = LowPass.against(RESAMPLED)
    assert low_pass is not None
    return low_pass(torch.from_numpy(waveform)[None])[0].numpy()


def tone(frequency: float) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE).astype(np.float32)


def top_of(waveform: np.ndarray) -> np.ndarray:
    """Level [3] of the three highest mel bands in dB, relative to the bands well inside the pass band."""
    levels = log_mel(waveform)[:, 2:-2].mean(axis=1)  # the ends of a clip are no part of its spectrum
    return levels[-3:] - levels[20:80].mean()


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_the_top_of_the_band_does_not_tell_a_resampled_clip(speed: float) -> None:
    original = noise(3.0)
    variant = change_speed(noise(3.0, seed=1), speed, "resample")
    difference = np.abs(top_of(heard(original)) - top_of(heard(variant)))
    assert difference.max() < 6
    assert top_of(heard(original)).max() < -100
    if speed < 1:
        assert np.abs(top_of(original) - top_of(variant)).max() > 60


@pytest.mark.parametrize("frequency", [0.0, 440.0, STOP - TRANSITION])
def test_what_lies_below_is_kept_in_place(frequency: float) -> None:
    """Phase included."""
    sound = tone(frequency) + np.float32(0.1)
    np.testing.assert_allclose(heard(sound)[HALF:-HALF], sound[HALF:-HALF], atol=2e-5)


@pytest.mark.parametrize("frequency", [STOP, 7000.0, 7999.0])
def test_what_lies_above_is_gone(frequency: float) -> None:
    level = 20 * np.log10(np.abs(heard(tone(frequency))[HALF:-HALF]).max())
    assert level < -ATTENUATION + 6  # float32


def test_a_crop_sounds_as_in_its_clip_but_at_its_ends() -> None:
    clip = noise(1.0)
    crop = heard(clip[3000:9000])
    assert crop.shape == (6000,)
    difference = np.abs(crop - heard(clip)[3000:9000])
    assert difference[HALF:-HALF].max() < 1e-6
    assert difference[:HALF].max() > 1e-3


@pytest.mark.parametrize("samples", [1, 100, 400, 32_000])
def test_a_row_depends_on_itself_alone(samples: int) -> None:
    low_pass = LowPass.against(RESAMPLED)
    assert low_pass is not None
    rows = torch.randn(7, samples, generator=torch.Generator().manual_seed(0))
    together = low_pass(rows)
    assert together.shape == rows.shape
    for order in ([3], [6, 0], [2, 2, 5, 1, 4]):
        assert torch.equal(low_pass(rows[order]), together[order])


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_autocast_leaves_it_in_float32(precision: torch.dtype) -> None:
    with torch.autocast("cpu", precision):
        rounded = heard(noise(0.5))
    np.testing.assert_array_equal(rounded, heard(noise(0.5)))


def test_the_slowest_variant_sets_the_edge_and_stretching_needs_none() -> None:
    assert LowPass.against(None) is None
    assert LowPass.against(Augmentation(modes=("stretch",))) is None
    edges = {(0.8, 0.9): 5824.0, (1.1, 1.2): 7280.0}  # Hz
    for speeds, edge in edges.items():
        low_pass = LowPass.against(Augmentation(speeds=speeds))
        assert low_pass is not None
        assert torch.equal(low_pass.taps, LowPass(edge).taps)


def test_it_is_no_part_of_the_weights() -> None:
    assert LowPass(STOP).state_dict() == {}
