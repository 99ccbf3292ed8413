"""The comparison table, from METRICS and markers alone: as Markdown, and as one plain HTML page."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2

from ray_asd import archive, build, storage, tables
from ray_asd.errors import UserError

_NOTE = (
    "Harmonic mean of source AUC, target AUC and pAUC (official DCASE 2023 Task 2 definitions), in percent, over all "
    "machines and per machine type; in brackets the {level:.0%} bootstrap interval over clips."
)


@dataclass(frozen=True)
class Row:
    """One system and seed: its all-machine figure with interval, and its figure per machine type, as fractions."""

    system: str
    seed: int | None
    score: float | None
    low: float | None
    high: float | None
    why: str | None
    machines: dict[str, float | None]
    uri: str

    def cells(self, machines: Sequence[str]) -> list[str]:
        """The row as text; the figures are rounded here and nowhere else."""
        interval = f" [{_percent(self.low)}, {_percent(self.high)}]" if self.low is not None else ""
        all_machines = _percent(self.score) + interval
        seed = "-" if self.seed is None else str(self.seed)
        return [self.system, seed, all_machines, *(_percent(self.machines.get(machine)) for machine in machines)]


def write(root: str, out: str) -> tuple[str, str]:
    """Write ``report.md`` and ``report.html`` of every METRICS table below ``root`` into ``out``; returns their URIs.

    Raises:
        UserError: there is none.
    """
    rows = collect([output for output in archive.outputs(root) if output.marker.stage == "evaluate"])
    if not rows:
        raise UserError(f"{root} holds no METRICS; run `ray-asd evaluate` first")
    written = []
    for name, text in (("report.md", markdown(rows)), ("report.html", html(rows))):
        written.append(storage.join(out, name))
        storage.write(written[-1], text.encode())
    return written[0], written[1]


def collect(outputs: Sequence[build.Output]) -> list[Row]:
    """The rows of these ``evaluate`` outputs, best first; a system that several of them hold appears once."""
    rows: dict[tuple[object, ...], Row] = {}
    for output in outputs:
        machines: dict[tuple[str, int | None], dict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
        for row in output.table("metrics", tables.METRICS).to_pylist():
            machines[row["system"], row["seed"]][row["machine_type"]].append(row["hmean"])
        for system in output.marker.summary["systems"]:
            key = (system["system"], system["seed"])
            figures = {machine: _harmonic(values) for machine, values in machines[key].items()}
            interval = (system["score"], system.get("low"), system.get("high"))
            found = Row(*key, *interval, system.get("why"), figures, output.uri)
            rows[(*key, system["score"], tuple(sorted(figures.items())))] = found
    return sorted(rows.values(), key=lambda row: (-(row.score or 0), row.system, row.seed or 0))


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table; the widths are padded so that it reads as text too."""
    machines = _machines(rows)
    table = [
        [cell.replace("|", r"\|") for cell in line]
        for line in [_header(machines), *(row.cells(machines) for row in rows)]
    ]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in table
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([*lines, "", _note(), *_whys(rows), ""])


def html(rows: Sequence[Row]) -> str:
    """One self-contained page with the same table."""
    machines = _machines(rows)
    template = (resources.files("ray_asd") / "templates" / "report.html").read_text()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    body = [{"cells": row.cells(machines), "uri": row.uri} for row in rows]
    page = environment.from_string(template)
    return str(page.render(header=_header(machines), rows=body, notes=[_note(), *_whys(rows)]))


def _header(machines: Sequence[str]) -> list[str]:
    return ["system", "seed", "all machines", *machines]


def _machines(rows: Sequence[Row]) -> list[str]:
    return sorted({machine for row in rows for machine in row.machines}, key=str.lower)


def _note() -> str:
    return _NOTE.format(level=0.95)


def _whys(rows: Sequence[Row]) -> list[str]:
    return [f"{row.system}: no all-machine figure: {row.why}" for row in rows if row.why]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _harmonic(values: Sequence[float | None]) -> float | None:
    if any(value is None for value in values):
        return None
    return len(values) / sum(1 / max(value, 2.3e-16) for value in values if value is not None)
