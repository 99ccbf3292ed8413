"""The page about a run: one HTML file that needs nothing else, the same as Markdown, and its figures as CSV files."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import jinja2

from ray_asd import store
from ray_asd.report import background, certainty, machines, suspects
from ray_asd.report.groups import UNJUDGED, WRONG, Group, groups_of
from ray_asd.report.run import Run
from ray_asd.report.section import Section, csv_of, markdown_of
from ray_asd.report.table import Cell, Table, interval, percent, plain

FOLDER = "runs"  # of the pages, below the report
RUNS = "Runs"  # title of the list of pages
_DOUBT = "Mind that the system was not found to beat the baseline: its verdicts may mean little."
_MAX_LINES = 200  # of a table on a page; the CSV files hold all


@dataclass(frozen=True)
class Options:
    """What a page shows: how many of the most anomalous clips, and whether they can be heard."""

    clips: int = 5
    audio: bool = True


@dataclass(frozen=True)
class Tile:
    """One of the figures on top of a page; ``tone`` is good, bad or plain."""

    name: str
    figure: str
    detail: str
    tone: str = "plain"


@dataclass(frozen=True)
class Page:
    """A written page: its place relative to the report, and the line by which a list of pages tells of it."""

    run: Run
    href: str
    line: Sequence[str]


def write(found: Sequence[Run], out: str, options: Options, progress: Callable[[str, int, int], None]) -> list[Page]:
    """Write a page for each run into ``out/runs``."""
    pages = []
    for done, run in enumerate(found, 1):
        pages.append(_write(run, out, options))
        progress("report", done, len(found))
    return pages


def listing(pages: Sequence[Page]) -> Table:
    """The pages by name, with what an operator asks first."""
    lines = [[Cell(page.line[0], page.href), *map(Cell, page.line[1:])] for page in pages]
    note = (
        "A machine sounds wrong when it gives more alarms than healthy ones would; its page says which clips and why."
    )
    return Table(RUNS, ["run", "seed", "machines that sound wrong", "alarms", "clips"], lines, [note])


def _write(run: Run, out: str, options: Options) -> Page:
    groups = groups_of(run)
    sections = list(_sections(run, groups, options))
    text = _html(run, groups, sections)
    name = run.name
    content = {f"{name}.html": text, f"{name}.md": _markdown(run, sections)}
    for section in sections:
        content |= {f"{name}/{file}": csv_of(records) for file, records in section.files.items()}
    for path, data in content.items():
        store.write(store.join(out, FOLDER, path), data)
    return Page(run, f"{FOLDER}/{name}.html", _line(run, groups))


def _line(run: Run, groups: Sequence[Group]) -> list[str]:
    wrong = ", ".join(group.name for group in groups if group.verdict == WRONG)
    judged = any(group.chance is not None for group in groups)
    alarms = [group.alarms for group in groups if group.threshold is not None]
    line = [run.system, "-" if run.seed is None else str(run.seed), wrong or ("none" if judged else "-")]
    return [*line, str(sum(alarms)) if alarms else "-", str(_clips(groups)) if groups else "-"]


def _sections(run: Run, groups: Sequence[Group], options: Options) -> Iterator[Section]:
    if run.scores:
        first = machines.machines(run, groups)
        yield replace(first, lead=f"{first.lead} {_DOUBT}") if certainty.is_doubtful(run) else first
    if run.scores and options.clips:
        yield suspects.suspects(run, options.clips, options.audio)
    if run.metrics:
        yield certainty.metrics(run)
    if run.scores:
        yield machines.histograms(run, groups)
    if any("anomaly" in group.label and "normal" in group.label for group in groups):
        yield certainty.curves(run, groups)
    if run.model:
        yield background.training(run)
    if run.scores:
        yield background.recordings(run)
    yield background.provenance(run)


def _clips(groups: Sequence[Group]) -> int:
    return sum(len(group.score) for group in groups)


def tiles(run: Run, groups: Sequence[Group]) -> list[Tile]:
    """What is to be seen at a glance."""
    found = list(_verdicts(run, groups))
    row, baseline = run.row, run.baseline
    if row and row.score is not None:
        detail = f"{interval(row.low, row.high).strip()}; 50 is chance"
        found.append(Tile("All machines, percent", percent(row.score), detail))
        if baseline and baseline.score is not None and not run.is_baseline:
            tone = "plain"
            if row.against and row.against.is_real:
                tone = "good" if row.against.value > 0 else "bad"
            found.append(Tile("Baseline, without training", percent(baseline.score), certainty.standing(run), tone))
    if run.clips:
        counts = run.clips.marker.counts
        rejects = counts.get("rejects", 0)
        found.append(Tile("Recordings", str(counts.get("clips", 0)), f"{rejects} files not taken"))
    return found


def _verdicts(run: Run, groups: Sequence[Group]) -> Iterator[Tile]:
    with_limit = [group for group in groups if group.threshold is not None]
    if not with_limit:
        return
    wrong = [group for group in with_limit if group.verdict == WRONG]
    unjudged = sum(group.verdict == UNJUDGED for group in with_limit)
    names = ", ".join(group.name for group in wrong[:3]) + (" ..." if len(wrong) > 3 else "")
    detail = "; ".join([names or "none", *([f"{unjudged} {UNJUDGED}"] if unjudged else [])])
    tone = "bad" if wrong else "plain" if unjudged or certainty.is_doubtful(run) else "good"
    yield Tile("Machines that sound wrong", f"{len(wrong)} of {len(groups)}", detail, tone)
    alarms = sum(group.alarms for group in with_limit)
    expected = sum(group.expected or 0 for group in with_limit)
    detail = f"{expected:.1f} if all machines are healthy" if expected and not unjudged else ""
    yield Tile("Alarms", f"{alarms} of {_clips(with_limit)} clips", detail)


def _html(run: Run, groups: Sequence[Group], sections: Sequence[Section]) -> bytes:
    shown = [replace(section, tables=[_shortened(table, section) for table in section.tables]) for section in sections]
    when = run.stages[0].marker.started_at if run.stages else None
    context = {"run": run, "tiles": tiles(run, groups), "sections": shown, "when": when, "parent": "../report.html"}
    return render("run.html", **context)


def _shortened(table: Table, section: Section) -> Table:
    left = len(table.rows) - _MAX_LINES
    if left <= 0:
        return table
    note = f"{left} more lines stand in {', '.join(section.files)}."
    return replace(table, rows=table.rows[:_MAX_LINES], notes=[*table.notes, note])


def _markdown(run: Run, sections: Sequence[Section]) -> bytes:
    seed = "" if run.seed is None else f", seed {run.seed}"
    parts = [f"# {plain(run.system)}{seed}\n", *(markdown_of(section, run.name) for section in sections)]
    return "\n".join(parts).encode()


def render(template: str, **context: object) -> bytes:
    """One of the packaged templates, filled in; names are shown as text, never taken for markup."""
    loader = jinja2.PackageLoader("ray_asd")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return str(environment.get_template(template).render(**context)).encode()
