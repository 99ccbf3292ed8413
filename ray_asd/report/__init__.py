"""The report: comparison tables and the paper's figures, from METRICS, a comparison and markers alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from markupsafe import Markup
from pyarrow import csv as arrow_csv

from ray_asd import store, tables
from ray_asd.build import Output
from ray_asd.errors import UserError
from ray_asd.report import differences, overview, paper, table1
from ray_asd.report.page import RUNS, Options, Page, listing, render
from ray_asd.report.page import write as pages
from ray_asd.report.rows import Row, collect, scored_by
from ray_asd.report.run import runs
from ray_asd.report.section import csv_of
from ray_asd.report.table import Cell, Table, latex, markdown
from ray_asd.tables import Folder

__all__ = ["Failure", "Options", "Written", "collect", "markdown", "overview_of", "pages", "runs", "write"]


@dataclass(frozen=True)
class Failure:
    """A cell of a sweep that was not finished, and why."""

    system: str
    seed: int
    error: str

    def __str__(self) -> str:
        return f"{self.system} seed {self.seed}: {self.error}"


@dataclass(frozen=True)
class Written:
    """URIs of the report's files by what they are, its first table as Markdown, and how many runs have a page."""

    files: dict[str, str]
    table: str
    pages: int


def overview_of(outputs: Sequence[Output]) -> str:
    """The rows of these ``evaluate`` outputs as a Markdown table, best first."""
    return markdown(overview.overview(collect(outputs)))


def write(
    outputs: Sequence[Output],
    comparison: Output | None,
    failures: Sequence[Failure],
    out: str,
    pages: Sequence[Page] = (),
) -> Written:
    """Write the report on these ``evaluate`` outputs, and on the ``compare`` output where there is one, into ``out``.

    ``pages`` about single runs, which lie there already, are listed and linked.

    Raises:
        UserError: there is nothing to report on.
    """
    if not outputs and not failures and not pages:
        raise UserError("no METRICS to report on; run `ray-asd evaluate` first")
    rows = collect(outputs)
    found, files = _compared(outputs, comparison) if comparison else ([], {})
    found += [_failed(failures)] if failures else []
    found += [overview.overview(rows), overview.costs(rows)] if rows else []
    listed = [listing(pages)] if pages else []
    figures = {"overview.csv": overview.values(rows), "costs.csv": overview.cost_values(rows)}
    files |= {name: csv_of(records) for name, records in figures.items() if records}
    figure = _figure(rows)
    if figure:
        files["layer_weights.svg"] = figure
    files["report.md"] = "\n".join(_section(table) for table in [*listed, *found]).encode()
    files["report.html"] = _page([*listed, *found], figure)
    for name, content in files.items():
        store.write(store.join(out, name), content)
    return Written({_KINDS[name]: store.join(out, name) for name in files}, markdown([*found, *listed][0]), len(pages))


_KINDS = {
    "report.html": "report",
    "report.md": "markdown",
    "table1.csv": "table1_csv",
    "table1.tex": "table1_tex",
    "pairs.csv": "pairs",
    "overview.csv": "overview_csv",
    "costs.csv": "costs_csv",
    "layer_weights.svg": "layer_weights",
}


def _compared(outputs: Sequence[Output], comparison: Output) -> tuple[list[Table], dict[str, bytes]]:
    """The tables that need a comparison, and the files that hold figures for other programs."""
    scores = {source.uri for source in comparison.marker.inputs.values()}
    own = [output for output in outputs if scores & scored_by(output)]
    systems = table1.systems(collect(own), comparison.table(Folder.CELLS, tables.CELLS), comparison.uri)
    heard = {system.clips.uri: system.clips for system in systems if system.clips}
    is_papers_data = bool(heard) and all(paper.is_its_data(clips) for clips in heard.values())
    pairs = comparison.table(Folder.PAIRS, tables.PAIRS)
    apart = differences.differences(pairs)
    main = table1.table(systems, is_papers_data)
    found = [
        main,
        differences.effects(apart, systems, comparison.uri),
        differences.matrix(apart, systems, comparison.uri),
        *([] if is_papers_data else [table1.published_table()]),
    ]
    files = {
        "table1.csv": csv_of(table1.values(systems)),
        "table1.tex": latex(main).encode(),
        "pairs.csv": _arrow(pairs),
    }
    return found, files


def _failed(failures: Sequence[Failure]) -> Table:
    lines = [[Cell(failure.system), Cell(str(failure.seed)), Cell(failure.error)] for failure in failures]
    return Table("Cells that failed", ["system", "seed", "why"], lines)


def _section(table: Table) -> str:
    return f"## {table.title}\n\n{markdown(table)}"


def _arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    arrow_csv.write_csv(table, sink)
    return bytes(sink.getvalue())


def _figure(rows: Sequence[Row]) -> bytes | None:
    if not any(row.origin and row.origin.layer_weights for row in rows):
        return None
    from ray_asd.report.figures import layer_weights  # matplotlib takes a second

    return layer_weights(rows)


def _page(found: Sequence[Table], figure: bytes | None) -> bytes:
    """One self-contained page."""
    start = '<svg role="img" aria-label="Learned weight of each layer, by system"'
    drawing = Markup(start + figure.decode().partition("<svg")[2]) if figure else ""
    return render("report.html", tables=found, figure=drawing, has_pages=found[0].title == RUNS)
