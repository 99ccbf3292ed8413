"""The tables that need METRICS and markers only: every row there is, best first, and what each one took."""

from collections.abc import Sequence

from ray_asd.build import Marker
from ray_asd.report.rows import Row
from ray_asd.report.table import Cell, Table, interval, percent
from ray_asd.scoring.protocols import PROTOCOLS

_NOTE = "in percent, over all machines and per machine type; in brackets the 95% bootstrap interval over clips."
_APART = "Figures of different protocols do not compare."

_COLUMNS = {  # of the CSV files that have a column for each machine type
    *("system", "seed", "seeds", "all_machines", "low", "high", "std", "why", "uri"),
    *("method", "WS", "SA", "TFP", "published_all_machines"),
}


def machine_types(rows: Sequence[Row]) -> list[str]:
    """Of all rows, by letter."""
    return sorted({machine for row in rows for machine in row.machines}, key=str.lower)


def overview(rows: Sequence[Row]) -> Table:
    """One line per system and seed."""
    machines = machine_types(rows)
    several = len({row.protocols for row in rows}) > 1
    return Table(
        "Comparison of systems",
        ["system", "seed", *(["protocol"] if several else []), "all machines", *machines],
        [[Cell(text, row.uri) for text in cells(row, machines, several)] for row in rows],
        [*notes(rows), *_remarks(rows)],
    )


def notes(rows: Sequence[Row]) -> list[str]:
    """What the figures of these rows are, by protocol."""
    names = sorted({name for row in rows for name in row.protocols})
    if len(names) == 1:
        return [f"{PROTOCOLS[names[0]].caption}, {_NOTE}"]
    return [*(f"{name}: {PROTOCOLS[name].caption}, {_NOTE}" for name in names), *([_APART] if names else [])]


def _remarks(rows: Sequence[Row]) -> list[str]:
    """Why a row has no figure, and what does not count in it."""
    whys = [f"{row.system}: no all-machine figure: {row.why}" for row in rows if row.why]
    copies = max((row.copies for row in rows), default=0)
    return [*whys, *([f"{copies} clips lie there twice, by content and name, and count once."] if copies else [])]


def values(rows: Sequence[Row]) -> list[dict[str, object]]:
    """One record per row, nothing rounded, with the place of its METRICS, for the CSV file."""
    machines = machine_types(rows)
    return [
        {
            "system": row.system,
            "seed": row.seed,
            "protocol": " ".join(row.protocols),
            "all_machines": row.score,
            "low": row.low,
            "high": row.high,
            **{column(name): row.machines.get(name) for name in machines},
            "why": row.why,
            "uri": row.uri,
        }
        for row in rows
    ]


def column(machine: str) -> str:
    """Of a machine type in a CSV file: its name, unless another column is called so."""
    return f"machine {machine}" if machine in _COLUMNS else machine


def cost_values(rows: Sequence[Row]) -> list[dict[str, object]]:
    """One record per stage behind each row, nothing rounded, for the CSV file."""
    return [
        {
            "system": row.system,
            "seed": row.seed,
            "stage": stage.stage,
            "seconds": stage.seconds,
            "cpus": stage.held.cpus,
            "gpus": stage.held.gpus,
            "uri": uri,
        }
        for row in rows
        if row.origin
        for uri, stage in row.origin.stages.items()
    ]


def cells(row: Row, machines: Sequence[str], with_protocol: bool = False) -> list[str]:
    """The row as text."""
    seed = "-" if row.seed is None else str(row.seed)
    told = [" ".join(row.protocols)] if with_protocol else []
    figures = [percent(row.machines.get(machine)) for machine in machines]
    return [row.system, seed, *told, percent(row.score) + interval(row.low, row.high), *figures]


def costs(rows: Sequence[Row]) -> Table:
    """Time, CPU-hours and GPU-hours of each row, over all stages that it is made of."""
    lines, everything = [], dict[str, Marker]()
    for row in rows:
        if row.origin is None:
            continue
        everything |= row.origin.stages
        lines.append([Cell(row.system, row.uri), Cell("-" if row.seed is None else str(row.seed))])
        lines[-1] += _took(list(row.origin.stages.values()))
    lines.append([Cell("all of it, shared stages once"), Cell(""), *_took(list(everything.values()))])
    return Table(
        "What it took",
        ["system", "seed", "stages", "seconds", "CPU-hours", "GPU-hours"],
        lines,
        ["From the markers of the stages below each row but ingest; a shared stage counts in every row that needs it."],
    )


def _took(stages: Sequence[Marker]) -> list[Cell]:
    seconds = sum(stage.seconds for stage in stages)
    hours = (
        sum(stage.seconds * stage.held.cpus for stage in stages) / 3600,
        sum(stage.seconds * stage.held.gpus for stage in stages) / 3600,
    )
    return [Cell(str(len(stages))), Cell(f"{seconds:.0f}"), *(Cell(f"{value:.3f}") for value in hours)]
