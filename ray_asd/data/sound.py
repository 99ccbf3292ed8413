"""What the simulated machines are made of: motion, tones, knocks, resonances, noise, and the room that hears them.

Arrays are one clip of T samples at 16 kHz. Angles are in turns, so that whatever is locked to a shaft follows its
speed exactly. Everything random comes from the generator that is passed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from ray_asd.config import SAMPLE_RATE

Array = NDArray[np.float64]
Mode = tuple[float, float, float]  # Hz, decay time constant in s, gain

FULL_SCALE = 0.04  # amplitude recorded for a sound of RMS 1: leaves 28 dB for the loudest knock
HIGHEST_TONE = 7400.0  # Hz; tones above are left out, since they would fold back
TURN = 1 << 15  # steps in a tabulated turn: its error lies below that of 16-bit samples


@dataclass(frozen=True)
class Place:
    """Where a microphone stands: what it hears beside the machine, and how it colours it.

    ``snr`` is in dB of a sound of RMS 1 over the background, whose spectrum falls with frequency to the power of
    ``-slope``. ``hum`` is the fundamental in Hz of a neighbouring machine, ``events`` the mean number of foreign
    knocks in 10 s. The microphone passes ``low`` to ``high`` Hz and lifts ``peak`` Hz by the factor ``1 + lift``.
    """

    snr: float
    slope: float = 0.5
    hum: float = 50.0
    events: float = 0.6
    low: float = 60.0
    high: float = 7000.0
    peak: float = 2500.0
    lift: float = 0.0


def seconds(samples: int) -> Array:
    """Time [T] of each sample in s."""
    return np.arange(samples) / SAMPLE_RATE


def cosine(angle: Array) -> Array:
    """Cosine [T] of ``angle`` [T] in turns, to single precision."""
    radians = 2 * np.pi * (angle - np.floor(angle))
    return np.cos(radians.astype(np.float32)).astype(np.float64)


def wander(samples: int, rng: np.random.Generator, rate: float = 2.0) -> Array:
    """A slow random curve [T], linear between knots of unit variance, about ``rate`` of them per second."""
    hop = int(SAMPLE_RATE / rate)
    knots = rng.standard_normal(2 + samples // hop)
    between = np.arange(hop) / hop
    return (knots[:-1, None] + np.diff(knots)[:, None] * between).ravel()[:samples]


def steady(mean: float, samples: int, rng: np.random.Generator, spread: float = 0.015) -> Array:
    """A speed [T] that differs by ``spread`` from clip to clip and wanders by a fifth of it within one (relative)."""
    return mean * (1 + spread * rng.uniform(-1, 1)) * (1 + 0.2 * spread * wander(samples, rng))


def turns(speed: Array) -> Array:
    """Angle [T] in turns reached at ``speed`` [T] in turns per second."""
    return np.cumsum(speed) / SAMPLE_RATE


def tones(angle: Array, amplitudes: Sequence[float] | Array, rng: np.random.Generator) -> Array:
    """Sum [T] of the harmonics 1, 2, ... of ``angle`` [T] with these amplitudes and random phases.

    One turn of the sum is tabulated and looked up, so the cost does not grow with the number of harmonics.
    """
    fastest = np.abs(np.diff(angle)).max() * SAMPLE_RATE
    coefficients = np.asarray(amplitudes) * np.exp(2j * np.pi * rng.random(len(amplitudes)))
    coefficients[np.arange(1, len(coefficients) + 1) * fastest > HIGHEST_TONE] = 0
    spectrum = np.concatenate([[0], coefficients])
    wave: Array = scipy.fft.irfft(spectrum, TURN) * (TURN / 2)
    heard: Array = wave[(angle * TURN).astype(np.int64) & (TURN - 1)]
    return heard


def passages(angle: Array, per_turn: float, rng: np.random.Generator, jitter: float = 0.0) -> Array:
    """Times in s at which ``angle`` [T] has advanced by another ``1 / per_turn``, intervals off by ``jitter`` of it."""
    count = int((angle[-1] - angle[0]) * per_turn) + 1
    steps = 1 + jitter * rng.standard_normal(count)
    marks = angle[0] + (np.cumsum(steps) - rng.random()) / per_turn
    times: Array = np.interp(marks[marks < angle[-1]], angle, seconds(len(angle)))
    return times


def knocks(times: Array, strengths: Array | float, samples: int) -> Array:
    """Impulses [T] at ``times`` in s, each split between its two nearest samples; times outside are left out."""
    inside = (times >= 0) & (times < (samples - 1) / SAMPLE_RATE)
    before, fraction = np.divmod(times[inside] * SAMPLE_RATE, 1.0)
    index = np.concatenate([before, before + 1]).astype(int)
    strength = np.broadcast_to(strengths, times.shape)[inside]
    weights = np.concatenate([strength * (1 - fraction), strength * fraction])
    return np.bincount(index, weights, samples).astype(np.float64)


def ring(excitation: Array, modes: Sequence[Mode]) -> Array:
    """Response [T] of damped resonances: an impulse starts ``gain * exp(-t / decay) * sin(2 pi f t)`` in each mode."""
    response = np.zeros(len(excitation))
    for frequency, decay, gain in modes:
        angle, radius = 2 * np.pi * frequency / SAMPLE_RATE, np.exp(-1 / (decay * SAMPLE_RATE))
        denominator = [1.0, -2 * radius * np.cos(angle), radius**2]
        response += scipy.signal.lfilter([0.0, gain * radius * np.sin(angle)], denominator, excitation)
    return response


@lru_cache(maxsize=64)
def _spectrum(samples: int, low: float, high: float, slope: float) -> NDArray[np.float32]:
    """Amplitudes [T // 2 + 1] of noise from ``low`` to ``high`` Hz (12 dB per octave beyond) with RMS 1."""
    frequency = np.maximum(scipy.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 1.0)
    shape = frequency**-slope / np.sqrt((1 + (low / frequency) ** 4) * (1 + (frequency / high) ** 4))
    shape[0] = 0.0
    amplitudes: Array = shape * samples / (2 * np.sqrt(np.sum(shape**2)))
    return amplitudes.astype(np.float32)


def noise(samples: int, rng: np.random.Generator, low: float, high: float, slope: float = 0.0) -> Array:
    """Gaussian noise [T] of expected RMS 1 from ``low`` to ``high`` Hz, amplitude falling as frequency^-slope."""
    shape = _spectrum(samples, low, high, slope)
    normal = rng.standard_normal((len(shape), 2), dtype=np.float32).view(np.complex64)[:, 0]
    drawn: NDArray[np.float32] = scipy.fft.irfft(shape * normal, samples)
    return drawn.astype(np.float64)


def record(sound: Array, place: Place, rng: np.random.Generator, varies: float = 1.0) -> NDArray[np.float32]:
    """What a microphone at ``place`` makes of ``sound`` [T] (RMS about 1): float32 [T] within [-1, 1].

    Level, signal-to-noise ratio and the microphone's peak vary from clip to clip; with ``varies`` 0 they stay.
    """
    gain, level, shift = varies * rng.uniform(-1, 1, 3)
    background = _background(len(sound), place, rng) * 10 ** ((0.7 * level - place.snr) / 20)
    heard = _microphone(sound + background, place, 1 + 0.02 * shift) * 10 ** (0.7 * float(gain) / 20)
    return np.clip(FULL_SCALE * heard, -1, 1).astype(np.float32)


def _background(samples: int, place: Place, rng: np.random.Generator) -> Array:
    rumble = noise(samples, rng, 40.0, 6000.0, place.slope) * (1 + 0.1 * wander(samples, rng))
    neighbour = turns(steady(place.hum, samples, rng, 0.005))
    hum = tones(neighbour, 0.4 / np.arange(1, 11), rng) * (1 + 0.15 * wander(samples, rng))
    count = rng.poisson(place.events * samples / (10 * SAMPLE_RATE))
    times = rng.random(count) * samples / SAMPLE_RATE
    modes = [(rng.uniform(300, 4000), rng.uniform(0.01, 0.08), 1.0) for _ in range(2)]
    return rumble + hum + ring(knocks(times, rng.uniform(1, 5, count), samples), modes)


def _microphone(sound: Array, place: Place, shift: float) -> Array:
    sections = scipy.signal.butter(1, (place.low, place.high), "bandpass", fs=SAMPLE_RATE, output="sos")
    heard: Array = scipy.signal.sosfilt(sections, sound)
    if place.lift:
        heard += place.lift * scipy.signal.lfilter(*scipy.signal.iirpeak(place.peak * shift, 1.5, SAMPLE_RATE), heard)
    return heard
