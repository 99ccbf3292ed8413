"""Which differences are real: between any two systems, and what each part of the method brings to each backbone."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations

import pyarrow as pa

from ray_asd.report.rows import Difference
from ray_asd.report.table import Cell, Table, interval, percent
from ray_asd.report.table1 import System

_SWITCHES = ("WS", "SA", "TFP")
_NOTE = (
    "Paired bootstrap over clips: every resample draws the same clips for both systems; points of the all-machine "
    "figure."
)


Differences = Mapping[tuple[str, str], Difference]


def differences(pairs: pa.Table) -> Differences:
    """By the names of both systems, in both orders."""
    found = {}
    for row in pairs.to_pylist():
        value, low, high = row["difference"], row["low"], row["high"]
        found[row["system_a"], row["system_b"]] = Difference(value, low, high)
        found[row["system_b"], row["system_a"]] = Difference(-value, -high, -low)
    return found


def matrix(found: Differences, systems: Sequence[System], uri: str) -> Table:
    """Row minus column for any two systems, a star where the interval leaves out zero."""
    names = [system.name for system in systems]

    def cell(one: str, other: str) -> Cell:
        if one == other:
            return Cell("")
        difference = found[one, other]
        return Cell(percent(difference.value, signed=True) + ("*" if difference.is_real else ""), uri)

    numbers = [str(number) for number in range(1, len(names) + 1)]
    rows = [
        [Cell(f"{number} {one}"), *(cell(one, other) for other in names)]
        for number, one in zip(numbers, names, strict=True)
    ]
    notes = [f"Row minus column. {_NOTE} * the 95% interval leaves out zero; the intervals stand in pairs.csv."]
    return Table("Differences between any two systems", ["", *numbers], rows, notes)


def effects(found: Differences, systems: Sequence[System], uri: str) -> Table:
    """What switching on WS, SA or TFP alone changed, per backbone."""
    rows = []
    for switch, without, with_it in _steps(systems):
        difference = found[with_it.name, without.name]
        text = percent(difference.value, signed=True) + interval(difference.low, difference.high, signed=True)
        verdict = "real" if difference.is_real else "not told from none"
        rows.append([Cell(switch), Cell(f"{without.name} to {with_it.name}"), Cell(text, uri), Cell(verdict)])
    notes = [f"{_NOTE} Real: the 95% interval leaves out zero."]
    return Table("Effect of each part", ["part", "systems", "difference", ""], rows, notes)


def _steps(systems: Sequence[System]) -> Iterator[tuple[str, System, System]]:
    """Systems that differ in one part only, by part, the one without it first."""
    for place, switch in enumerate(_SWITCHES):
        for without, with_it in permutations(systems, 2):
            one, other = without.parts, with_it.parts
            if one is None or other is None or (one.method, one.family) != (other.method, other.family):
                continue
            changed = [before != after for before, after in zip(one.switches, other.switches, strict=True)]
            same_variant = without.name.partition("[")[1:] == with_it.name.partition("[")[1:]
            if changed == [number == place for number in range(3)] and other.switches[place] and same_variant:
                yield switch, without, with_it
