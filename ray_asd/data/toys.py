"""Two toys as physical models, with the same signature as the machines: a car on a stand, a train on its oval."""

import numpy as np

from ray_asd.config import SAMPLE_RATE
from ray_asd.data.machines import Attributes, Fault
from ray_asd.data.sound import Array, cosine, knocks, noise, passages, ring, steady, tones, turns, wander

CARS = {  # teeth of the motor's pinion, body resonance in Hz
    "A1": (8, 620.0),
    "A2": (8, 650.0),
    "B1": (9, 540.0),
    "B2": (9, 560.0),
    "C1": (8, 590.0),
    "D1": (9, 510.0),
}
TURNS_PER_VOLT, AXLE = 38.0, 1 / 4.6  # rev/s of the motor per volt, and turns of the axle per turn of the motor


def toy_car(attributes: Attributes, fault: Fault, samples: int, rng: np.random.Generator) -> Array:
    """Toy car ``car`` on a stand at a motor voltage ``spd``: commutation (3 poles, 6 per turn) and gear whine.

    A bent shaft makes speed and level sway once per axle turn, a flat tyre thumps once per axle turn, a deformed gear
    ticks once per turn of the idler (half the motor's speed), worn brushes spark at each commutation.
    """
    teeth, body = CARS[attributes["car"]]
    volt = float(attributes["spd"].removesuffix("V"))
    motor = turns(steady(TURNS_PER_VOLT * volt, samples, rng, 0.03))
    axle = motor * AXLE
    bent = fault.level("bent_shaft")
    sway = cosine(axle)
    gears = motor + 0.03 * bent * sway
    sound = tones(motor * 6, (0.45, 0.25, 0.2, 0.1, 0.1), rng)
    sound += tones(gears * teeth, (0.6, 0.4, 0.2, 0.15), rng)
    sound *= (1 + 0.15 * cosine(motor / 2)) * (1 + np.tanh(0.5 * bent) * sway) * (volt / 3.1)
    brushes = noise(samples, rng, 1500.0, 6500.0) * (1 + 0.15 * wander(samples, rng, 10.0))
    sound += (0.35 * brushes + 0.35 * noise(samples, rng, 100.0, 900.0, 0.3)) * (volt / 3.1)
    modes = [(body * (1 + 0.02 * rng.standard_normal()), 0.007, 1.0), (3.7 * body, 0.003, 0.5)]
    excitation = knocks(passages(axle, 1.0, rng, 0.1), 0.8, samples)  # every wheel is a little out of round
    if level := fault.level("flat_tyre"):
        excitation += knocks(passages(axle, 1.0, fault.rng, 0.01), 2.2 * level, samples)
    if level := fault.level("deformed_gear"):
        sound += 0.3 * level * tones(motor / 2 * 37, (0.5, 0.6, 0.3), fault.rng)
        ticks = knocks(passages(motor, 0.5, fault.rng), 1.1 * level, samples)
        sound += ring(ticks, [(4300.0, 0.0015, 1.0)])
    if level := fault.level("worn_brushes"):
        sparks = np.maximum(cosine(6 * motor), 0.0) ** 4
        sound += 0.75 * level * sparks * noise(samples, fault.rng, 3000.0, 7000.0)
    return sound + ring(excitation, modes)


TRAINS = {"A1": 29, "A2": 31, "B1": 34, "B2": 35, "C1": 30, "D1": 33}  # gear teeth passing per wheel turn
LAP, RAIL, WHEEL, AXLES = 1.8, 0.15, 0.045, (0.0, 0.035, 0.11, 0.145)  # m: oval, rail, circumference, axle positions


def toy_train(attributes: Attributes, fault: Fault, samples: int, rng: np.random.Generator) -> Array:
    """Toy train ``car`` on an oval at ``spd`` x 0.05 m/s: each axle clicks over each rail joint, gears whine.

    Its distance from the microphone beside the oval sets the level. A chipped wheel clicks once per turn, a broken
    rail knocks at one place of each lap, a stone there scrapes too, dry flanges squeal in the two curves.
    """
    speed = 0.05 * float(attributes["spd"])
    place = turns(steady(speed, samples, rng, 0.03)) + LAP * rng.random()  # m travelled
    lap, pace = place / LAP, speed / 0.4
    near = 1.3 / np.sqrt(1.7 + cosine(lap))
    wheel = place / WHEEL
    whine = tones(wheel * TRAINS[attributes["car"]], (0.6, 0.45, 0.35, 0.2, 0.15, 0.1), rng)
    sound = pace * (whine + 0.7 * noise(samples, rng, 200.0, 4500.0, 0.3) * (1 + 0.1 * wander(samples, rng, 6.0)))
    drift = 1 + 0.02 * rng.standard_normal()
    modes = [(900 * drift, 0.004, 1.0), (3300 * drift, 0.002, 0.8)]
    excitation = np.zeros(samples)
    for axle in AXLES:
        times = passages(place - axle, 1 / RAIL, rng, 0.02)
        excitation += knocks(times, pace * rng.uniform(1.0, 2.5, len(times)), samples)
    spot = fault.rng.random()
    if level := fault.level("chipped_wheel"):
        excitation += knocks(passages(wheel, 1.0, fault.rng), 3.0 * level * pace, samples)
    if level := fault.level("broken_rail") + fault.level("stone_on_rail"):
        passed = np.flatnonzero(np.diff(np.floor(lap - spot))) / SAMPLE_RATE
        for axle in AXLES:
            excitation += knocks(passed + axle / speed, 9.0 * level * pace, samples)
    if level := fault.level("stone_on_rail"):
        scrape = np.exp(40 * (cosine(lap - spot - 0.03) - 1))
        sound += 2.2 * level * pace * scrape * noise(samples, fault.rng, 1500.0, 6000.0)
    if level := fault.level("flange_squeal"):
        curve = np.maximum(cosine(2 * lap), 0.0) ** 2
        tone = tones(turns(2900.0 * drift * (1 + 0.01 * wander(samples, fault.rng, 8.0))), (1.0, 0.4), fault.rng)
        sound += 0.6 * level * pace * curve * tone
    return near * (sound + ring(excitation, modes))
