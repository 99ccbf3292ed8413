"""Why a recording sounds wrong: what sets it apart from the normal ones that it is nearest to, in one plain sentence.

Levels in bands of a sixth of an octave are compared in five ways: in its quiet, its usual and its loud moments, in
short peaks, and in the highest of them. Each difference counts in units of how much normal recordings differ there, and
only what is beyond the greatest such difference near by of any of them, held against the others, is claimed at all.

T: samples, N: normal recordings, W: ways to compare, B: bands.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from ray_asd.config import SAMPLE_RATE
from ray_asd.data import findings, levels
from ray_asd.data.audio import Waveform
from ray_asd.data.findings import LONG, SHORT, Finding, Sound
from ray_asd.data.levels import Array
from ray_asd.data.phrases import and_also, in_words, mixture

MAX_SECONDS = 300  # of each recording that are compared, from its start
PASSED = 0.91  # of the highest frequency, up to which resampling leaves everything as it is
_WAYS = (0.1, 0.5, 0.9, 0.98, 0.998)  # quantiles over time: of long frames, the last two of short ones
_NEAR = 3  # bands on either side in which normals must not differ as much
_LONG = 3  # so many of them are of long frames
_USUAL = 1  # the way in which a difference of level shows
_CLAIMED = 3.0  # times the normals' deviation, at least
_AUDIBLE = 2.0  # dB that a difference needs at least
_BURST = 8.0  # the same, of a single short burst, which anything near a machine may make
_SPREAD = {1: 2.5, 2: 2.0, 3: 1.4, 4: 1.0}  # dB that normals deviate at least, where there are so few
_LEAST_SPREAD = 0.8
_MARGIN = 1.2  # beyond the normals' own greatest difference
_LEVEL = 3.0  # dB that a difference in level needs at least
_SILENT = 40.0  # dB of level beside which no band matters
_ALIKE = 0.8  # share of the bands that must agree on a difference of level
_GROWS = 0.4  # share of the difference in a band that its neighbours have at least

Kind = Literal["tone", "knocks", "burst", "noise", "missing", "level", "nothing"]


@dataclass(frozen=True)
class Difference:
    """What a recording has that its nearest normals have not, and how to say it.

    ``band`` in Hz and ``decibels`` are None where no band stands out; where the level differs as well, ``decibels`` are
    what that leaves. ``seconds`` is where it sounds least healthy.
    """

    sentence: str
    kind: Kind
    seconds: tuple[float, float]
    band: tuple[float, float] | None = None
    decibels: float | None = None


@dataclass(frozen=True)
class _Compared:
    """A recording beside others: differences [W, B] in dB without the one in level, and in units of normal ones.

    Those that are too small to be heard count as none.
    """

    level: float
    apart: Array
    units: Array

    @property
    def greatest(self) -> Array:
        """In each way the most that is near a band [W, B]; single highest peaks are rare, so anywhere."""
        most: Array = scipy.ndimage.maximum_filter1d(np.abs(self.units), 2 * _NEAR + 1, axis=1)
        most[-1] = most[-1].max()
        return most


def explain(
    clip: Waveform, normals: Sequence[Waveform], sample_rate: int = SAMPLE_RATE, highest: float | None = None
) -> Difference:
    """What sets ``clip`` [T] apart from ``normals``, its nearest first, each [T'] and all at ``sample_rate`` Hz.

    Args:
        highest: Hz up to which all of them were recorded; by default up to what resampling passes.
    """
    limits = levels.edges(min(highest or sample_rate, PASSED * sample_rate / 2))
    heard = [_cut(waveform, sample_rate) for waveform in (clip, *normals)]
    if not normals:
        sound = Sound(heard[0], sample_rate)
        return Difference("none of its nearest normals can be heard any more", "nothing", sound.whole)
    floor = levels.floor(heard)
    profiles = np.array([_profile(waveform, sample_rate, limits, floor) for waveform in heard])
    own, others = profiles[0], profiles[1:]
    found, usual = _compared(own, others), _among_themselves(others)
    level = _claimed_level(found, usual)
    least = np.max([np.full_like(own, _CLAIMED), *(_MARGIN * one.greatest for one in usual)], axis=0)
    heard[0] = heard[0] * np.float32(10 ** (-level / 20))
    sounds = [Sound(waveform, sample_rate, floor) for waveform in heard]
    beyond = np.abs(found.units) / least
    beyond[-1] = np.where(beyond[-1] > 1, np.minimum(beyond[-1], 1.001), 0)  # what others show, comes first
    while beyond.max() > 1 and abs(level) < _SILENT:
        way, sign, (low, high) = _extent(found, beyond)
        claim = findings.of(sounds, (float(limits[low]), float(limits[high])), _WAYS, way, sign)
        if abs(claim.decibels) >= (_BURST if claim.kind == "burst" else _AUDIBLE):
            return _band(claim, level, limits)
        beyond[:, low:high] = 0.0
    return _no_band(sounds[0], found, level, limits, np.median(others[:, _USUAL], axis=0))


def _cut(waveform: Waveform, sample_rate: int) -> Waveform:
    return waveform[: MAX_SECONDS * sample_rate]


def _profile(waveform: Waveform, sample_rate: int, limits: Array, floor: float) -> Array:
    """Levels [W, B] by way and band."""
    long, short = (
        levels.decibels(levels.power(waveform, sample_rate, window, hop, limits), floor)
        for window, hop in (LONG, SHORT)
    )
    profile: Array = np.vstack([np.quantile(long, _WAYS[:_LONG], axis=1), np.quantile(short, _WAYS[_LONG:], axis=1)])
    return profile


def _compared(own: Array, others: Array) -> _Compared:
    """``own`` [W, B] beside ``others`` [N, W, B]."""
    number = len(others)
    usual = np.median(others, axis=0)
    deviation = np.sqrt(np.sum((others - usual) ** 2, axis=0) / max(number - 1, 1))
    spread = np.maximum(_smooth(deviation), _SPREAD.get(number, _LEAST_SPREAD))
    apart = own - usual
    level = float(np.median(apart[_USUAL]))
    agree = np.mean(np.abs(apart[_USUAL] - level) <= np.maximum(_LEVEL, 2 * spread[_USUAL]))
    rest = apart - (level if agree >= _ALIKE else 0.0)
    heard = np.where(np.abs(rest) >= _AUDIBLE, rest, 0.0)
    return _Compared(level if agree >= _ALIKE else 0.0, rest, heard / spread)


def _smooth(deviation: Array) -> Array:
    padded = np.pad(deviation, ((0, 0), (1, 1)), mode="edge")
    smooth: Array = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3
    return smooth


def _among_themselves(others: Array) -> list[_Compared]:
    """Each normal beside the other ones, as the clip is beside all of them."""
    if len(others) == 1:
        return []
    return [_compared(one, np.delete(others, number, axis=0)) for number, one in enumerate(others)]


def _claimed_level(found: _Compared, usual: Sequence[_Compared]) -> float:
    """The difference in level, if normals do not differ as much; else 0."""
    least = max([_LEVEL, *(_MARGIN * abs(one.level) for one in usual)]) if usual else 2 * _LEVEL
    return found.level if abs(found.level) >= least else 0.0


def _no_band(sound: Sound, found: _Compared, level: float, limits: Array, usual: Array) -> Difference:
    over_time = levels.decibels(levels.power(sound.waveform, sound.sample_rate, *LONG, limits), sound.floor)
    seconds = sound.most(np.abs(over_time - usual[:, None]).mean(axis=0))
    if level:
        words = "louder" if level > 0 else "quieter"
        sentence = f"{words} throughout, {abs(level):.0f} dB {'above' if level > 0 else 'below'} its nearest normals"
        return Difference(sentence, "level", seconds, (float(limits[0]), float(limits[-1])), level)
    most = np.argsort(-np.abs(found.apart[_USUAL]), kind="stable")
    centres = np.sqrt(limits[:-1] * limits[1:])
    apart = [centre for centre in centres[most] if abs(np.log2(centre / centres[most[0]])) > 0.5]
    return Difference(mixture(float(centres[most[0]]), float(apart[0]) if apart else None), "nothing", seconds)


def _band(claim: Finding, level: float, limits: Array) -> Difference:
    sentence = and_also(in_words(claim, (float(limits[0]), float(limits[-1]))), level)
    return Difference(sentence, claim.kind, claim.seconds, claim.band, claim.decibels)


def _extent(found: _Compared, beyond: Array) -> tuple[int, int, tuple[int, int]]:
    """Where the greatest difference is: its way, its sign, and the run of bands that have a good part of it."""
    way, place = (int(index) for index in np.unravel_index(beyond.argmax(), beyond.shape))
    sign = 1 if found.apart[way, place] > 0 else -1
    own = sign * found.apart[way]
    enough: NDArray[np.bool_] = own >= max(0.8 * _AUDIBLE, _GROWS * own[place])
    low = high = place
    while low > 0 and (enough[low - 1] or (low > 1 and enough[low - 2])):
        low -= 1
    while high + 1 < len(own) and (enough[high + 1] or (high + 2 < len(own) and enough[high + 2])):
        high += 1
    return way, sign, (low, high + 1)
