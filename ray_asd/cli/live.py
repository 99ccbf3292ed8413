"""A sweep as told to a person: its plan; and while it runs a live table of its cells, or lines without a terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from ray_asd.cli.console import planned

if TYPE_CHECKING:
    from rich.table import Table

    from ray_asd.stages.sweep import Row, Sweep

_LINES_SECONDS = 30.0  # between reports on running cells where stderr is no terminal


@dataclass(frozen=True)
class _Seen:
    """A cell at a moment, as text."""

    cell: str
    stage: str
    steps: str
    measured: str
    left: str

    def __str__(self) -> str:
        return "  ".join(part for part in (f"{self.cell}: {self.stage}", self.steps, self.measured, self.left) if part)


def _seen(sweep: "Sweep", row: "Row") -> _Seen:
    error = sweep.error(row)
    if error:
        return _Seen(row.cell.label, "failed", "", error, "")
    node = sweep.present(row)
    if node is None:
        return _Seen(row.cell.label, "done", "", "", "")
    stage = node.planned.step.stage
    if node.state != "running":
        return _Seen(row.cell.label, f"{stage} waits", "", "", "")
    steps = f"{node.done}/{node.total}" if node.total else ""
    left = "" if node.seconds_left is None else f"{timedelta(seconds=round(node.seconds_left))} left"
    return _Seen(row.cell.label, stage, steps, node.measured, left)


@contextmanager
def live(sweep: "Sweep") -> Iterator[Callable[[], None]]:
    """While the block runs, what it calls now and then to have the table shown."""
    if not sys.stderr.isatty():
        yield _Lines(sweep)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False) as shown:
        yield lambda: shown.update(_table(sweep), refresh=True)


def _table(sweep: "Sweep") -> "Table":
    from rich.table import Table

    done, total, left = sweep.stages_done
    table = Table(title=f"{done} of {total} stages done{_about(left)}", title_justify="left")
    for name in ("cell", "stage", "steps", "", "ETA"):
        table.add_column(name)
    for row in sweep.rows:
        seen = _seen(sweep, row)
        table.add_row(seen.cell, seen.stage, seen.steps, seen.measured, seen.left)
    return table


def _about(seconds: float | None) -> str:
    return "" if seconds is None else f", about {timedelta(seconds=round(seconds))} left"


class _Lines:
    """A line for each cell that comes to another stage, and for all that run every half minute."""

    def __init__(self, sweep: "Sweep") -> None:
        self._sweep = sweep
        self._stages: dict[str, str] = {}
        self._last = time.monotonic()

    def __call__(self) -> None:
        due = time.monotonic() - self._last > _LINES_SECONDS
        for row in self._sweep.rows:
            seen = _seen(self._sweep, row)
            if self._stages.get(seen.cell) != seen.stage or (due and seen.steps):
                self._stages[seen.cell] = seen.stage
                click.echo(str(seen), err=True)
        if due:
            self._last = time.monotonic()
            done, total, left = self._sweep.stages_done
            click.echo(f"{done} of {total} stages done{_about(left)}", err=True)


def show_plan(sweep: "Sweep") -> None:
    """Print what a dry run has to say: every stage, what is there, shared and needed, and the totals."""
    from ray_asd.build.estimates import estimates

    shared = sweep.shared
    found = estimates((node.planned for node in sweep.engine.nodes.values()), sweep.engine.root)
    for estimate in found:
        cells = shared[estimate.planned.uri]
        click.echo(planned(estimate) + (f", shared by {cells} cells" if cells > 1 else ""))
    for row, error in sweep.failed:
        click.echo(f"failed {row.cell.label}: {error}")
    to_do = [estimate for estimate in found if not estimate.planned.done]
    size = sum(estimate.planned.step.bytes or 0 for estimate in to_do)
    known = [estimate.gpu_hours for estimate in to_do if estimate.gpu_hours is not None]
    click.echo(f"{len(sweep.rows)} cells, {len(found)} stages: {len(found) - len(to_do)} done, {len(to_do)} to do")
    click.echo(f"{size / 1e9:.2f} GB of training sets written, {sum(known):.2f} GPU-hours in {len(known)} known stages")
    for stage, count in sweep.at_once().items():
        click.echo(f"at once: {count} x {stage}")
