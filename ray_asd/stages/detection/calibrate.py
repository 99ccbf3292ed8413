"""CALIBRATION and THRESHOLDS: what a detector says of healthy clips that it takes for strangers.

Fine-tuning pulls its own clips together, so of a machine type and section count the clips that are not in the bank;
where there are none, those of the bank that no training saw, each left out in turn, and what it changes fitted anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import tables
from ray_asd.config import Backend, Threshold
from ray_asd.scoring import backend, scores
from ray_asd.scoring.whitening import Scatter
from ray_asd.stages.detection.bank import Bank
from ray_asd.stages.detection.healthy import GROUP, Group, Healthy, Range

CALIBRATION, LEAVE_ONE_OUT = "calibration", "leave_one_out"
ALL_TRAINED = "none: every normal clip was trained on (calibration_fraction 0)"


@dataclass(frozen=True)
class Strangers:
    """Scores [n] that a member gives to healthy clips of one group, which clips these are, and how it came to them."""

    clip_ids: list[str]
    hashes: list[str]  # contents; no two are alike
    domains: list[str | None]
    scores: np.ndarray
    source: str

    @classmethod
    def none(cls, why: str) -> "Strangers":
        """There are none."""
        return cls([], [], [], np.empty(0), why)

    @classmethod
    def of(cls, rows: pa.Table, scores: np.ndarray, source: str) -> "Strangers":
        """Of HEALTHY rows."""
        clip_ids, hashes, domains = (rows[name].to_pylist() for name in ("clip_id", "content_hash", "domain"))
        return cls(clip_ids, hashes, domains, scores, source)


def of_bank(healthy: Healthy, own: Range, bank: Bank, settings: Backend, fleet: Scatter | None) -> Strangers:
    """Of a group's clips beside its bank, or of the bank's own, each left out."""
    assert healthy.vectors is not None
    if own.stop > own.bank:
        rows = healthy.rows.slice(own.bank, own.stop - own.bank)
        compared = bank.compare(healthy.vectors[own.bank : own.stop], rows["content_hash"].to_pylist())
        return Strangers.of(rows, compared.scores, CALIBRATION)
    rows = healthy.rows.slice(own.start, own.size)
    untrained = np.array([role == "bank" for role in rows["role"].to_pylist()])
    if not untrained.any():
        return Strangers.none(ALL_TRAINED)
    vectors, domains = healthy.vectors[own.start : own.bank], rows["domain"].to_pylist()
    places, values = backend.left_out(vectors, domains, bank.hashes, settings, fleet, bank.fitted)
    places, values = places[untrained[places]], values[untrained[places]]
    return Strangers.of(rows.take(pa.array(places)), values, LEAVE_ONE_OUT)


def of_baseline(healthy: Healthy, own: Range) -> Strangers:
    """Of the clips of a group that a baseline was not trained on."""
    rows = healthy.rows.slice(own.start, own.stop - own.start)
    rows = rows.filter(pc.is_valid(rows["score"]))
    return Strangers.of(rows, rows["score"].to_numpy(), CALIBRATION if rows.num_rows else ALL_TRAINED)


def why_not_fused(members: Sequence[Strangers], systems: Sequence[str]) -> str | None:
    """Why the scores of these members cannot be made comparable: one of them has no healthy scores."""
    for member, system in zip(members, systems, strict=True):
        if not len(member.scores):
            return f"no healthy scores to standardise {system} by: {member.source.removeprefix('none: ')}"
    return None


def standards(members: Sequence[Strangers]) -> list[tuple[float, float]]:
    """Centre and spread of each member's scores, which make them comparable."""
    return [backend.standard(member.scores) for member in members]


def fused(scores: Sequence[np.ndarray], standards: Sequence[tuple[float, float]] | None) -> np.ndarray:
    """A detector's scores [Q]: the mean of its members' (each [Q]), each standardised; the one member's as they are."""
    if standards is None:
        return scores[0]
    parts = [(values - centre) / spread for values, (centre, spread) in zip(scores, standards, strict=True)]
    return np.asarray(np.mean(parts, axis=0))


def together(members: Sequence[Strangers], standards: Sequence[tuple[float, float]] | None) -> Strangers:
    """Of the clips that all members take for strangers, in order of their content."""
    if standards is None:
        return members[0]
    places = [{content: place for place, content in enumerate(member.hashes)} for member in members]
    common = sorted(set.intersection(*(set(member.hashes) for member in members)))
    values = [
        member.scores[[place[content] for content in common]] for member, place in zip(members, places, strict=True)
    ]
    sources = {member.source for member in members}
    first = [places[0][content] for content in common]
    return Strangers(
        [members[0].clip_ids[place] for place in first],
        common,
        [members[0].domains[place] for place in first],
        fused(values, standards),
        sources.pop() if len(sources) == 1 else CALIBRATION,
    )


def table(strangers: Mapping[Group, Strangers]) -> pa.Table:
    """CALIBRATION of all groups, each in order of clip_id."""
    rows: list[dict[str, Any]] = []
    for group, found in sorted(strangers.items()):
        clips = sorted(zip(found.clip_ids, found.hashes, found.domains, found.scores.tolist(), strict=True))
        for clip_id, content, domain, score in clips:
            named = dict(zip(GROUP, group, strict=True)) | {"clip_id": clip_id, "domain": domain}
            rows.append(named | {"content_hash": content, "score": score, "source": found.source})
    return pa.Table.from_pylist(rows, schema=tables.CALIBRATION)


def thresholds(strangers: Mapping[Group, Strangers], settings: Threshold) -> pa.Table:
    """THRESHOLDS of these groups, in order."""
    rows = [
        dict(zip(GROUP, group, strict=True)) | _fitted(found, settings) for group, found in sorted(strangers.items())
    ]
    return pa.Table.from_pylist(rows, schema=tables.THRESHOLDS)


def _fitted(found: Strangers, settings: Threshold) -> dict[str, Any]:
    fitted = scores.fit_threshold(found.scores, settings)
    source = "manual" if settings.method == "manual" else found.source
    return {
        "threshold": fitted.value,
        "method": fitted.method,
        "source": source if fitted.reason is None or not len(found.scores) else f"{source}: {fitted.reason}",
        "false_positive_rate": fitted.false_positive_rate,
        "num_clips": fitted.num_clips,
        "num_above": fitted.num_above,
        "rate_low": fitted.rate_low,
        "rate_high": fitted.rate_high,
        **scores.false_alarms(found.scores, found.domains, fitted.value),
    }
