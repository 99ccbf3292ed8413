"""Whether a candidate may take the place of the detector that is current: what both say of the same labelled clips.

Three things speak against it: an official score that is lower, its whole paired interval below 0; more false alarms
among the same healthy clips (McNemar's exact test); clips that it cannot score or decide on while the other one can.
The first two are said of a candidate that is as good in one case of forty each; one that is worse by less than the
clips can tell passes, so the difference and its interval are told all the same.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy

from ray_asd import tables
from ray_asd.errors import UserError
from ray_asd.scoring import comparison

LEVEL = 0.95
CANDIDATE, CURRENT = "candidate", "current"
_MOST_NAMED = 5


@dataclass(frozen=True)
class Figure:
    """An official score with the ends of its interval; None where labels do not allow one."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return "-"
        return f"{100 * self.value:.2f} [{100 * self.low:.2f}, {100 * self.high:.2f}]"


@dataclass(frozen=True)
class FalseAlarms:
    """How many of the same ``clips`` healthy ones each calls anomalous; ``chance`` of so many more, if it were none."""

    clips: int
    candidate: int
    current: int
    chance: float


@dataclass(frozen=True)
class Comparison:
    """The two side by side; ``worse`` says why the candidate should not be current, and is empty where it may."""

    clips: int  # labelled, and scored by both
    candidate: Figure
    current: Figure
    difference: Figure
    why_no_score: str | None
    false_alarms: dict[str, FalseAlarms]  # of each domain that is known, and of all
    lost: int  # clips that the current one scores and the candidate does not
    undecided: int  # clips that the current one decides on and the candidate does not
    worse: list[str] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def compare(candidate: pa.Table, current: pa.Table, protocol: str = "auto") -> Comparison:
    """SCORES of the same CLIPS by both.

    Raises:
        UserError: no clip with a label is scored by both.
    """
    both = sorted(set(_labelled(candidate)) & set(_labelled(current)))
    if not both:
        raise UserError("no clip with a label is scored by both: nothing to compare; allowed: CLIPS with labels")
    ours, theirs = _rows(candidate, both), _rows(current, both)
    figures, why = _figures(ours, theirs, protocol)
    alarms = {name: found for name, kept in _domains(ours) if (found := _false_alarms(ours, theirs, kept))}
    known = set(candidate["clip_id"].to_pylist())
    lost = current.filter(pc.invert(pc.is_in(current["clip_id"], pa.array(sorted(known), pa.string()))))
    undecided = sum(
        mine is None and yours is not None
        for mine, yours in zip(ours["decision"].to_pylist(), theirs["decision"].to_pylist(), strict=True)
    )
    return Comparison(
        len(both), *figures, why, alarms, len(lost), undecided, _worse(figures[2], alarms, lost, undecided)
    )


def _labelled(scores: pa.Table) -> list[str]:
    found: list[str] = scores.filter(pc.is_valid(scores["label"]))["clip_id"].to_pylist()
    return found


def _rows(scores: pa.Table, clip_ids: Sequence[str]) -> pa.Table:
    """The rows of these clips in their order."""
    return scores.take(pc.index_in(pa.array(clip_ids, pa.string()), scores["clip_id"].combine_chunks()))


def _figures(ours: pa.Table, theirs: pa.Table, protocol: str) -> tuple[tuple[Figure, Figure, Figure], str | None]:
    """Of the candidate, of the current one, their difference; and why there are none."""
    groups = list(zip(*(ours[name].to_pylist() for name in ("machine_type", "section", "label")), strict=True))
    there = set(groups)
    both = [there.issuperset((*group, label) for label in tables.LABELS) for *group, _ in groups]
    if not any(both):
        return (Figure(), Figure(), Figure()), "no machine has normal and anomalous clips"
    kept = pa.array(both)
    systems: dict[str, dict[int | None, pa.Table]] = {
        CANDIDATE: {None: ours.filter(kept)},
        CURRENT: {None: theirs.filter(kept)},
    }
    try:
        found = comparison.compare(systems, level=LEVEL, protocol=protocol)
    except UserError as error:  # without one figure that it is made of; false alarms are counted all the same
        return (Figure(), Figure(), Figure()), str(error)
    one, other = (Figure(row["mean"], row["low"], row["high"]) for row in found.cells.to_pylist())
    (pair,) = found.pairs.to_pylist()
    return (one, other, Figure(pair["difference"], pair["low"], pair["high"])), None


def _domains(rows: pa.Table) -> list[tuple[str, np.ndarray]]:
    """Which rows are of each domain, and all."""
    domains = rows["domain"].to_numpy(zero_copy_only=False)
    found = [(domain, domains == domain) for domain in tables.DOMAINS]
    return [("all", np.full(len(domains), True)), *((name, kept) for name, kept in found if kept.any())]


def _false_alarms(ours: pa.Table, theirs: pa.Table, kept: np.ndarray) -> FalseAlarms | None:
    """Among the rows ``kept`` that both decide on; None where no healthy clip is among them."""
    mine, yours = (table["decision"].to_numpy(zero_copy_only=False).astype(float) for table in (ours, theirs))
    normal = ours["label"].to_numpy(zero_copy_only=False) == "normal"
    kept = kept & normal & np.isfinite(mine) & np.isfinite(yours)
    if not kept.any():
        return None
    more, fewer = int(np.sum(mine[kept] > yours[kept])), int(np.sum(mine[kept] < yours[kept]))
    chance = scipy.stats.binomtest(more, more + fewer, alternative="greater").pvalue if more + fewer else 1.0
    return FalseAlarms(int(kept.sum()), int(mine[kept].sum()), int(yours[kept].sum()), float(chance))


def _worse(difference: Figure, alarms: dict[str, FalseAlarms], lost: pa.Table, undecided: int) -> list[str]:
    found = []
    if difference.high is not None and difference.high < 0:
        found.append(f"its score is lower: {difference}")
    counted = alarms.get("all")
    if counted and counted.chance <= (1 - LEVEL) / 2:
        found.append(f"{counted.candidate} false alarms among {counted.clips} healthy clips, not {counted.current}")
    if len(lost):
        groups = sorted({f"{row['machine_type']} {row['section']}" for row in lost.to_pylist()})
        more = f" and {len(groups) - _MOST_NAMED} more" if len(groups) > _MOST_NAMED else ""
        found.append(f"it does not score {len(lost)} clip(s) of {', '.join(groups[:_MOST_NAMED])}{more}")
    if undecided:
        found.append(f"it does not decide on {undecided} clip(s)")
    return found
