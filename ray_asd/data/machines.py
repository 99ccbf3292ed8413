"""Five industrial machines as physical models: operating attributes and a fault in, their dry sound out.

Each generator has the signature ``(attributes, fault, samples, rng) -> [T]``; its sound has RMS near 1 in the middle
of its operating range. ``rng`` drives the machine and ``fault.rng`` what the fault adds, so that severity 0 gives
exactly the healthy clip and a fault changes nothing but its own part.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ray_asd.config import SAMPLE_RATE
from ray_asd.data.sound import (
    Array,
    cosine,
    knocks,
    noise,
    passages,
    ring,
    seconds,
    steady,
    tones,
    turns,
    wander,
)

Attributes = Mapping[str, str]


@dataclass(frozen=True)
class Fault:
    """What is wrong: ``kind`` (None: nothing), how badly (0 healthy, 1 nominal), and its own randomness."""

    kind: str | None
    severity: float
    rng: np.random.Generator

    def level(self, kind: str) -> float:
        """The severity if this is the fault, else 0."""
        return self.severity if kind == self.kind else 0.0


Model = Callable[[Attributes, Fault, int, np.random.Generator], Array]

BALLS, BALL_TO_PITCH = 8, 0.3  # rolling elements, and their diameter over the pitch diameter (contact angle 0)
CAGE = (1 - BALL_TO_PITCH) / 2  # turns of the cage per turn of the shaft
BEARING_DEFECTS = {  # strikes per turn of the shaft, and turns of the load zone that scales them
    "outer_race": (BALLS * CAGE, 0.0),
    "inner_race": (BALLS * (1 - CAGE), 1.0),
    "ball": ((1 - BALL_TO_PITCH**2) / BALL_TO_PITCH, CAGE),
}


def bearing(attributes: Attributes, fault: Fault, samples: int, rng: np.random.Generator) -> Array:
    """Rolling-element bearing at ``vel`` rev/s (Randall & Antoni 2011, "Rolling element bearing diagnostics").

    Rolling noise and the drive's tones. A defect strikes at BPFO, BPFI or twice the ball spin frequency with 1 % slip
    and rings the housing; shaft or cage carry it through the load zone. Poor lubrication: rough, crackling rolling.
    """
    speed = float(attributes["vel"])
    shaft = turns(steady(speed, samples, rng))
    drift = 1 + 0.02 * rng.standard_normal()
    rough = noise(samples, rng, 500.0, 4500.0, 0.3) * (1 + 0.2 * wander(samples, rng, 4.0))
    sound = 0.7 * (speed / 14) * rough + tones(shaft * 12, (0.4, 0.5, 0.25, 0.3, 0.1, 0.12), rng)
    grit = rng.random(rng.poisson(3 * samples / SAMPLE_RATE)) * samples / SAMPLE_RATE
    excitation = knocks(grit, rng.exponential(0.8, len(grit)), samples)
    for kind, (per_turn, zone) in BEARING_DEFECTS.items():
        if level := fault.level(kind):
            times = passages(shaft, per_turn, fault.rng, jitter=0.01)
            load = 1 + cosine(zone * np.interp(times, seconds(samples), shaft)) if zone else 1.2
            excitation += knocks(times, 1.4 * level * (speed / 14) * load, samples)
    sound += ring(excitation, [(2100 * drift, 0.002, 1.0), (3900 * drift, 0.0015, 0.8)])
    if level := fault.level("poor_lubrication"):
        crackle = np.exp(0.6 * wander(samples, fault.rng, 30.0))
        sound += 0.35 * level * (speed / 14) * crackle * noise(samples, fault.rng, 2500.0, 6500.0)
    return sound


BLADES, FAN_SPEED = 7, 27.0  # rev/s


def fan(attributes: Attributes, fault: Fault, samples: int, rng: np.random.Generator) -> Array:
    """Axial fan: tones at multiples of the blade-pass frequency over turbulence that grows as speed^2.5.

    Unbalance modulates the whole sound once per turn, rubbing adds a broadband burst per turn, a damaged blade puts
    tones between the blade-pass harmonics, clogging stalls the flow: less tone, surging low-frequency turbulence.
    The attributes name only what runs beside it; the place lets that be heard.
    """
    speed = steady(FAN_SPEED, samples, rng, 0.025)
    shaft = turns(speed)
    clogged = fault.level("clogging")
    blade_pass = tones(shaft * BLADES, (0.7, 0.45, 0.3, 0.2, 0.12, 0.08, 0.05, 0.03), rng) / (1 + 0.3 * clogged)
    flow = noise(samples, rng, 120.0, 2500.0, 0.4) * (speed / FAN_SPEED) ** 2.5
    sound = blade_pass + 0.7 * flow * (1 + 0.1 * wander(samples, rng, 6.0))
    if clogged:
        surge = 1 + 0.6 * wander(samples, fault.rng, 8.0)
        sound += 0.4 * clogged * surge * noise(samples, fault.rng, 60.0, 500.0, 0.3)
    if level := fault.level("unbalance"):
        depth = np.tanh(0.3 * level)
        sound = sound * (1 + depth * cosine(shaft)) + 0.4 * level * tones(shaft, (0.5, 1.0, 0.5), fault.rng)
    if level := fault.level("rubbing"):
        contact = np.maximum(cosine(shaft), 0.0) ** 24
        sound += 0.9 * level * contact * noise(samples, fault.rng, 1200.0, 5500.0)
    if level := fault.level("damaged_blade"):
        spectrum = [0.0 if k % BLADES == 0 else 0.17 / (1 + k / 12) for k in range(1, 25)]
        sound += level * tones(shaft, spectrum, fault.rng)
    return sound


PINION, WHEEL = 23, 57  # teeth


def gearbox(attributes: Attributes, fault: Fault, samples: int, rng: np.random.Generator) -> Array:
    """Spur gear pair: mesh harmonics that grow with the load ``wt``, motor speed proportional to ``volt``.

    Both shafts modulate the mesh a little (sidebands). Eccentricity and a worn flank raise the pinion's sidebands or
    the mesh's overtones, a chipped tooth knocks once per pinion turn, a dry mesh rasps with each tooth.
    """
    speed, load = 10 * float(attributes["volt"]), float(attributes["wt"]) / 100
    pinion = turns(steady(speed / (1 + 0.04 * load), samples, rng))
    wheel = pinion * PINION / WHEEL
    force = (0.5 + 0.5 * load) * (speed / 17) ** 0.5
    mesh = tones(pinion * PINION, force * np.array([0.8, 0.55, 0.3, 0.22, 0.12, 0.1, 0.05]), rng)
    if level := fault.level("worn_flank"):
        mesh += 0.55 * level * tones(pinion * PINION, force * np.array([0.2, 0.9, 0.8, 0.6, 0.5, 0.4]), fault.rng)
    depth = 0.12 + 0.8 * np.tanh(fault.level("eccentricity"))
    sound: Array = mesh * (1 + depth * cosine(pinion) + 0.08 * cosine(wheel))
    sound += 0.45 * noise(samples, rng, 150.0, 3500.0, 0.4) * (speed / 17)
    sound += tones(pinion * 6, (0.2, 0.15, 0.1, 0.05), rng)
    drift = 1 + 0.02 * rng.standard_normal()
    if level := fault.level("chipped_tooth"):
        times = passages(pinion, 1.0, fault.rng)
        strength = 3.5 * level * force * (1 + 0.2 * fault.rng.standard_normal(len(times)))
        sound += ring(knocks(times, strength, samples), [(1300 * drift, 0.004, 1.0), (2700 * drift, 0.003, 0.7)])
    if level := fault.level("dry_mesh"):
        tooth = 1 + cosine(pinion * PINION)
        sound += 0.3 * level * force * tooth * noise(samples, fault.rng, 2000.0, 6000.0)
    return sound


STROKE, LEAD = 0.4, 0.02  # m of travel, and m per turn of the ball screw


def slider_motion(velocity: float, acceleration: float, time: Array) -> tuple[Array, Array]:
    """Position in m and velocity in m/s [T] at ``time`` of a slide that runs to and fro with 0.15 s rest at each end.

    The profile is trapezoidal: accelerate, cruise at ``velocity``, decelerate; a triangle where the stroke is short.
    """
    peak = min(velocity, np.sqrt(acceleration * STROKE))
    ramp, travel = peak / acceleration, STROKE / peak + peak / acceleration
    leg, local = np.divmod(time, travel + 0.15)
    speed = np.clip(np.minimum(local, travel - local) / ramp, 0.0, 1.0) * peak
    forth = np.where(leg % 2 == 0, 1.0, -1.0)
    early, late = np.minimum(local, ramp), np.clip(local - (travel - ramp), 0.0, ramp)
    moved = acceleration * early**2 / 2 + peak * np.clip(local - ramp, 0.0, travel - 2 * ramp)
    moved += peak * late - acceleration * late**2 / 2
    return np.where(forth > 0, moved, STROKE - moved), speed * forth


def slider(attributes: Attributes, fault: Fault, samples: int, rng: np.random.Generator) -> Array:
    """Ball-screw slide: the screw's and motor's tones sweep with the velocity (``vel`` mm/s, ``ac`` m/s^2).

    Stick-slip bursts at creeping speed, backlash knocks where the drive turns round, a damaged rail knocks at one
    position in each direction, a dry rail squeals in proportion to the velocity.
    """
    pace = 1 + 0.015 * rng.uniform(-1, 1)
    time = seconds(samples) * pace + 10 * rng.random()
    position, velocity = slider_motion(float(attributes["vel"]) / 1000, float(attributes["ac"]), time)
    speed = np.abs(velocity)
    screw = position / LEAD
    drift = 1 + 0.02 * rng.standard_normal()
    sound = (speed / 0.5) ** 0.7 * tones(screw * 9, (0.9, 0.6, 0.45, 0.3, 0.2, 0.15), rng)
    sound += (speed / 0.5) * noise(samples, rng, 400.0, 5000.0, 0.3) * 0.8 + 0.06 * noise(samples, rng, 80.0, 7000.0)
    modes = [(850 * drift, 0.006, 1.0), (2300 * drift, 0.004, 0.6)]
    turned = np.flatnonzero((speed[1:] > 0) & (speed[:-1] == 0)) / SAMPLE_RATE
    sound += ring(knocks(turned, 1.5 + 6 * fault.level("backlash"), samples), modes)
    if level := fault.level("damaged_rail"):
        passed = np.flatnonzero(np.diff(np.sign(position - 0.37 * STROKE))) / SAMPLE_RATE
        sound += ring(knocks(passed, 8 * level, samples), modes)
    if level := fault.level("stick_slip"):
        creeping = (speed > 0) & (speed < 0.12)
        slips = fault.rng.permutation(np.flatnonzero(creeping))[: int(creeping.sum() * 60 / SAMPLE_RATE)] / SAMPLE_RATE
        sound += ring(knocks(slips, 2.2 * level * fault.rng.random(len(slips)), samples), modes)
    if level := fault.level("dry_rail"):
        squeal = noise(samples, fault.rng, 3000.0, 3300.0)
        sound += 0.35 * level * (speed / 0.5) * (1 + 0.4 * wander(samples, fault.rng, 10.0)) * squeal
    return sound


PATTERNS = {  # seconds open and closed, in turn
    "00": (0.5, 0.5),
    "01": (0.25, 0.45),
    "02": (0.2, 0.2, 0.2, 0.6),
    "03": (0.8, 0.4),
    "04": (0.35, 0.45),
    "05": (0.6, 0.25, 0.2, 0.25),
}


def valve(attributes: Attributes, fault: Fault, samples: int, rng: np.random.Generator) -> Array:
    """Solenoid valve that opens and closes in the pattern ``pat``: a click at each end, flow noise in between.

    A leak hisses while closed, a sticking plunger opens late and softly, a worn seat lets the plunger bounce when it
    closes, contamination chokes the flow noise and crackles in it.
    """
    pattern = np.array(PATTERNS[attributes["pat"]])
    cycles = int(samples / SAMPLE_RATE / pattern.sum()) + 3
    edges = np.cumsum(np.tile(pattern, cycles)) - pattern.sum() * (1 + rng.random())
    edges = edges + 0.002 * rng.standard_normal(len(edges))
    closes, opens = edges[:-1:2], edges[1::2][: len(edges[:-1:2])]
    sticking = fault.level("sticking")
    opens = opens + 0.07 * sticking * fault.rng.uniform(0.2, 1.0, len(opens))
    ramp, shut = 0.012 * (1 + sticking), np.zeros(len(opens))
    knots = np.column_stack([closes, closes + 0.012, opens, opens + ramp]).ravel()
    flow = np.interp(seconds(samples), knots, np.column_stack([shut + 1, shut, shut, shut + 1]).ravel())
    drift = 1 + 0.02 * rng.standard_normal()
    force = 5 * (1 + 0.1 * rng.standard_normal(len(opens)))
    struck = knocks(opens, force / (1 + 1.5 * sticking), samples)
    sound = ring(struck, [(1150 * drift, 0.004, 1.0), (3100 * drift, 0.003, 0.8), (4900 * drift, 0.002, 0.5)])
    shutting = knocks(closes, 6 * (1 + 0.1 * rng.standard_normal(len(closes))), samples)
    if level := fault.level("worn_seat"):
        for delay in (0.018, 0.031, 0.04):
            shutting += knocks(
                closes + delay * (1 + 0.1 * fault.rng.standard_normal(len(closes))), 2.8 * level, samples
            )
    sound += ring(shutting, [(720 * drift, 0.006, 1.0), (2200 * drift, 0.004, 0.6)])
    hiss = noise(samples, rng, 900.0, 5500.0) / (1 + 0.25 * fault.level("contamination"))
    sound += flow * (0.45 * hiss + tones(turns(steady(100.0, samples, rng, 0.002)), (0.3, 0.1, 0.12), rng))
    if level := fault.level("leak"):
        sound += 0.08 * level * (1 - flow) * noise(samples, fault.rng, 2500.0, 6500.0)
    if level := fault.level("contamination"):
        grains = fault.rng.random(fault.rng.poisson(40 * samples / SAMPLE_RATE)) * samples / SAMPLE_RATE
        crackle = knocks(grains, 0.9 * level * fault.rng.exponential(1.0, len(grains)), samples)
        sound += flow * ring(crackle, [(5200 * drift, 0.001, 1.0)])
    return sound
