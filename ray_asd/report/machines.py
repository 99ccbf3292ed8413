"""Which machines sound wrong: alarms per machine type and section against what healthy ones would give, and all scores.

N: clips of a section.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import stats

from ray_asd import tables
from ray_asd.report import svg
from ray_asd.report.run import Run, files_of
from ray_asd.report.section import Chart, Section
from ray_asd.report.svg import Axes
from ray_asd.report.table import Cell, Table
from ray_asd.tables import Folder

MAX_CHARTS = 24  # sections drawn; the CSV files hold them all
_BINS = 24
_LEVEL = 0.01  # chance that healthy clips alone give as many alarms, below which a section sounds wrong
WRONG, HEALTHY, UNKNOWN = "sounds wrong", "as expected", "no threshold"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """The scored clips of one machine type and section: arrays of N values, and where their threshold comes from.

    ``label`` and ``domain`` hold None where they are not known.
    """

    machine_type: str
    section: str
    score: Floats
    label: NDArray[np.object_]
    domain: NDArray[np.object_]
    alarms: int
    threshold: float | None
    source: str
    rate: float | None  # of false alarms, aimed at

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.machine_type} {self.section}"

    @property
    def expected(self) -> float | None:
        """Alarms of a healthy machine, if each of its N clips exceeds the threshold at the aimed rate."""
        return None if self.threshold is None or self.rate is None else self.rate * len(self.score)

    @property
    def chance(self) -> float | None:
        """That so many of N healthy clips exceed the threshold, if each does at the aimed rate."""
        if self.threshold is None or self.rate is None:
            return None
        return float(stats.binom.sf(self.alarms - 1, len(self.score), self.rate))

    @property
    def verdict(self) -> str:
        """What the alarms say."""
        if self.threshold is None:
            return UNKNOWN
        chance = self.chance
        is_wrong = self.alarms > 0 if chance is None else chance < _LEVEL
        return WRONG if is_wrong else HEALTHY

    @property
    def urgency(self) -> tuple[int, float]:
        """Sorts those that sound wrong first, then by the share of alarms."""
        return -int(self.verdict == WRONG), -self.alarms / max(len(self.score), 1)


def groups(run: Run) -> list[Group]:
    """The sections of a run, most urgent first."""
    fits = run.scores.table(Folder.THRESHOLDS, tables.THRESHOLDS).to_pylist() if run.scores else []
    by_key = {(fit["machine_type"], fit["section"]): fit for fit in fits}
    found = [_group(machine, name, own, by_key.get((machine, name), {})) for machine, name, own in run.sections()]
    return sorted(found, key=lambda group: (*group.urgency, group.name.lower()))


def _group(machine: str, section: str, own: pa.Table, fit: Mapping[str, object]) -> Group:
    rate = fit.get("false_positive_rate")
    return Group(
        machine,
        section,
        own["score"].to_numpy(),
        own["label"].to_numpy(zero_copy_only=False),
        own["domain"].to_numpy(zero_copy_only=False),
        int(pc.sum(own["decision"]).as_py() or 0),
        own["threshold"][0].as_py(),
        str(fit.get("source", "not recorded")),
        float(rate) if isinstance(rate, float) else None,
    )


def machines(run: Run, found: Sequence[Group]) -> Section:
    """The answer an operator looks for first."""
    wrong = [group for group in found if group.verdict == WRONG]
    without = [group for group in found if group.threshold is None]
    lead = _lead(found, wrong)
    if without:
        lead += f" {len(without)} have no threshold, hence no alarms; the table says why."
    records = _records(found)
    lines = [_line(record) for record in records]
    note = (
        "If healthy: alarms when each clip alarms at the rate the threshold aims at. Chance: of at least so many "
        f"alarms then, were clips independent. {WRONG.capitalize()}: below {_LEVEL:.0%}."
    )
    header = ["machine", "verdict", "alarms", "if healthy", "clips", "share", "chance", "threshold", "threshold from"]
    table = Table("Alarms by machine type and section", header, lines, [note])
    sources = files_of(run.scores, "scores", "thresholds")
    return Section("machines", "Which machines sound wrong?", lead, sources, [table], files={"machines.csv": records})


def _lead(found: Sequence[Group], wrong: Sequence[Group]) -> str:
    if not found:
        return "No scores are kept for this system."
    if all(group.threshold is None for group in found):
        return "There is no threshold: scores can be ranked, but nothing says from which one on a clip is an alarm."
    if not wrong:
        return f"None of {len(found)}: no machine alarms more often than healthy ones would."
    names = ", ".join(group.name for group in wrong[:6]) + (" and more" if len(wrong) > 6 else "")
    return f"{len(wrong)} of {len(found)}: {names}."


def _records(found: Sequence[Group]) -> list[dict[str, object]]:
    """One per section, and their sum over those with a threshold."""
    judged = [group for group in found if group.threshold is not None]
    records = [
        {"machine_type": group.machine_type, "section": group.section, "verdict": group.verdict}
        | _alarms([group] if group in judged else [], [group])
        | {"aimed_at": group.rate, "chance": group.chance, "threshold": group.threshold, "threshold_from": group.source}
        for group in found
    ]
    if len(found) > 1:
        whole = {"machine_type": "all", "section": "", "verdict": ""} | _alarms(judged, judged or found)
        records.append(dict.fromkeys(records[0]) | whole)
    return records


def _alarms(judged: Sequence[Group], found: Sequence[Group]) -> dict[str, object]:
    clips = sum(len(group.score) for group in found)
    alarms = sum(group.alarms for group in judged) if judged else None
    expected = [group.expected for group in judged if group.expected is not None]
    share = alarms / clips if alarms is not None and clips else None
    return {"alarms": alarms, "expected": sum(expected) if expected else None, "clips": clips, "share": share}


def _line(record: Mapping[str, object]) -> list[Cell]:
    formats = {"alarms": "{}", "expected": "{:.1f}", "clips": "{}", "share": "{:.0%}", "chance": "{:.1%}"}
    formats |= {"threshold": "{:.4g}", "threshold_from": "{}"}
    texts = {name: "-" if record[name] is None else form.format(record[name]) for name, form in formats.items()}
    if texts["chance"] == "0.0%":
        texts["chance"] = "< 0.1%"
    return [
        Cell(f"{record['machine_type']} {record['section']}"),
        Cell(str(record["verdict"])),
        *map(Cell, texts.values()),
    ]


def histograms(run: Run, found: Sequence[Group]) -> Section:
    """All scores by domain and label, with the threshold."""
    drawn, records = [], list[Mapping[str, object]]()
    for number, group in enumerate(found):
        edges = _edges(group)
        for domain in _present(group.domain, tables.DOMAINS):
            counts = dict(_counts(group, domain, edges))
            records += _bins(group, domain, edges, counts)
            if number < MAX_CHARTS:
                drawn.append(_chart(group, domain, edges, counts))
    lead = "Scores right of the dashed threshold are alarms. The further apart the colours, the surer the decision."
    if len(found) > MAX_CHARTS:
        lead += f" Drawn: the {MAX_CHARTS} most urgent of {len(found)} sections; the CSV file holds all."
    kinds = sorted({str(record["label"]) for record in records})
    legend = [(kind, kind) for kind in kinds] + [("threshold", "threshold")]
    files = {"histograms.csv": records}
    sources = files_of(run.scores, "scores")
    return Section("scores", "How do the scores lie?", lead, sources, charts=drawn, legend=legend, files=files)


def _edges(group: Group) -> Floats:
    values = group.score if group.threshold is None else np.append(group.score, group.threshold)
    return np.histogram_bin_edges(values, _BINS)


def _present(values: NDArray[np.object_], order: Sequence[str]) -> list[str | None]:
    """Which of these occur, None among them where a value is not known."""
    there = set(values.tolist())
    return [value for value in (*order, None) if value in there]


def _counts(group: Group, domain: str | None, edges: Floats) -> Iterator[tuple[str, NDArray[np.int64]]]:
    inside = group.domain == domain
    for label in _present(group.label[inside], tables.LABELS):
        chosen = inside & (group.label == label)
        yield label or "unlabelled", np.histogram(group.score[chosen], edges)[0]


def _bins(
    group: Group, domain: str | None, edges: Floats, counts: Mapping[str, NDArray[np.int64]]
) -> Iterator[Mapping[str, object]]:
    for label, heights in counts.items():
        for low, high, count in zip(edges, edges[1:], heights, strict=False):
            yield {
                "machine_type": group.machine_type,
                "section": group.section,
                "domain": domain,
                "label": label,
            } | {"from": low, "to": high, "clips": int(count), "threshold": group.threshold}


def _chart(group: Group, domain: str | None, edges: Floats, counts: Mapping[str, NDArray[np.int64]]) -> Chart:
    top = max(int(heights.max()) for heights in counts.values())
    axes = Axes((float(edges[0]), float(edges[-1])), (0.0, 1.05 * top), "score", "clips", 190)
    marks = [svg.bars(axes, edges.tolist(), heights.tolist(), label) for label, heights in counts.items()]
    if group.threshold is not None:
        marks.append(svg.rule(axes, group.threshold, "threshold"))
    title = f"{group.name}, {domain}" if domain else group.name
    told = ", ".join(f"{int(heights.sum())} {label}" for label, heights in counts.items())
    limit = "no threshold" if group.threshold is None else f"threshold {group.threshold:.4g}"
    return Chart(title, svg.draw(axes, f"Histogram of the scores of {title}: {told} clips, {limit}", marks))
