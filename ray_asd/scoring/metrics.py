"""The DCASE 2023 Task 2 metrics: figures per section, the official score, its table and its bootstrap interval.

Definitions (Dohi et al. 2023, arXiv 2305.07828, and the organisers' evaluator):

- AUC of a domain: that domain's normal clips against the anomalies of *both* domains.
- pAUC: all clips of the section, false positive rates up to 0.1, standardised after McClish so that chance is 0.5.
- Precision, recall and F1 of a domain: that domain's clips alone.
- Official score: harmonic mean of AUC (source), AUC (target) and pAUC over all machine types and sections.

Data without domains has AUC (all) and pAUC only; its protocol is named differently, since its figures do not compare.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

from ray_asd import tables
from ray_asd.errors import UserError

MAX_FPR = 0.1  # of the pAUC
EPSILON = sys.float_info.epsilon  # smallest figure that enters a harmonic mean, and smallest divisor
FIGURES = {"dcase2023": ("auc_source", "auc_target", "pauc"), "no-domain": ("auc_all", "pauc")}
"""Per protocol, the figures whose harmonic mean is a section's and, over all sections, the official score."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Section:
    """The clips of one section of one machine type: all arrays have one value per clip."""

    machine_type: str
    section: str
    rows: NDArray[np.int64]  # of the table they come from
    score: Floats
    anomaly: Bools
    target: Bools | None  # is the clip of the target domain; None: there are no domains
    decision: Bools | None

    @property
    def protocol(self) -> str:
        """Key of :data:`FIGURES`."""
        return "no-domain" if self.target is None else "dcase2023"

    def inside(self, domain: str) -> Bools:
        """Which clips are of that domain; none where there are no domains."""
        if self.target is None:
            return np.zeros(len(self.score), dtype=bool)
        return np.equal(self.target, domain == "target")

    def members(self, figure: str) -> Bools:
        """Which clips count for that AUC or pAUC."""
        domain = figure.removeprefix("auc_")
        if domain not in tables.DOMAINS:
            return np.ones(len(self.score), dtype=bool)
        return self.anomaly | self.inside(domain)


def sections(scores: pa.Table) -> list[Section]:
    """The sections of a table with the columns machine_type, section, domain, label, score and decision of SCORES.

    Sorted by machine type and section.

    Raises:
        UserError: a section lacks normal clips or anomalies, has clips without a label, domains for some clips only,
            or a score that is not finite.
    """
    keys = scores.select(["machine_type", "section"]).group_by(["machine_type", "section"]).aggregate([])
    found = sorted((row["machine_type"], row["section"]) for row in keys.to_pylist())
    if not found:
        raise UserError("no scores to evaluate: the table has no rows")
    return [_section(scores, machine_type, name) for machine_type, name in found]


def _section(scores: pa.Table, machine_type: str, name: str) -> Section:
    chosen = pc.and_(pc.equal(scores["machine_type"], machine_type), pc.equal(scores["section"], name))
    clips = scores.filter(chosen)
    where = f"{machine_type} section {name}"
    counts = {label: pc.sum(pc.equal(clips["label"], label)).as_py() or 0 for label in tables.LABELS}
    if 0 in counts.values() or clips["label"].null_count:
        found = ", ".join(f"{count} {label}" for label, count in counts.items())
        raise UserError(
            f"{where}: {found}, {clips['label'].null_count} unlabelled clips; both labels are needed on all"
        )
    if clips["domain"].null_count not in (0, len(clips)):
        raise UserError(f"{where}: {clips['domain'].null_count} of {len(clips)} clips lack a domain; all or none may")
    score = clips["score"].to_numpy().astype(np.float64)
    if not np.isfinite(score).all():
        raise UserError(f"{where}: {np.count_nonzero(~np.isfinite(score))} of {len(clips)} scores are not finite")
    return Section(
        machine_type,
        name,
        rows=np.flatnonzero(chosen.to_numpy()),
        score=score,
        anomaly=pc.equal(clips["label"], "anomaly").to_numpy(),
        target=None if clips["domain"].null_count else pc.equal(clips["domain"], "target").to_numpy(),
        decision=None if clips["decision"].null_count else clips["decision"].to_numpy() == 1,
    )


def evaluate(scores: pa.Table, system: str, seed: int | None = None) -> pa.Table:
    """METRICS rows, one per section, of the clips in ``scores`` (columns as for :func:`sections`): all of them count.

    Null: figures of a domain without normal clips, and a harmonic mean that would need one; precision, recall and F1
    without decisions or without clips.

    Raises:
        UserError: see :func:`sections`.
    """
    rows = [{"system": system, "seed": seed, **_figures(section)} for section in sections(scores)]
    return pa.Table.from_pylist(rows, schema=tables.METRICS)


def _figures(section: Section) -> dict[str, object]:
    row: dict[str, object] = {"machine_type": section.machine_type, "section": section.section}
    row["protocol"] = section.protocol
    aucs = {name: _auc(section, name) for name in ("auc_source", "auc_target", "auc_all", "pauc")}
    entering = [aucs[name] for name in FIGURES[section.protocol]]
    row |= aucs | {"hmean": _harmonic(entering)}
    for domain in tables.DOMAINS:
        inside = section.inside(domain)
        row |= {f"{name}_{domain}": value for name, value in _decision_figures(section, inside).items()}
        row[f"num_{domain}_normal"] = int(np.count_nonzero(inside & ~section.anomaly))
        row[f"num_{domain}_anomaly"] = int(np.count_nonzero(inside & section.anomaly))
    return row


def _auc(section: Section, figure: str) -> float | None:
    members = section.members(figure)
    if section.anomaly[members].all():
        return None
    max_fpr = MAX_FPR if figure == "pauc" else None
    return float(roc_auc_score(section.anomaly[members], section.score[members], max_fpr=max_fpr))


def _decision_figures(section: Section, inside: Bools) -> dict[str, float | None]:
    if section.decision is None or not inside.any():
        return {"precision": None, "recall": None, "f1": None}
    decision, anomaly = section.decision[inside], section.anomaly[inside]
    hits = float(np.count_nonzero(decision & anomaly))
    precision = hits / max(float(np.count_nonzero(decision)), EPSILON)
    recall = hits / max(float(np.count_nonzero(anomaly)), EPSILON)
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / max(precision + recall, EPSILON)}


def _harmonic(values: Sequence[float | None]) -> float | None:
    if None in values:
        return None
    return float(stats.hmean(np.maximum(np.array(values, dtype=np.float64), EPSILON)))


def _arithmetic(values: Sequence[float | None]) -> float | None:
    return None if None in values else float(np.mean(np.array(values, dtype=np.float64)))


def official_score(metrics: pa.Table) -> float:
    """The all-machine figure of one system and seed, from its METRICS rows: the harmonic mean of all their figures.

    Raises:
        UserError: a figure is null, a section occurs twice, or protocols are mixed.
    """
    protocols = sorted(set(metrics["protocol"].to_pylist()))
    if len(protocols) != 1:
        raise UserError(f"one score needs sections of one protocol; found: {', '.join(protocols) or 'no section'}")
    rows = metrics.to_pylist()
    seen = set()
    for row in rows:
        where = f"{row['machine_type']} section {row['section']}"
        if where in seen:
            raise UserError(f"{where} has more than one row; one score is of one system and one seed")
        seen.add(where)
        for figure in FIGURES[protocols[0]]:
            if row[figure] is None:
                raise UserError(f"{where} has no {figure}, which the official score needs")
    return float(stats.hmean([max(row[figure], EPSILON) for row in rows for figure in FIGURES[protocols[0]]]))


_MEASURES = {"AUC": "auc", "pAUC": "pauc", "precision": "precision", "recall": "recall", "F1 score": "f1"}
_MEANS = {
    "arithmetic mean": (_arithmetic, tables.DOMAINS),
    "harmonic mean": (_harmonic, tables.DOMAINS),
    "source harmonic mean": (_harmonic, ("source",)),
    "target harmonic mean": (_harmonic, ("target",)),
}
_EVERYTHING = " over all machine types, sections, and domains"
_SECTION_COLUMNS = {
    "section": "section",
    "AUC (all)": "auc_all",
    "AUC (source)": "auc_source",
    "AUC (target)": "auc_target",
    "pAUC": "pauc",
    **{
        f"{title} ({domain})": f"{name}_{domain}"
        for title, name in list(_MEASURES.items())[2:]
        for domain in tables.DOMAINS
    },
}

Cells = list[str | float | None]


def official_table(metrics: pa.Table) -> list[Cells]:
    """The METRICS rows of one system and seed laid out as the CSV rows of the official evaluator's result file.

    Null figures are empty cells. Left out is "official score ci95", which is not an interval of the official score;
    :func:`ray_asd.scoring.bootstrap.interval` gives one.

    Raises:
        UserError: see :func:`official_score`.
    """
    score = official_score(metrics)
    rows = sorted(metrics.to_pylist(), key=lambda row: (row["machine_type"], row["section"]))
    lines: list[Cells] = []
    for machine_type in sorted({row["machine_type"] for row in rows}):
        own = [row for row in rows if row["machine_type"] == machine_type]
        lines += [[machine_type], list(_SECTION_COLUMNS)]
        lines += [[row[column] for column in _SECTION_COLUMNS.values()] for row in own]
        lines += [*_mean_lines(own, ""), []]
    return [*lines, *_mean_lines(rows, _EVERYTHING), [], ["official score", None, score]]


def _mean_lines(rows: list[dict[str, Any]], scope: str) -> list[Cells]:
    lines: list[Cells] = [[None, None, *_MEASURES]]
    for title, (mean, domains) in _MEANS.items():
        columns = [["pauc"] if m == "pauc" else [f"{m}_{domain}" for domain in domains] for m in _MEASURES.values()]
        means = [mean([row[name] for row in rows for name in names]) for names in columns]
        lines.append([title + scope, None, *means])
    return lines
