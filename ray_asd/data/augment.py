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
OVERLAP = 3  # frames over each sample: the fewest whose squared windows add up to a constant
HOP = FRAME // OVERLAP  # between output frames
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
    # Middles of the frames. Ahead of the sound they are read as they are written, hence not rotated: the first is only
    # what the second continues, and from the second on OVERLAP frames lie over every sample of the sound.
    written = HOP * np.arange(-2, -(-num_samples // HOP) + OVERLAP - 1)
    read = np.rint(np.where(written < 0, 1, speed) * written).astype(np.int64)
    around = (FRAME // 2 + 2 * HOP, max(int(read[-1]) + FRAME // 2 - len(waveform), 0))
    views = np.lib.stride_tricks.sliding_window_view(np.pad(waveform, around), FRAME)
    window = scipy.signal.get_window("hann", FRAME).astype(np.float32)
    synthesis = window * (HOP / np.square(window).sum())  # squares of Hann windows, a third apart, add up to a constant
    output = np.zeros((len(read) - 2 + OVERLAP, HOP), np.float32)
    rotation = np.zeros(FRAME // 2 + 1)
    for first in range(0, len(read) - 1, FRAMES_AT_ONCE):
        reading = read[first : first + FRAMES_AT_ONCE + 1]
        frames = views[reading + 2 * HOP]
        frames *= window
        spectra = scipy.fft.rfft(frames)
        rotations, region = _rotations(spectra, np.diff(reading), rotation)
        rotation = rotations[region[-1]]
        turned = _phasor(rotations).take(region)
        turned *= spectra[1:]
        frames = scipy.fft.irfft(turned, FRAME)
        frames *= synthesis
        for part in range(OVERLAP):
            output[first + part : first + part + len(frames)] += frames[:, part * HOP : (part + 1) * HOP]
    return output.ravel()[FRAME // 2 + HOP :][:num_samples]


def _rotations(spectra: npt.NDArray[np.complex64], advances: Rows, before: Angles) -> tuple[Angles, Rows]:
    """Radians [P] to turn the peaks of ``spectra`` [K + 1, F] by, if the first frame was turned by ``before`` [F].

    Also which peak each bin [K, F] of the last K turns with.

    A peak in one frame continues the peak in the frame before whose region it falls into. Between them its phase grew
    over ``advances`` [K] samples and shall grow, at the same frequency, over HOP; all of its region turns with it.
    """
    peaks, bin_, counts, region = _peaks(spectra)
    # Seen from the frame's middle, where the bins of one partial agree, every other bin is half a turn off.
    phase = np.angle(spectra.take(peaks)) + np.pi * (bin_ & 1)
    first = int(counts[0])
    continued = region.take(peaks[first:] - spectra.shape[1])  # the same bin, a frame earlier
    advance = np.repeat(advances, counts[1:])
    expected = np.pi / FRAME * (bin_[first:] + bin_.take(continued)) * advance  # at the mean of both frequencies
    growth = phase[first:] - phase.take(continued)
    growth += 2 * np.pi * np.rint((expected - growth) / (2 * np.pi))
    turned = np.concatenate([before.take(bin_[:first]), growth * (HOP / advance - 1)])
    for start, end in itertools.pairwise(np.cumsum(counts).tolist()):
        turned[start:end] += turned.take(continued[start - first : end - first])
    return turned, region[1:]


def _peaks(spectra: npt.NDArray[np.complex64]) -> tuple[Rows, Rows, Rows, Rows]:
    """The P peaks of ``spectra`` [K, F] in order: position in all K * F bins, and bin; also how many a frame has [K].

    Last, which of them is nearest to each bin [K, F]. A peak exceeds two bins on either side, the first of equals
    counts; so the largest bin of a frame always is one, and no frame is without.
    """
    frames, bins = spectra.shape
    padded = np.full((frames, bins + 4), -1, np.float32)
    magnitude = np.abs(spectra, out=padded[:, 2:-2])
    is_peak = magnitude > padded[:, :-4]
    is_peak &= magnitude > padded[:, 1:-3]
    is_peak &= magnitude >= padded[:, 3:-1]
    is_peak &= magnitude >= padded[:, 4:]
    peaks = np.flatnonzero(is_peak)
    counts = np.count_nonzero(is_peak, axis=1)
    frame = np.repeat(np.arange(frames), counts)
    borders = np.where(frame[1:] == frame[:-1], (peaks[1:] + peaks[:-1]) // 2 + 1, frame[1:] * bins)
    sizes = np.diff(borders, prepend=0, append=magnitude.size)
    region = np.repeat(np.arange(len(peaks)), sizes).reshape(frames, bins)
    return peaks, peaks - frame * bins, counts, region


def _phasor(angle: Angles) -> npt.NDArray[np.complex64]:
    wrapped = (angle - 2 * np.pi * np.rint(angle / (2 * np.pi))).astype(np.float32)
    phasor = np.empty(angle.shape, np.complex64)
    phasor.real, phasor.imag = np.cos(wrapped), np.sin(wrapped)
    return phasor
