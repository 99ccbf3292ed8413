"""Status augmentation (SA): a clip played slower or faster stands for a state that the machine was not recorded in.

``resample`` moves the pitch with the speed, ``stretch`` keeps it. The stretch is a phase vocoder with identity phase
locking and peak tracking (Laroche and Dolson, "Improved phase vocoder time-scale modification of audio", 1999).

T: samples, K: frames, F: frequency bins.
"""

import itertools
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.signal

from ray_asd.config import Augmentation
from ray_asd.data import layouts
from ray_asd.data.audio import Waveform, resample
from ray_asd.errors import UserError

SLOWEST, FASTEST = 0.25, 4.0
MAX_SPEED_DENOMINATOR = 1000  # a speed is taken as the nearest such fraction, 0.9 as 9/10
SPEED_WORDS = frozenset({"vel", "velocity", "spd", "speed", "rpm", "rps"})  # in the keys of attributes

FRAME = 1536  # samples (96 ms): tells the harmonics of 50 Hz apart and still follows a run-up
HOP = FRAME // 4  # between output frames
FRAMES_AT_ONCE = 64

Angles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def variants(config: Augmentation) -> list[tuple[float, str]]:
    """Every (speed, mode) made beside the original clip.

    Raises:
        UserError: a speed so far from 1 that nothing of the machine is left.
    """
    for speed in config.speeds:
        if not SLOWEST <= speed <= FASTEST:
            raise UserError(f"augmentation.speeds: {speed:g} is out of bounds; allowed: {SLOWEST:g} to {FASTEST:g}")
    return [(speed, mode) for speed in dict.fromkeys(config.speeds) for mode in dict.fromkeys(config.modes)]


def condition(clip: Mapping[str, Any], speed: float, mode: str, label_policy: str) -> str | None:
    """The class of an augmented clip with the CLIPS row ``clip`` as parent; null if the parent's is.

    ``new_class``: a class of its own. ``keep``: the parent's. ``drop_speed_attrs``: the parent's without attributes
    whose key names a speed. A key is split at underscores, so a glued ``car_spd_mic`` is dropped with all it holds.
    """
    parent: str | None = clip["condition"]
    if parent is None or label_policy == "keep":
        return parent
    if label_policy == "new_class":
        return f"{parent}|speed={speed}|{mode}"
    kept = {key: value for key, value in dict(clip["attributes"] or {}).items() if not _names_speed(key)}
    return layouts.condition(clip["machine_type"], kept)


def _names_speed(key: str) -> bool:
    return not SPEED_WORDS.isdisjoint(re.split(r"[_\W]", key.lower()))


def change_speed(waveform: Waveform, speed: float, mode: str) -> Waveform:
    """Float32 [T] -> [round(T / speed)], ``speed`` times as fast; ``mode`` resample or stretch."""
    exact = Fraction(speed).limit_denominator(MAX_SPEED_DENOMINATOR)
    num_samples = round(len(waveform) / exact)
    if mode == "resample":
        return resample(waveform, 1 / exact)[:num_samples]
    return _stretch(waveform, float(exact), num_samples)


def _stretch(waveform: Waveform, speed: float, num_samples: int) -> Waveform:
    """Frames are read every ``speed * HOP`` samples and written every HOP, rotated so that partials run on."""
    num_frames = -(-num_samples // HOP) + 1
    # One frame more in front, a HOP ahead of the first: it advances by just a HOP, so the first is not rotated.
    starts = np.rint(np.arange(num_frames) * (HOP * speed)).astype(np.int64) + HOP
    starts = np.concatenate([[0], starts])
    padded = np.pad(waveform, (FRAME // 2 + HOP, max(int(starts[-1]) - len(waveform), 0) + FRAME))
    views = np.lib.stride_tricks.sliding_window_view(padded, FRAME)
    window = scipy.signal.get_window("hann", FRAME).astype(np.float32)
    output = np.zeros((num_frames + FRAME // HOP - 1, HOP), np.float32)
    weight = np.zeros_like(output)
    rotation = np.zeros(FRAME // 2 + 1)
    for first in range(0, num_frames, FRAMES_AT_ONCE):
        reading = starts[first : first + FRAMES_AT_ONCE + 1]
        spectra = scipy.fft.rfft(views[reading] * window)
        rotations, region = _rotations(spectra, np.diff(reading), rotation)
        rotation = rotations[region[-1]]
        frames = scipy.fft.irfft(spectra[1:] * _phasor(rotations)[region], FRAME) * window
        for part in range(FRAME // HOP):
            rows = slice(first + part, first + part + len(frames))
            columns = slice(part * HOP, (part + 1) * HOP)
            output[rows] += frames[:, columns]
            weight[rows] += window[columns] ** 2
    inside = slice(FRAME // 2, FRAME // 2 + num_samples)
    return output.ravel()[inside] / weight.ravel()[inside]


def _rotations(spectra: npt.NDArray[np.complex64], advances: Rows, before: Angles) -> tuple[Angles, Rows]:
    """Radians [P] to turn the peaks of ``spectra`` [K + 1, F] by, if the first frame was turned by ``before`` [F].

    Also which peak each bin [K, F] of the last K turns with.

    A peak in one frame continues the peak in the frame before whose region it falls into. Between them its phase grew
    over ``advances`` [K] samples and shall grow, at the same frequency, over HOP; all of its region turns with it.
    """
    frame, bin_, region = _peaks(np.abs(spectra))
    # Seen from the frame's middle, where the bins of one partial agree, every other bin is half a turn off.
    phase = np.angle(spectra[frame, bin_]) + np.pi * (bin_ & 1)
    first_of = np.searchsorted(frame, np.arange(len(spectra) + 1))
    new = slice(first_of[1], None)
    continued = region[frame[new] - 1, bin_[new]]
    advance = advances[frame[new] - 1]
    expected = np.pi / FRAME * (bin_[new] + bin_[continued]) * advance  # at the mean of both bins' frequencies
    growth = phase[new] - phase[continued]
    growth += 2 * np.pi * np.rint((expected - growth) / (2 * np.pi))
    turned = np.concatenate([before[bin_[: first_of[1]]], growth * (HOP / advance - 1)])
    continues = np.concatenate([np.arange(first_of[1]), continued])
    for start, end in itertools.pairwise(first_of[1:].tolist()):
        turned[start:end] += turned.take(continues[start:end])
    return turned, region[1:]


def _peaks(magnitude: npt.NDArray[np.float32]) -> tuple[Rows, Rows, Rows]:
    """Frame and bin of each of the P peaks in ``magnitude`` [K, F]; for each bin [K, F], which of them is nearest.

    A peak exceeds two bins on either side; the largest bin of a frame always counts, so that no frame is without.
    """
    frames, bins = magnitude.shape
    padded = np.pad(magnitude, ((0, 0), (2, 2)), constant_values=-1)
    is_peak = magnitude > padded[:, :-4]
    is_peak &= magnitude > padded[:, 1:-3]
    is_peak &= magnitude >= padded[:, 3:-1]
    is_peak &= magnitude >= padded[:, 4:]
    is_peak[np.arange(frames), magnitude.argmax(axis=1)] = True
    peaks = np.flatnonzero(is_peak)
    frame = np.repeat(np.arange(frames), np.count_nonzero(is_peak, axis=1))
    borders = np.where(frame[1:] == frame[:-1], (peaks[1:] + peaks[:-1]) // 2 + 1, frame[1:] * bins)
    sizes = np.diff(borders, prepend=0, append=magnitude.size)
    return frame, peaks - frame * bins, np.repeat(np.arange(len(peaks)), sizes).reshape(frames, bins)


def _phasor(angle: Angles) -> npt.NDArray[np.complex64]:
    wrapped = (angle - 2 * np.pi * np.rint(angle / (2 * np.pi))).astype(np.float32)
    phasor = np.empty(angle.shape, np.complex64)
    phasor.real, phasor.imag = np.cos(wrapped), np.sin(wrapped)
    return phasor
