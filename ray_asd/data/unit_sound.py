"""What one unit of a fleet sounds like: no two of a kind are alike, and no two nights of one are.

A unit has a condition it always runs under, a pitch, a housing that colours it, and a microphone in a place of its own.
A night has a load that shifts pitch and level, and weather that shifts what else is heard: its clips have that in
common. What is left differs from clip to clip as in any recording of its type (``machines``, ``sound.record``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from ray_asd.config import SAMPLE_RATE
from ray_asd.data.fleet import MACHINES
from ray_asd.data.machines import Fault
from ray_asd.data.sound import Array, Place, record

Seed = tuple[int, ...]


class Colour(NamedTuple):
    """A bell in a spectrum: where, in octaves above 1 kHz, how wide, and how high in dB."""

    octave: float
    width: float
    decibels: float


@dataclass(frozen=True)
class Unit:
    """One machine of a fleet. ``pitch`` is how much faster than others of its type it runs, ``level`` is in dB."""

    machine_type: str
    attributes: Mapping[str, str]
    place: Place
    pitch: float
    level: float
    housing: tuple[Colour, ...]

    @classmethod
    def drawn(cls, machine_type: str, seed: Seed) -> "Unit":
        """Some unit of that type."""
        rng, kind = np.random.default_rng(seed), MACHINES[machine_type]
        conditions = [condition for domain in ("source", "target") for condition in kind.conditions(domain)]
        usual = float(np.mean([place.snr for place in kind.places.values()]))
        place = Place(
            snr=usual + rng.uniform(-1, 1),
            slope=rng.uniform(0.4, 0.6),
            hum=rng.uniform(45, 150),
            low=rng.uniform(50, 80),
            high=rng.uniform(6000, 7300),
            peak=rng.uniform(1000, 3500),
            lift=rng.uniform(0, 0.3),
        )
        housing = tuple(
            Colour(rng.uniform(-2, 2.5), rng.uniform(0.3, 0.8), 1.5 * rng.standard_normal()) for _ in range(3)
        )
        condition = conditions[rng.integers(len(conditions))]
        return cls(machine_type, condition, place, 1 + 0.02 * rng.uniform(-1, 1), 2 * rng.uniform(-1, 1), housing)


@dataclass(frozen=True)
class Session:
    """What the clips of a unit's night share: ``pitch`` as a factor, ``level`` and ``background`` in dB, a colour."""

    pitch: float = 1.0
    level: float = 0.0
    background: float = 0.0
    colour: tuple[Colour, ...] = ()

    @classmethod
    def drawn(cls, seed: Seed) -> "Session":
        """Some night's."""
        rng = np.random.default_rng(seed)
        pitch, level, background, *colours = rng.uniform(-1, 1, 5)
        bells = tuple(Colour(at, 1.2, 3 * high) for at, high in zip((-1.5, 1.5), colours, strict=True))
        return cls(1 + 0.03 * pitch, 4 * level, 4 * background, bells)


def render(
    unit: Unit, session: Session, fault: tuple[str | None, float], samples: int, seed: Seed
) -> NDArray[np.float32]:
    """A recording of ``unit`` in ``session``, with a fault of some kind and severity: float32 [T] within [-1, 1].

    Machine, fault and room each draw from a stream of their own: changing the severity leaves all else as it was.
    """
    motion, damage, room = (np.random.default_rng((*seed, stream)) for stream in range(3))
    pitch = unit.pitch * session.pitch
    longer = scipy.fft.next_fast_len(round(samples * pitch), real=True)
    sound = MACHINES[unit.machine_type].sound(unit.attributes, Fault(*fault, damage), longer, motion)
    decibels = unit.level + session.level + _colour((*unit.housing, *session.colour), samples)
    place = replace(unit.place, snr=unit.place.snr - session.background)
    return record(_shifted(sound, samples, 10 ** (decibels / 20)), place, room, varies=0)


def _shifted(sound: Array, samples: int, gain: Array) -> Array:
    """``sound`` [T'] played in ``samples`` [T], all of it higher or lower for that, with the ``gain`` [T // 2 + 1]."""
    spectrum = scipy.fft.rfft(sound)
    heard = np.zeros(len(gain), complex)
    kept = min(len(gain), len(spectrum))
    heard[:kept] = spectrum[:kept]
    shifted: Array = scipy.fft.irfft(heard * gain, samples) * (samples / len(sound))
    return shifted


def _colour(bells: tuple[Colour, ...], samples: int) -> Array:
    """Gain in dB [T // 2 + 1]."""
    octaves = np.log2(np.maximum(scipy.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 20.0) / 1000)
    return sum((high * np.exp(-(((octaves - at) / wide) ** 2) / 2) for at, wide, high in bells), np.zeros(len(octaves)))
