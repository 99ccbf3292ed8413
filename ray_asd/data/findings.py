"""What a band that stands out holds, and when: a tone, knocks, noise, or less than is normal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from ray_asd.data import levels
from ray_asd.data.audio import Waveform
from ray_asd.data.levels import Array

LONG, SHORT = (2048, 512), (256, 64)  # window and hop in samples: 8 Hz and 128 ms, 62 Hz and 16 ms at 16 kHz
QUIET, USUAL, LOUD, PEAKS, HIGHEST = range(5)
_WINDOW = 1.0  # s, of what sounds least healthy where nothing else bounds it
_DENSE, _NEARLY_ALL = 0.6, 0.9
_GAP = 0.3  # s without it that belong to it all the same
_TONAL = 0.5  # share of what is added that a tone has
_MAX_TONES = 3
_APART = 1.1  # factor between tones
_SHORT = 0.35  # s that a burst lasts at most
_CREST = 4.0  # dB by which peaks must stand out further than in any normal
_KNOCK = 0.15  # s that one lasts at most
_PERIODIC = 0.35  # autocorrelation of the envelope of what knocks regularly
_RATES = (0.5, 70.0)  # knocks a second
_THIRD = 2 ** (1 / 6)  # half of a third of an octave, as a factor

Bools = NDArray[np.bool_]
When = Literal["throughout", "span", "scattered", "quiet"]


@dataclass(frozen=True)
class Finding:
    """What was found: ``tones`` in Hz, ``rate`` of knocks a second if they are regular; ``when`` it is there."""

    kind: Literal["tone", "knocks", "burst", "noise", "missing"]
    band: tuple[float, float]
    decibels: float
    when: When
    seconds: tuple[float, float]
    tones: tuple[float, ...] = ()
    rate: float | None = None


@dataclass(frozen=True)
class Sound:
    """A recording [T], in whose bands levels below ``floor`` (a mean square) are not told apart."""

    waveform: Waveform
    sample_rate: int
    floor: float = 1e-20

    @property
    def length(self) -> float:
        """In seconds."""
        return len(self.waveform) / self.sample_rate

    @property
    def whole(self) -> tuple[float, float]:
        return 0.0, self.length

    def level(self, band: tuple[float, float], frames: tuple[int, int] = LONG) -> Array:
        """Of the band, in dB over time [F]."""
        limits = np.array(band)
        return levels.decibels(levels.power(self.waveform, self.sample_rate, *frames, limits)[0], self.floor)

    def at(self, frame: float, frames: tuple[int, int] = LONG) -> float:
        """The middle of a frame in seconds."""
        return float(min((frame * frames[1] + frames[0] / 2) / self.sample_rate, self.length))

    def most(self, excess: Array) -> tuple[float, float]:
        """The window with the most of what is given over time [F]."""
        size = max(round(_WINDOW * self.sample_rate / LONG[1]), 1)
        if len(excess) <= size:
            return self.whole
        place = int(np.argmax(np.convolve(excess, np.ones(size), "valid")))
        begin = place * LONG[1] / self.sample_rate
        return begin, min(begin + _WINDOW, self.length)


def of(sounds: Sequence[Sound], band: tuple[float, float], ways: Sequence[float], way: int, sign: int) -> Finding:
    """What the first of ``sounds`` has more (``sign`` 1) or less (-1) of in ``band`` than the others."""
    way, decibels = _way(sounds, band, ways, way, sign)
    if sign < 0:
        frames, when, seconds = _times(sounds, band, ways, way, decibels)
        return Finding("missing", band, decibels, when, seconds, _tones(sounds, band, frames, sign))
    knocks = _knocks(sounds, band, ways)
    if knocks:
        return knocks
    frames, when, seconds = _times(sounds, band, ways, way, decibels)
    if when == "span" and seconds[1] - seconds[0] <= _SHORT:
        return Finding("burst", band, decibels, when, seconds)
    tones = _tones(sounds, band, frames, sign)
    if len(tones) == 1:
        band = tones[0] / _THIRD, tones[0] * _THIRD
        way, decibels = _way(sounds, band, ways, way, sign)
        _, when, seconds = _times(sounds, band, ways, way, decibels)
    return Finding("tone" if tones else "noise", band, decibels, when, seconds, tones)


def _way(
    sounds: Sequence[Sound], band: tuple[float, float], ways: Sequence[float], found: int, sign: int
) -> tuple[int, float]:
    """The plainest of the ways in which the band stands out, and by how many dB: usual moments before loud ones."""
    apart = [_apart(sounds, band, quantile, SHORT if way >= PEAKS else LONG) for way, quantile in enumerate(ways)]
    enough = 0.6 * sign * apart[found]
    way = next((way for way in (USUAL, LOUD) if sign * apart[way] >= max(enough, 1.5)), found)
    return way, apart[way]


def _apart(sounds: Sequence[Sound], band: tuple[float, float], quantile: float, frames: tuple[int, int]) -> float:
    own, *others = (float(np.quantile(sound.level(band, frames), quantile)) for sound in sounds)
    return own - float(np.median(others))


def _times(
    sounds: Sequence[Sound], band: tuple[float, float], ways: Sequence[float], way: int, decibels: float
) -> tuple[Bools, When, tuple[float, float]]:
    """In which frames [F] of the first sound the band differs, and from when to when that is."""
    sound = sounds[0]
    series = _steadied(sound.level(band))
    normal = float(np.median([np.quantile(other.level(band), min(ways[way], ways[LOUD])) for other in sounds[1:]]))
    excess = np.sign(decibels) * (series - normal)
    frames: Bools = excess >= abs(decibels) / 2
    if not frames.any():
        frames = excess >= excess.max()
    if way == QUIET:
        return frames, "quiet", sound.most(excess)
    return (frames, *_span(sound, frames, excess))


def _steadied(series: Array) -> Array:
    steadied: Array = scipy.ndimage.median_filter(series, 3, mode="nearest") if len(series) > 3 else series
    return steadied


def _span(sound: Sound, frames: Bools, excess: Array) -> tuple[When, tuple[float, float]]:
    """Whether the frames are most of the recording, one stretch of it, or scattered over it."""
    gap = max(round(_GAP * sound.sample_rate / LONG[1]), 1)
    closed = scipy.ndimage.binary_closing(np.pad(frames, gap), np.ones(gap + 1))[gap:-gap]
    labels, count = scipy.ndimage.label(closed)
    held = np.array([frames[labels == label].sum() for label in range(1, count + 1)])
    if closed.mean() >= _NEARLY_ALL or len(frames) == 1:
        return "throughout", sound.whole
    longest = int(held.argmax()) + 1
    if held.max() < _DENSE * held.sum():
        return "scattered", sound.most(excess)
    first, last = (int(np.flatnonzero(labels == longest)[place]) for place in (0, -1))
    return "span", (0.0 if first == 0 else sound.at(first), sound.length if last + 1 == len(frames) else sound.at(last))


def _tones(sounds: Sequence[Sound], band: tuple[float, float], frames: Bools, sign: int) -> tuple[float, ...]:
    """Frequencies in Hz of the few tones that most of what is added (or missing) is made of; none where it is noise."""
    size = LONG[0]
    rate = sounds[0].sample_rate
    own = levels.spectrum(sounds[0].waveform, *LONG, frames)
    others = [levels.spectrum(one.waveform, *LONG) for one in sounds[1:]]
    lines = np.arange(len(own)) * rate / size
    inside = (lines >= band[0] / _THIRD**0.5) & (lines <= band[1] * _THIRD**0.5)
    added = np.where(inside, np.maximum(sign * (own - np.median(others, axis=0)), 0.0), 0.0)
    left, found = added.copy(), list[float]()
    while left.any() and len(found) < _MAX_TONES:
        place = int(left.argmax())
        near = np.abs(lines - lines[place]) <= max(2.5 * rate / size, 0.015 * lines[place])
        found.append(float(np.sum(lines * left * near) / np.sum(left * near)))
        left[near] = 0.0
        if any(1 / _APART < found[-1] / other < _APART for other in found[:-1]):
            return ()
        share = 1 - left.sum() / added.sum()
        if share >= _TONAL + 0.1 * (len(found) - 1):
            return tuple(sorted(found))
    return ()


def _knocks(sounds: Sequence[Sound], band: tuple[float, float], ways: Sequence[float]) -> Finding | None:
    """Peaks that stand out from what is between them as they do in no normal recording."""
    sound, frame_rate = sounds[0], sounds[0].sample_rate / SHORT[1]
    own, *others = (one.level(band, SHORT) for one in sounds)
    crest, *usual = (float(np.quantile(series, ways[PEAKS]) - np.median(series)) for series in (own, *others))
    if crest < max(usual) + _CREST or _lasting(own > np.median(own) + crest / 2) > _KNOCK * frame_rate:
        return None
    normal = float(np.median([np.quantile(series, ways[PEAKS]) for series in others]))
    decibels = float(np.quantile(own, ways[PEAKS])) - normal
    if decibels <= 0:
        return None
    height = max(normal, float(np.quantile(own, ways[PEAKS])) - 10)
    places = scipy.signal.find_peaks(
        own, height=height, distance=max(round(frame_rate / _RATES[1]), 1), prominence=_CREST
    )[0]
    if len(places) == 0:
        return None
    begin, end = (sound.at(float(place), SHORT) for place in (places[0], places[-1]))
    if len(places) <= 2:
        seconds = max(begin - 0.1, 0.0), min(end + 0.1, sound.length)
        return Finding("burst", band, decibels, "span", seconds)
    when: When = "throughout" if end - begin >= _DENSE * sound.length else "span"
    seconds = sound.whole if when == "throughout" else (begin, end)
    rate = _rate(own[places[0] : places[-1] + 1], frame_rate)
    return Finding("knocks", band, decibels, when, seconds, rate=rate)


def _lasting(frames: Bools) -> float:
    """The length of the stretch that a frame is in, in the median over ``frames``."""
    labels, _ = scipy.ndimage.label(frames)
    return float(np.median(np.bincount(labels)[labels[frames]])) if frames.any() else 0.0


def _rate(series: Array, frame_rate: float) -> float | None:
    """How many times a second an envelope in dB repeats; None where it does not."""
    swing = np.maximum(series - np.median(series), 0.0)
    swing = swing - swing.mean()
    whole = scipy.signal.correlate(swing, swing, "full")[len(swing) - 1 :]
    lags = np.arange(len(whole))
    fit = whole / np.maximum(len(swing) - lags, 1) / max(whole[0] / len(swing), 1e-12)
    low, high = int(frame_rate / _RATES[1]), int(min(frame_rate / _RATES[0], len(swing) / 2))
    places = scipy.signal.find_peaks(fit[: high + 1], height=_PERIODIC)[0]
    places = places[places >= max(low, 2)]
    if not len(places):
        return None
    first = int(next(place for place in places if fit[place] >= 0.7 * fit[places].max()))
    rate = float(frame_rate / _refined(fit, first))
    return rate if rate <= _RATES[1] else None


def _refined(fit: Array, first: int) -> float:
    """The lag of the first peak, as the last of its multiples within the series tells it."""
    lag = float(first)
    for multiple in range(2, 9):
        place, off = round(multiple * lag), 1 if first < 8 else 2
        near = fit[place - off : place + off + 1]
        if place + off >= len(fit) or near.max() < _PERIODIC:
            break
        lag = (place - off + int(near.argmax())) / multiple
    return lag
