"""Status augmentation (SA): a clip played slower or faster stands for a state that the machine was not recorded in.

``resample`` moves the pitch with the speed, ``stretch`` keeps it. The stretch is a phase vocoder with identity phase
locking and peak tracking (Laroche and Dolson, "Improved phase vocoder time-scale modification of audio", 1999).

T: samples, K: frames, F: frequency bins.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

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
Spectra = npt.NDArray[np.complex64]


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
    return layouts.condition(clip["machine_type"], clip["section"], kept)


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
    # Middles of the frames: OVERLAP of them lie over every sample of the sound. The one ahead of it needs no rotation.
    written = HOP * np.arange(-1, max(-(-num_samples // HOP) + OVERLAP - 1, ceil(FRAME / 2 / HOP / speed) + 1))
    read = np.rint(np.where(written < 0, 1, speed) * written).astype(np.int64)
    onset = FRAME // 2 + HOP * np.arange(3)  # the first frames that are all sound
    around = (FRAME // 2 + HOP, max(int(max(read[-1], onset[-1])) + FRAME // 2 - len(waveform), 0))
    views = np.lib.stride_tricks.sliding_window_view(np.pad(waveform, around), FRAME)
    window = scipy.signal.get_window("hann", FRAME).astype(np.float32)
    synthesis = window * (HOP / np.square(window).sum())  # squares of Hann windows, a third apart, add up to a constant
    output = np.zeros((len(read) - 1 + OVERLAP, HOP), np.float32)
    first = 0
    for turned in _turned(lambda middles: scipy.fft.rfft(views[middles + HOP] * window), read, written, onset):
        frames = scipy.fft.irfft(turned, FRAME)
        frames *= synthesis
        for part in range(OVERLAP):
            output[first + part : first + part + len(frames)] += frames[:, part * HOP : (part + 1) * HOP]
        first += len(frames)
    return output.ravel()[FRAME // 2 + HOP :][:num_samples]


def _turned(spectra: Callable[[Rows], Spectra], read: Rows, written: Rows, onset: Rows) -> Iterator[Spectra]:
    """The spectra [k, F] of the frames around the middles ``read`` [K], rotated for ``written`` [K], block by block."""
    lead = int(np.searchsorted(read, onset[0])) + 1
    rotations = _frequencies(spectra(onset), read[:lead]) * (written - read)[:lead, None]
    yield spectra(read[:lead]) * _phasor(rotations)
    rotation = rotations[-1]
    for first in range(lead, len(read), FRAMES_AT_ONCE):
        reading = read[first - 1 : first + FRAMES_AT_ONCE]
        found = spectra(reading)
        rotations, region = _rotations(found, np.diff(reading), rotation)
        rotation = rotations[region[-1]]
        turned = _phasor(rotations).take(region)
        turned *= found[1:]
        yield turned


def _frequencies(onset: Spectra, middles: Rows) -> Angles:
    """Radians per sample [K, F] of each bin's partial, at the mean between the first sample and ``middles`` [K].

    Frames around the first sample are half silence, and their phases are wrong. So ``onset`` [3, F], the first frames
    that are all sound, HOP apart, tell how fast a partial turns and how that changes.
    """
    tracks = _tracks(onset, np.full(2, HOP))
    second = tracks.growth[tracks.counts[1] :] / HOP
    first = tracks.growth[tracks.continued[tracks.counts[1] :] - tracks.counts[0]] / HOP
    since = (middles[:, None] - FRAME - HOP) / 2  # from the middle of the first two frames
    frequency: Angles = first + (second - first) / HOP * since
    return frequency[:, tracks.region[-1] - tracks.counts[:2].sum()]


def _rotations(spectra: Spectra, advances: Rows, before: Angles) -> tuple[Angles, Rows]:
    """Radians [P] to turn the peaks of ``spectra`` [K + 1, F] by, if the first frame was turned by ``before`` [F].

    Also which peak each bin [K, F] of the last K turns with. Between frames the phase of a peak grew over ``advances``
    [K] samples and shall grow, at the same frequency, over HOP; all of its region turns with it.
    """
    tracks = _tracks(spectra, advances)
    first = int(tracks.counts[0])
    advance = np.repeat(advances, tracks.counts[1:])
    turned = np.concatenate([before.take(tracks.bins[:first]), tracks.growth * (HOP / advance - 1)])
    for start, end in itertools.pairwise(np.cumsum(tracks.counts).tolist()):
        turned[start:end] += turned.take(tracks.continued[start - first : end - first])
    return turned, tracks.region[1:]


class _Tracks(NamedTuple):
    """The P peaks of K + 1 frames in order, and what those of the last K continue.

    A peak in one frame continues the peak in the frame before whose region it falls into.
    """

    bins: Rows  # [P]
    counts: Rows  # [K + 1], peaks of each frame
    region: Rows  # [K + 1, F], the peak that each bin belongs to
    continued: Rows  # [P - counts[0]], peaks
    growth: Angles  # [P - counts[0]], radians since the frame before


def _tracks(spectra: Spectra, advances: Rows) -> _Tracks:
    """The tracks of ``spectra`` [K + 1, F], whose frames are ``advances`` [K] samples apart."""
    peaks, bin_, counts, region = _peaks(spectra)
    # Seen from the frame's middle, where the bins of one partial agree, every other bin is half a turn off.
    phase = np.angle(spectra.take(peaks)) + np.pi * (bin_ & 1)
    first = int(counts[0])
    continued = region.take(peaks[first:] - spectra.shape[1])  # the same bin, a frame earlier
    advance = np.repeat(advances, counts[1:])
    expected = np.pi / FRAME * (bin_[first:] + bin_.take(continued)) * advance  # at the mean of both frequencies
    growth = phase[first:] - phase.take(continued)
    growth += 2 * np.pi * np.rint((expected - growth) / (2 * np.pi))
    return _Tracks(bin_, counts, region, continued, growth)


def _peaks(spectra: Spectra) -> tuple[Rows, Rows, Rows, Rows]:
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


def _phasor(angle: Angles) -> Spectra:
    wrapped = (angle - 2 * np.pi * np.rint(angle / (2 * np.pi))).astype(np.float32)
    phasor = np.empty(angle.shape, np.complex64)
    phasor.real, phasor.imag = np.cos(wrapped), np.sin(wrapped)
    return phasor
