"""The paper's Table 1 of our systems: baselines, then a block per combination of WS, SA and TFP with its average."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ray_asd.build import Output
from ray_asd.config import Family
from ray_asd.report import paper
from ray_asd.report.overview import column, machine_types
from ray_asd.report.paper import Published
from ray_asd.report.rows import Parts, Row
from ray_asd.report.table import Cell, Table, interval, percent
from ray_asd.scoring.protocols import PROTOCOLS

_FAMILIES: tuple[str, ...] = Family.__args__  # type: ignore[attr-defined]
_BASELINES = ("autoencoder", "mobilenet")


@dataclass(frozen=True)
class System:
    """One system over its seeds: a row of CELLS, and the mean of each machine type's figure, as fractions."""

    name: str
    parts: Parts | None  # None: features without training, or a fusion
    seeds: Sequence[int]
    mean: float
    std: float | None
    low: float
    high: float
    machines: Mapping[str, float | None]
    uri: str
    published: Published | None  # the paper's row about such a system
    clips: Output | None  # that were scored
    protocols: tuple[str, ...] = ("dcase2023",)  # of the figures (scoring.protocols)

    @property
    def place(self) -> tuple[int, int, int]:
        """Where in the table it stands: baselines, what is not trained, then by what is switched on and by family."""
        if self.parts is None:
            return 1, 0, 0
        if self.parts.method in _BASELINES:
            return 0, 0, _BASELINES.index(self.parts.method)
        weights = sum(weight for weight, on in zip((1, 2, 4), self.parts.switches, strict=True) if on)
        return 2, weights, _FAMILIES.index(self.parts.family)


def systems(rows: Sequence[Row], cells: pa.Table, comparison_uri: str) -> list[System]:
    """The compared systems in the table's order, from their rows and their CELLS."""
    by_name: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_name[row.system].append(row)
    found = []
    for cell in cells.to_pylist():
        own = [row for row in by_name[cell["system"]] if not cell["seeds"] or row.seed in cell["seeds"]]
        origin = own[0].origin if own else None
        parts = origin.parts if origin else None
        machines = {machine: _mean([row.machines.get(machine) for row in own]) for machine in machine_types(own)}
        published = next((line for line in paper.table() if parts and line.is_of(parts)), None)
        uri = own[0].uri if len(own) == 1 else comparison_uri
        clips = origin.clips if origin else None
        told = {"protocols": tuple(sorted({name for row in own for name in row.protocols}))} if own else {}
        figures = {name: cell[name] for name in ("seeds", "mean", "std", "low", "high")} | told
        found.append(
            System(cell["system"], parts, machines=machines, uri=uri, published=published, clips=clips, **figures)
        )
    return sorted(found, key=lambda system: system.place)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def table(found: Sequence[System], is_papers_data: bool) -> Table:
    """The table; beside each system its published row where both are of the same recordings."""
    machines = sorted({machine for system in found for machine in system.machines}, key=str.lower)
    lines: list[list[Cell]] = []
    block: list[System] = []
    for number, system in enumerate(found):
        lines.append(_line(system, machines))
        if is_papers_data and system.published:
            lines.append(_published_line(f"{system.name}, published", system.published, machines))
        block.append(system)
        following = found[number + 1].place[:2] if number + 1 < len(found) else None
        if following != system.place[:2]:
            if system.place[0] == 2 and len(block) > 1:
                lines.append(_average(block, machines))
            block = []
    captions = [PROTOCOLS[name].caption for name in sorted({name for system in found for name in system.protocols})]
    notes = [
        f"{'; '.join(captions)}; in percent, over all machines and per machine type; mean ± standard deviation where a "
        "system has several seeds, in brackets the 95% bootstrap interval over clips; averages over a block are "
        "arithmetic."
    ]
    return Table("Table 1", ["system", "all machines", *machines], lines, notes)


def _line(system: System, machines: Sequence[str]) -> list[Cell]:
    spread = "" if system.std is None else f" ± {percent(system.std)}"
    score = percent(system.mean) + spread + interval(system.low, system.high)
    figures = [percent(system.machines.get(machine)) for machine in machines]
    return [Cell(text, system.uri) for text in (system.name, score, *figures)]


def _published_line(name: str, line: Published, machines: Sequence[str]) -> list[Cell]:
    figures = [percent(line.machines.get(machine)) for machine in machines]
    return [Cell(text) for text in (name, percent(line.score), *figures)]


def _average(block: Sequence[System], machines: Sequence[str]) -> list[Cell]:
    figures = [_mean([system.machines.get(machine) for system in block]) for machine in machines]
    name = "Avg " + "+".join(block[0].name.partition(" ")[0].split("+")[1:])
    return [Cell(text) for text in (name.strip(), percent(_mean([s.mean for s in block])), *map(percent, figures))]


def published_table() -> Table:
    """The paper's table by itself, for reports on other recordings."""
    ladder = {None: "", (False, False, False): "", (True, False, False): "+WS"}
    ladder |= {(True, True, False): "+WS+SA", (True, True, True): "+WS+SA+TFP"}
    lines = [_published_line(line.system + ladder[line.switches], line, paper.MACHINES) for line in paper.table()]
    return Table(
        "The paper's Table 1, of other recordings",
        ["system", "all machines", *paper.MACHINES],
        lines,
        [
            f"As published: {paper.CITATION}, on the development set of DCASE 2023 Task 2. The systems above heard "
            "other recordings: these figures do not compare with theirs."
        ],
    )


def values(found: Sequence[System]) -> list[dict[str, object]]:
    """One record per system, nothing rounded, for the CSV file."""
    machines = sorted({machine for system in found for machine in system.machines}, key=str.lower)
    records = []
    for system in found:
        parts = system.parts
        record: dict[str, object] = {"system": system.name, "method": parts.method if parts else "other"}
        switches = parts.switches if parts and parts.method == "backbone" else (None, None, None)
        record |= dict(zip(("WS", "SA", "TFP"), switches, strict=True))
        record |= {"seeds": " ".join(map(str, system.seeds)), "protocol": " ".join(system.protocols)}
        record |= {"all_machines": system.mean, "std": system.std}
        record |= {"low": system.low, "high": system.high}
        record |= {column(machine): system.machines.get(machine) for machine in machines}
        record |= {"published_all_machines": system.published.score if system.published else None, "uri": system.uri}
        records.append(record)
    return records
