"""How sure the verdicts are: METRICS with intervals beside the baseline's, and ROC curves with the pAUC's range."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ray_asd import tables
from ray_asd.report import svg
from ray_asd.report.groups import Group
from ray_asd.report.machines import MAX_CHARTS
from ray_asd.report.rows import Row
from ray_asd.report.run import Run, files_of, marker_of
from ray_asd.report.section import Chart, Records, Section
from ray_asd.report.svg import Axes
from ray_asd.report.table import Cell, Table, interval, percent
from ray_asd.scoring.protocols import CHOICES, PROTOCOLS, mean_of
from ray_asd.tables import Folder

_HEADS = {
    "auc_source": "AUC source",
    "auc_target": "AUC target",
    "auc_all": "AUC all",
    "pauc": "pAUC",
    "pauc_source": "pAUC source",
    "pauc_target": "pAUC target",
}
_MEAN = "mean"  # of a section's figures, as its protocol takes it
_RESAMPLES = 1000
_MAX_RESAMPLED = 5_000  # clips of a section: each resample counts them all
_DIFFERENCE = ("difference", "difference_low", "difference_high")  # to the baseline, in the CSV file
_MAX_POINTS = 200  # of a drawn ROC curve

Interval = tuple[float, float]


def metrics(run: Run) -> Section:
    """Figures per machine type and section, with intervals, beside the baseline's."""
    rows, baseline = _rows(run, run.system, run.seed), _baseline_figures(run)
    ends = _intervals(run, rows)
    sources = [*files_of(run.metrics, "metrics"), *([marker_of(run.metrics)] if run.metrics else [])]
    sources += files_of(run.scores, "scores") if ends else []
    protocols = sorted({row["protocol"] for row in rows})
    mean = " or ".join(sorted({PROTOCOLS[name].mean for name in protocols})) or _MEAN
    figures = [name for name in _HEADS if any(row[name] is not None for row in rows)]
    header = ["machine", *map(_HEADS.__getitem__, figures), mean, "95% interval", "baseline"]
    header += ["normal clips", "anomalies"]
    lines = [[Cell(text) for text in _texts(row, [*figures, _MEAN], ends, baseline)] for row in rows]
    lines += [_whole(run.row, run.baseline, len(figures) + 1)] if run.row else []
    captions = [f"Protocol {name}: {PROTOCOLS[name].caption}." for name in protocols]
    notes = [
        f"In percent. {' '.join(captions)} The interval is of the {mean}: {_RESAMPLES} bootstrap resamples of "
        f"the clips within domain and label, computed here from SCORES (seed 0). Baseline: {mean} of the "
        "detector without training on the same clips. Clips: source + target, where there are domains."
    ]
    title = f"{mean.capitalize()}, its 95% interval, and the baseline"
    drawn = [Chart(title, _forest(rows, ends, baseline, mean))] if ends else []
    return Section(
        "certainty",
        "How sure are we?",
        _lead(run),
        sources,
        [Table("Figures by machine type and section", header, lines, notes)],
        drawn,
        [("own", run.system), ("baseline", "baseline"), ("chance", "chance")] if drawn else [],
        {"metrics.csv": _records(run, rows, ends, baseline)},
    )


def _rows(run: Run, system: str, seed: int | None) -> list[dict[str, Any]]:
    """METRICS rows of a system, each with its mean."""
    if run.metrics is None:
        return []
    found = run.metrics.table(Folder.METRICS).to_pylist()
    return [row | {_MEAN: mean_of([row])} for row in found if (row["system"], row["seed"]) == (system, seed)]


def _baseline_figures(run: Run) -> dict[object, float | None]:
    if run.baseline is None:
        return {}
    return {_key(row): row[_MEAN] for row in _rows(run, run.baseline.system, run.baseline.seed)}


def _key(row: Mapping[str, object]) -> tuple[object, object]:
    return row["machine_type"], row["section"]


def _intervals(run: Run, rows: Sequence[Mapping[str, object]]) -> dict[object, Interval]:
    """Of the mean of each section whose clips are few enough and whose figure is known."""
    from ray_asd.scoring import bootstrap  # scikit-learn takes a second

    by_key, found = {_key(row): row for row in rows}, dict[object, Interval]()
    for machine, section, own in run.sections():
        row = by_key.get((machine, section))
        if row and row[_MEAN] is not None and own.num_rows <= _MAX_RESAMPLED:
            asked = str(row["protocol"])
            found[machine, section] = bootstrap.interval(
                own, _RESAMPLES, protocol=asked if asked in CHOICES else CHOICES[0]
            )
    return found


def _texts(
    row: Mapping[str, object],
    figures: Sequence[str],
    ends: Mapping[object, Interval],
    baseline: Mapping[object, float | None],
) -> list[str]:
    key = _key(row)
    between = interval(*ends[key]).strip() if key in ends else "-"
    shown = [percent(row[name]) for name in figures]  # type: ignore[arg-type]
    return [f"{key[0]} {key[1]}", *shown, between, percent(baseline.get(key)), *_counts(row)]


def _whole(row: Row, baseline: Row | None, figures: int) -> list[Cell]:
    """The line of all machines: one figure, which has no parts."""
    between = interval(row.low, row.high).strip() or "-"
    texts = ["all", *["-"] * (figures - 1), percent(row.score), between, percent(baseline.score if baseline else None)]
    return [Cell(text, row.uri) for text in [*texts, "-", "-"]]


def _counts(row: Mapping[str, object]) -> list[str]:
    """Normal clips and anomalies, source + target where there are domains."""
    by_domain = [[row[f"num_{domain}_{label}"] for domain in tables.DOMAINS] for label in tables.LABELS]
    if not any(map(any, by_domain)):
        return [str(row.get(f"num_{label}", "-")) for label in tables.LABELS]
    return [" + ".join(map(str, counts)) for counts in by_domain]


def _records(
    run: Run, rows: Sequence[Mapping[str, object]], ends: Mapping[object, Interval], baseline: Mapping[object, object]
) -> Records:
    found: list[Mapping[str, object]] = []
    for row in rows:
        low, high = ends.get(_key(row), (None, None))
        found.append(
            {**row, "low": low, "high": high, "baseline": baseline.get(_key(row)), **dict.fromkeys(_DIFFERENCE)}
        )
    if run.row:
        empty = dict.fromkeys(found[0]) if found else {}
        whole = {"system": run.system, "seed": run.seed, "machine_type": "all", "section": "", _MEAN: run.row.score}
        ours = {"low": run.row.low, "high": run.row.high, "baseline": run.baseline.score if run.baseline else None}
        found.append(empty | whole | ours | _against(run.row))
    return found


def _against(row: Row) -> dict[str, object]:
    found = row.against
    return dict(zip(_DIFFERENCE, (found.value, found.low, found.high) if found else (None,) * 3, strict=True))


def _lead(run: Run) -> str:
    row, baseline = run.row, run.baseline
    if row is None:
        return "No labels are known, so nothing here says how often the verdicts are right."
    if row.score is None:
        return f"There is no all-machine figure: {row.why}."
    text = f"All machines: {percent(row.score)}{interval(row.low, row.high)} percent; 50 is chance."
    if baseline and baseline.score is not None and not run.is_baseline:
        figure = f"{percent(baseline.score)}{interval(baseline.low, baseline.high)}"
        text += f" The baseline, a detector without training, has {figure}."
        text += f" {standing(run)}"
        if row.against:
            by = percent(row.against.value, signed=True) + interval(row.against.low, row.against.high, signed=True)
            text += f" The difference is {by} points: 95% interval, paired over the same clips."
    return text


def is_doubtful(run: Run) -> bool:
    """Whether there is a baseline's figure and the system was not found to beat it."""
    if run.is_baseline or run.row is None or run.baseline is None or run.baseline.score is None:
        return False
    return run.row.against is None or run.row.against.low <= 0


def standing(run: Run) -> str:
    """Where the system stands against the baseline, in one sentence: by their difference, paired over clips."""
    against = run.row.against if run.row else None
    if against is None:
        return "Nothing says whether it beats the baseline."
    if not against.is_real:
        return "It is not told apart from the baseline: the interval of their difference holds 0."
    return "It beats the baseline." if against.value > 0 else "It is worse than the baseline: use the baseline instead."


def _forest(
    rows: Sequence[Mapping[str, object]],
    ends: Mapping[object, Interval],
    baseline: Mapping[object, float | None],
    mean: str,
) -> Markup:
    known = [row for row in rows if _key(row) in ends][:MAX_CHARTS]
    lows = [ends[_key(row)][0] for row in known] + [value for value in map(baseline.get, map(_key, known)) if value]
    axes = Axes((100 * min(0.45, *lows), 100.0), (len(known) - 0.4, -0.6), "percent", "", 56 + 26 * len(known), 110)
    marks = [svg.rule(axes, 50.0, "chance")]
    for place, row in enumerate(known):
        key = _key(row)
        low, high = ends[key]
        marks.append(svg.text(100, axes.at_y(place) + 4, f"{key[0]} {key[1]}"[:18], "end"))
        marks.append(svg.span(axes, 100 * low, 100 * high, place, "own"))
        marks.append(svg.dot(axes, 100 * float(str(row[_MEAN])), place, "own"))
        if baseline.get(key) is not None:
            marks.append(svg.dot(axes, 100 * float(str(baseline[key])), place, "baseline"))
    told = "; ".join(f"{row['machine_type']} {row['section']} {percent(row[_MEAN])}" for row in known)  # type: ignore[arg-type]
    return svg.draw(axes, f"{mean.capitalize()} and 95% interval by machine type and section: {told}", marks)


def curves(run: Run, found: Sequence[Group]) -> Section:
    """ROC curves per section: the normal clips of one domain, or of both, against all anomalies."""
    from ray_asd.scoring.metrics import MAX_FPR

    drawn, records = list[Chart](), list[Mapping[str, object]]()
    for group in [group for group in found if set(tables.LABELS) <= set(group.label.tolist())]:
        lines = _lines(group)
        records += [
            {"machine_type": group.machine_type, "section": group.section, "clips": kind}
            | {"false_positive_rate": fpr, "true_positive_rate": tpr}
            for kind, (fprs, tprs) in lines.items()
            for fpr, tpr in zip(fprs.tolist(), tprs.tolist(), strict=True)
        ]
        if len(drawn) < MAX_CHARTS:
            axes = Axes((0.0, 1.0), (0.0, 1.0), "false alarms", "anomalies found", 260)
            marks = [svg.region(axes, 0.0, MAX_FPR, "pauc"), svg.line(axes, [0, 1], [0, 1], "chance")]
            marks += [svg.line(axes, x.tolist(), y.tolist(), kind) for kind, (x, y) in lines.items()]
            alt = f"ROC curves of {group.name}: {', '.join(lines)}; the pAUC counts false alarms up to {MAX_FPR:g}"
            drawn.append(Chart(group.name, svg.draw(axes, alt, marks)))
    lead = f"Each threshold's share of anomalies found against its false alarms. Shaded: up to {MAX_FPR:g}, the pAUC."
    kinds = sorted({str(record["clips"]) for record in records})
    legend = [(kind, f"normal clips: {kind}") for kind in kinds] + [("pauc", "range of the pAUC"), ("chance", "chance")]
    sources = files_of(run.scores, "scores")
    return Section("roc", "What would another threshold give?", lead, sources, (), drawn, legend, {"roc.csv": records})


def _lines(group: Group) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    from sklearn.metrics import roc_curve

    anomaly = group.label == "anomaly"
    found = {}
    for kind in ("all", *tables.DOMAINS):
        members = anomaly | (group.domain == kind) if kind != "all" else np.ones(len(anomaly), dtype=bool)
        if kind != "all" and not (members & ~anomaly).any():
            continue
        fpr, tpr, _ = roc_curve(anomaly[members], group.score[members])
        chosen = np.unique(np.linspace(0, len(fpr) - 1, _MAX_POINTS).round().astype(int))
        found[kind] = (fpr[chosen], tpr[chosen])
    return found
