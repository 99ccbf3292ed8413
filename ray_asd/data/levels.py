"""How loud a recording is in which band and when.

T: samples, B: bands, F: frames.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ray_asd.data.audio import Waveform

BANDS_PER_OCTAVE = 6
LOWEST = 80.0  # Hz
_BLOCK = 512  # frames that are transformed at once

Array = NDArray[np.float64]


def edges(highest: float) -> Array:
    """Limits [B + 1] in Hz of bands of a sixth of an octave, up to ``highest``."""
    count = max(int(BANDS_PER_OCTAVE * np.log2(highest / LOWEST)), 1)
    limits: Array = highest / 2 ** (np.arange(count, -1, -1) / BANDS_PER_OCTAVE)
    return limits


def power(waveform: Waveform, sample_rate: int, window: int, hop: int, limits: Array) -> Array:
    """Mean squares [B, F] in the bands between ``limits``, of frames of ``window`` samples every ``hop``.

    A band between two lines of the spectrum has that of the line before. What is shorter than a frame is one.
    """
    places = np.clip(np.ceil(limits * window / sample_rate).astype(int), 0, window // 2)
    starts, stop = places[:-1], max(places[-1], places[-2] + 1)
    found = [np.add.reduceat(part[:stop], starts, axis=0) for part in _spectra(waveform, window, hop)]
    return np.concatenate(found, axis=1)


def spectrum(waveform: Waveform, window: int, hop: int, frames: NDArray[np.bool_] | None = None) -> Array:
    """Mean squares [window // 2 + 1] by line, of those ``frames`` [F] alone."""
    total, begin, counted = np.zeros(window // 2 + 1), 0, 0
    for part in _spectra(waveform, window, hop):
        chosen = np.ones(part.shape[1], bool) if frames is None else frames[begin : begin + part.shape[1]]
        total += part @ chosen
        begin += part.shape[1]
        counted += int(chosen.sum())
    return total / max(counted, 1)


def _spectra(waveform: Waveform, window: int, hop: int) -> Iterator[Array]:
    """Mean squares of some frames at a time, [window // 2 + 1, frames]; each frame's lines add up to its own."""
    padded = np.pad(waveform.astype(np.float64), (0, max(0, window - len(waveform))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    shape = np.hanning(window + 1)[:-1]
    for begin in range(0, len(frames), _BLOCK):
        lines = np.fft.rfft(frames[begin : begin + _BLOCK] * shape, axis=1)
        yield (2 / (window * np.sum(shape**2)) * np.abs(lines) ** 2).T


def decibels(mean_squares: Array, floor: float) -> Array:
    """Levels in dB; what is quieter than ``floor`` has its level."""
    levels: Array = 10 * np.log10(np.maximum(mean_squares, floor))
    return levels


def floor(waveforms: Sequence[Waveform]) -> float:
    """The mean square that nothing in these is told apart below: 90 dB under the loudest of them as a whole."""
    loudest = max(
        float(np.mean(np.square(waveform, dtype=np.float64))) if len(waveform) else 0.0 for waveform in waveforms
    )
    return max(1e-9 * loudest, 1e-20)
