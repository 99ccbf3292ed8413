"""The simulated machine types: which model makes the sound, what can fail, and how source and target differ.

A target domain runs under conditions (speed, load, pattern, specimen) and is heard through a microphone and against
a background that the source domain never shows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from ray_asd.data import machines, toys
from ray_asd.data.machines import Attributes, Model
from ray_asd.data.sound import Place

Grid = Mapping[str, tuple[str, ...]]  # attribute name -> its values


@dataclass(frozen=True)
class Machine:
    """One machine type. ``places`` is keyed by the values of the attribute ``heard_by``, or by domain without one."""

    sound: Model
    faults: tuple[str, ...]
    source: Grid
    target: Grid
    places: Mapping[str, Place]
    heard_by: str | None = None

    def conditions(self, domain: str) -> list[dict[str, str]]:
        """Every combination of attribute values of ``domain``."""
        grid = self.source if domain == "source" else self.target
        return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]

    def place(self, attributes: Attributes, domain: str) -> Place:
        """Where the microphone of a recording stands."""
        return self.places[attributes[self.heard_by] if self.heard_by else domain]


MACHINES: Mapping[str, Machine] = {
    "bearing": Machine(
        sound=machines.bearing,
        faults=("outer_race", "inner_race", "ball", "poor_lubrication"),
        source={"vel": ("6", "10", "14", "18", "22"), "loc": ("A", "B")},
        target={"vel": ("8", "20"), "loc": ("C", "D")},
        places={
            "A": Place(snr=4.0),
            "B": Place(snr=3.0, peak=1800.0, lift=0.3),
            "C": Place(snr=3.0, peak=1200.0, lift=0.2),
            "D": Place(snr=3.5, low=70.0, hum=60.0),
        },
        heard_by="loc",
    ),
    "fan": Machine(
        sound=machines.fan,
        faults=("unbalance", "rubbing", "damaged_blade", "clogging"),
        source={"m-n": ("U", "V", "W", "X")},
        target={"m-n": ("Y", "Z")},
        places={
            "U": Place(snr=3.0, hum=97.0),
            "V": Place(snr=2.0, hum=113.0, slope=0.4),
            "W": Place(snr=2.5, hum=143.0, slope=0.6),
            "X": Place(snr=2.0, hum=84.0, peak=1800.0, lift=0.3),
            "Y": Place(snr=2.0, hum=128.0, peak=3000.0, lift=0.2),
            "Z": Place(snr=2.5, hum=71.0, slope=0.55),
        },
        heard_by="m-n",
    ),
    "gearbox": Machine(
        sound=machines.gearbox,
        faults=("chipped_tooth", "worn_flank", "eccentricity", "dry_mesh"),
        source={"volt": ("1.0", "1.5", "2.0", "2.5"), "wt": ("0", "50", "100")},
        target={"volt": ("1.3", "2.2"), "wt": ("75", "125")},
        places={
            "source": Place(snr=3.0),
            "target": Place(snr=2.7, peak=1500.0, lift=0.15, hum=55.0),
        },
    ),
    "slider": Machine(
        sound=machines.slider,
        faults=("stick_slip", "backlash", "damaged_rail", "dry_rail"),
        source={"vel": ("300", "500", "700"), "ac": ("1.0", "2.0")},
        target={"vel": ("400", "600"), "ac": ("1.5",)},
        places={
            "source": Place(snr=5.0),
            "target": Place(snr=4.5, peak=2000.0, lift=0.2, hum=60.0),
        },
    ),
    "ToyCar": Machine(
        sound=toys.toy_car,
        faults=("bent_shaft", "flat_tyre", "deformed_gear", "worn_brushes"),
        source={"car": ("A1", "A2", "B1", "B2"), "spd": ("2.8V", "3.1V", "3.4V"), "mic": ("1",), "noise": ("1",)},
        target={"car": ("C1", "D1"), "spd": ("3.0V", "3.3V"), "mic": ("2",), "noise": ("2",)},
        places={
            "1": Place(snr=4.0),
            "2": Place(snr=3.5, peak=3500.0, lift=0.2),
        },
        heard_by="mic",
    ),
    "ToyTrain": Machine(
        sound=toys.toy_train,
        faults=("chipped_wheel", "broken_rail", "stone_on_rail", "flange_squeal"),
        source={"car": ("A1", "A2", "B1", "B2"), "spd": ("6", "8", "10"), "mic": ("1",), "noise": ("1",)},
        target={"car": ("C1", "D1"), "spd": ("7", "9"), "mic": ("2",), "noise": ("2",)},
        places={
            "1": Place(snr=4.0),
            "2": Place(snr=3.5, slope=0.45, peak=1500.0, lift=0.2),
        },
        heard_by="mic",
    ),
    "valve": Machine(
        sound=machines.valve,
        faults=("leak", "sticking", "worn_seat", "contamination"),
        source={"pat": ("00", "01", "02", "03"), "panel": ("open",)},
        target={"pat": ("04", "05"), "panel": ("shut",)},
        places={
            "open": Place(snr=9.0),
            "shut": Place(snr=8.5, slope=0.55, peak=1400.0, lift=0.2),
        },
        heard_by="panel",
    ),
}
