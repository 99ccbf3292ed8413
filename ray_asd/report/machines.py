"""Which machines sound wrong: alarms by machine type and section against what healthy ones would give; all scores."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from ray_asd import tables
from ray_asd.report import svg
from ray_asd.report.groups import UNJUDGED, WRONG, Floats, Group
from ray_asd.report.run import Run, files_of
from ray_asd.report.section import Chart, Section
from ray_asd.report.svg import Axes
from ray_asd.report.table import Cell, Table
from ray_asd.scoring.scores import MIN_CLIPS, RATE_LEVEL
from ray_asd.scoring.verdicts import FALSE_DISCOVERIES

MAX_CHARTS = 24  # sections drawn; the CSV files hold them all
_BINS = 24
_VERDICTS = (
    "If healthy: mean number of alarms of a machine whose clips are like the calibration clips of its threshold. "
    "Chance: of at least so many alarms then (beta-binomial, given how many of those clips exceed the threshold). "
    f"{WRONG.capitalize()}: found by the procedure of Benjamini and Hochberg over the machines of this run, so that on "
    f"average at most {FALSE_DISCOVERIES:.0%} of those found are healthy. This takes clips for independent, and those "
    "of one night are not: a healthy machine that ran otherwise that night can be found too."
)
_THRESHOLDS = (
    "Aimed at: share of healthy clips that may alarm. True share: where that of this threshold lies with "
    f"{RATE_LEVEL:.0%} probability, given its calibration clips. Above: calibration clips that exceed the threshold; "
    "then their share in either domain, since a threshold keeps its rate only for such a mixture of domains as it was "
    "made of."
)


def machines(run: Run, found: Sequence[Group]) -> Section:
    """The answer an operator looks for first."""
    records = _records(found)
    header = ["machine", "verdict", "alarms", "if healthy", "clips", "share", "chance"]
    alarms = Table("Alarms by machine type and section", header, [_line(record) for record in records], [_VERDICTS])
    header = ["machine", "threshold", "aimed at", "true share", "above", "source above", "target above"]
    header += ["threshold from"]
    limits = Table("Thresholds", header, [_limit(record) for record in records[: len(found)]], [_THRESHOLDS])
    sources = files_of(run.scores, "scores", "thresholds")
    files = {"machines.csv": records}
    return Section("machines", "Which machines sound wrong?", _lead(found), sources, [alarms, limits], files=files)


def _lead(found: Sequence[Group]) -> str:
    if not found:
        return "No scores are kept for this system."
    without = [group for group in found if group.threshold is None]
    if len(without) == len(found):
        return "There is no threshold: scores can be ranked, but nothing says from which one on a clip is an alarm."
    text = _answer(found, [group.name for group in found if group.verdict == WRONG])
    if without:
        text += f" {len(without)} have no threshold, hence no alarms; the table says why."
    unjudged = [group for group in found if group.verdict == UNJUDGED]
    if unjudged:
        text += f" {len(unjudged)} are {UNJUDGED}: their thresholds rest on fewer than {MIN_CLIPS} known clips."
    return text


def _answer(found: Sequence[Group], wrong: Sequence[str]) -> str:
    if wrong:
        return f"{len(wrong)} of {len(found)}: {', '.join(wrong[:6])}{' and more' if len(wrong) > 6 else ''}."
    if all(group.chance is None for group in found):
        return "Nothing says how often healthy machines would alarm."
    return f"None of {len(found)}: no machine alarms more often than healthy ones would."


def _records(found: Sequence[Group]) -> list[dict[str, object]]:
    """One per section, and their sum over those with a threshold."""
    with_limit = [group for group in found if group.threshold is not None]
    records = [
        {"machine_type": group.machine_type, "section": group.section, "verdict": group.verdict}
        | _alarms([group] if group in with_limit else [], [group])
        | {"chance": group.chance, "threshold": group.threshold}
        | asdict(group.limit)
        for group in found
    ]
    if len(found) > 1:
        whole = {"machine_type": "all", "section": "", "verdict": ""} | _alarms(with_limit, with_limit or found)
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
    texts = {name: "-" if record[name] is None else form.format(record[name]) for name, form in formats.items()}
    if texts["chance"] == "0.0%":
        texts["chance"] = "< 0.1%"
    return [_name(record), Cell(str(record["verdict"])), *map(Cell, texts.values())]


def _limit(record: Mapping[str, object]) -> list[Cell]:
    formats = [
        ("threshold", "{threshold:.4g}"),
        ("false_positive_rate", "{false_positive_rate:.1%}"),
        ("rate_low", "{rate_low:.1%} to {rate_high:.1%}"),
        ("num_above", "{num_above} of {num_clips}"),
        ("false_alarms_source", "{false_alarms_source:.0%}"),
        ("false_alarms_target", "{false_alarms_target:.0%}"),
        ("source", "{source}"),
    ]
    texts = ["-" if record[name] is None else form.format(**record) for name, form in formats]
    return [_name(record), *map(Cell, texts)]


def _name(record: Mapping[str, object]) -> Cell:
    return Cell(f"{record['machine_type']} {record['section']}")


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
