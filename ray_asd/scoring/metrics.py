"""The DCASE Task 2 metrics: figures per section and the official score, by the protocol of a year.

What the protocols are: :mod:`ray_asd.scoring.protocols`. Precision, recall and F1 of a domain are of that domain's
clips alone, whatever the protocol.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ray_asd import tables
from ray_asd.errors import UserError, unknown
from ray_asd.scoring.copies import counted
from ray_asd.scoring.protocols import CHOICES, EPSILON, PROTOCOLS, combined, harmonic, one_protocol
from ray_asd.scoring.protocols import Floats as Floats  # for those who read sections

MAX_FPR = 0.1  # of the pAUC
READ = ("clip_id", "content_hash", "machine_type", "section", "domain", "label", "score", "decision")
"""Columns of SCORES that figures are made of."""

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
    protocol: str  # key of PROTOCOLS

    def inside(self, domain: str) -> Bools:
        """Which clips are of that domain; none where there are no domains."""
        if self.target is None:
            return np.zeros(len(self.score), dtype=bool)
        return np.equal(self.target, domain == "target")

    def members(self, figure: str) -> Bools:
        """Which clips count for that AUC or pAUC."""
        domain = figure.rpartition("_")[2]
        if domain not in tables.DOMAINS:
            return np.ones(len(self.score), dtype=bool)
        if PROTOCOLS[self.protocol].own_anomalies:
            return self.inside(domain)
        return self.anomaly | self.inside(domain)


class NotLabelled(UserError):
    """A section that cannot be judged: its clips do not have both labels, or not all have one."""


def sections(scores: pa.Table, protocol: str = "auto") -> list[Section]:
    """The sections of a table with the columns machine_type, section, domain, label, score and decision of SCORES.

    Sorted by machine type and section. ``protocol`` is one of :data:`ray_asd.scoring.protocols.CHOICES`. Copies of a
    clip are left out where clip_id and content_hash tell them (:mod:`ray_asd.scoring.copies`).

    Raises:
        UserError: no such protocol, or one that does not fit the clips' domains; or a section lacks normal clips or
            anomalies or has clips without a label (``NotLabelled``), domains for some clips only, or a score that is
            not finite.
    """
    found = _sections(scores, protocol)
    for section in found:
        if isinstance(section, NotLabelled):
            raise section
    return [section for section in found if isinstance(section, Section)]


def check(scores: pa.Table, protocol: str = "auto") -> list[Section]:
    """The sections that can be judged, at least one.

    Raises:
        UserError: see :func:`sections`; or there is none.
    """
    found = _sections(scores, protocol)
    judged = [section for section in found if isinstance(section, Section)]
    if not judged:
        raise UserError("; ".join(map(str, found)))
    return judged


def unjudged(scores: pa.Table) -> list[str]:
    """Which sections have no figures, and why: not both labels."""
    return [str(section) for section in _sections(scores, "auto") if isinstance(section, NotLabelled)]


def _sections(scores: pa.Table, protocol: str) -> list[Section | NotLabelled]:
    if protocol not in CHOICES:
        raise unknown("protocol", protocol, CHOICES)
    keys = scores.select(["machine_type", "section"]).group_by(["machine_type", "section"]).aggregate([])
    found = sorted((row["machine_type"], row["section"]) for row in keys.to_pylist())
    if not found:
        raise UserError("no scores to evaluate: the table has no rows")
    counting = pa.array(counted(scores))
    return [_section(scores, counting, machine_type, name, protocol) for machine_type, name in found]


def _section(
    scores: pa.Table, counting: pa.Array, machine_type: str, name: str, protocol: str
) -> Section | NotLabelled:
    chosen = pc.and_(pc.equal(scores["machine_type"], machine_type), pc.equal(scores["section"], name))
    chosen = pc.and_(chosen, counting)
    clips = scores.filter(chosen)
    where = f"{machine_type} section {name}"
    counts = {label: pc.sum(pc.equal(clips["label"], label)).as_py() or 0 for label in tables.LABELS}
    if 0 in counts.values() or clips["label"].null_count:
        found = ", ".join(f"{count} {label}" for label, count in counts.items())
        return NotLabelled(
            f"{where}: {found}, {clips['label'].null_count} unlabelled clips; both labels are needed on all"
        )
    if clips["domain"].null_count not in (0, len(clips)):
        raise UserError(f"{where}: {clips['domain'].null_count} of {len(clips)} clips lack a domain; all or none may")
    with_domains = not clips["domain"].null_count
    if protocol == "auto":
        protocol = "dcase2023" if with_domains else "no-domain"
    if PROTOCOLS[protocol].domains != with_domains:
        allowed = ", ".join(name for name in CHOICES[1:] if PROTOCOLS[name].domains == with_domains)
        what = "with" if with_domains else "without"
        raise UserError(f"{where}: protocol {protocol} on clips {what} domains; allowed there: auto, {allowed}")
    score = clips["score"].to_numpy().astype(np.float64)
    if not np.isfinite(score).all():
        raise UserError(f"{where}: {np.count_nonzero(~np.isfinite(score))} of {len(clips)} scores are not finite")
    return Section(
        machine_type,
        name,
        rows=np.flatnonzero(chosen.to_numpy()),
        score=score,
        anomaly=pc.equal(clips["label"], "anomaly").to_numpy(),
        target=None if not with_domains else pc.equal(clips["domain"], "target").to_numpy(),
        decision=None if clips["decision"].null_count else clips["decision"].to_numpy() == 1,
        protocol=protocol,
    )


def evaluate(scores: pa.Table, system: str, seed: int | None = None, protocol: str = "auto") -> pa.Table:
    """METRICS rows, one per section, of the clips in ``scores`` (columns as for :func:`sections`): all of them count.

    Of sections that cannot be judged for want of labels there are none, see :func:`unjudged`. ``hmean`` is the harmonic
    mean of the protocol's figures of the section, whatever mean the official score takes.
    Null: figures that the protocol does not have, figures of a domain without normal clips, and a harmonic mean that
    would need one; precision, recall and F1 without decisions or without clips.

    Raises:
        UserError: see :func:`sections`; or no section can be judged.
    """
    judged = check(scores, protocol)
    rows = [{"system": system, "seed": seed, **_figures(section)} for section in judged]
    return pa.Table.from_pylist(rows, schema=tables.METRICS)


def _figures(section: Section) -> dict[str, object]:
    row: dict[str, object] = {"machine_type": section.machine_type, "section": section.section}
    row["protocol"] = section.protocol
    names = dict.fromkeys(("auc_source", "auc_target", "auc_all", "pauc", *PROTOCOLS[section.protocol].figures))
    aucs = {name: _auc(section, name) for name in names}
    entering = [aucs[name] for name in PROTOCOLS[section.protocol].figures]
    row |= aucs | {"hmean": harmonic(entering)}
    row |= {
        "num_normal": int(np.count_nonzero(~section.anomaly)),
        "num_anomaly": int(np.count_nonzero(section.anomaly)),
    }
    for domain in tables.DOMAINS:
        inside = section.inside(domain)
        row |= {f"{name}_{domain}": value for name, value in _decision_figures(section, inside).items()}
        row[f"num_{domain}_normal"] = int(np.count_nonzero(inside & ~section.anomaly))
        row[f"num_{domain}_anomaly"] = int(np.count_nonzero(inside & section.anomaly))
    return row


def _auc(section: Section, figure: str) -> float | None:
    members = section.members(figure)
    if len(set(section.anomaly[members])) < 2:
        return None
    max_fpr = MAX_FPR if figure.startswith("pauc") else None
    return float(roc_auc_score(section.anomaly[members], section.score[members], max_fpr=max_fpr))


def _decision_figures(section: Section, inside: Bools) -> dict[str, float | None]:
    if section.decision is None or not inside.any():
        return {"precision": None, "recall": None, "f1": None}
    decision, anomaly = section.decision[inside], section.anomaly[inside]
    hits = float(np.count_nonzero(decision & anomaly))
    precision = hits / max(float(np.count_nonzero(decision)), EPSILON)
    recall = hits / max(float(np.count_nonzero(anomaly)), EPSILON)
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / max(precision + recall, EPSILON)}


def official_score(metrics: pa.Table) -> float:
    """The all-machine figure of one system and seed, from its METRICS rows: the mean of all figures of their protocol.

    Raises:
        UserError: a figure is null, a section occurs twice, or protocols are mixed.
    """
    name = one_protocol(metrics["protocol"].to_pylist())
    figures = PROTOCOLS[name].figures
    rows = metrics.to_pylist()
    seen = set()
    for row in rows:
        where = f"{row['machine_type']} section {row['section']}"
        if where in seen:
            raise UserError(f"{where} has more than one row; one score is of one system and one seed")
        seen.add(where)
        for figure in figures:
            if row[figure] is None:
                raise UserError(f"{where} has no {figure}, which the official score needs")
    values = np.array([[row[figure] for figure in figures] for row in rows], dtype=np.float64)
    return float(combined(name, [row["machine_type"] for row in rows], values))
