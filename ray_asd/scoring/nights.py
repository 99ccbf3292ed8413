"""Which machines sounded wrong in a night: the unit of decision is machine and night, not the clip.

Clips of one night share load, weather and microphone: a whole healthy night may be off together, so clips must not be
combined as if they were independent. Two rules keep the rate of false discoveries among alarms all the same.

``nights``: the mean of a machine's standardised scores, among those of all machines' past nights. What the clips of a
night share is in the calibration. Scores are standardised by the machine's own other nights, per domain and detector;
each night is left out of its own standard, the new one being one of them, so that under the null all nights of a
machine are exchangeable, however few they are. Means of fewer clips vary more: each is divided by the deviation that
the share of variance between nights (of the whole fleet) gives it. Nights are pooled over the fleet, since no machine
has the M / rate past nights that one alarm among M machines takes.

``clips``: where there are not enough nights yet. The lowest conformal p-value of a machine's clips times their number
(Bonferroni, right whatever they share), among CALIBRATION scores standardised within machine type, section and domain
and pooled over the fleet.

Then Benjamini and Hochberg over the machines. A p-value can be no lower than one divided by what it is compared with:
each decision says how low it could be and whether that would have been an alarm.

Shapes: R rows of NIGHTS, K machine-nights, M machines, C clips, N values of calibration.
"""

from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_asd.fleet_tables import DECISIONS, MACHINE, NIGHTS
from ray_asd.scoring import standards
from ray_asd.scoring.rules import Settings
from ray_asd.scoring.scores import MIN_CLIPS, p_values
from ray_asd.scoring.standards import Bools, Floats, Ints
from ray_asd.scoring.verdicts import adjusted

BY_NIGHTS, BY_CLIPS = "nights", "clips"
_LETTERS = 12  # of a content_hash, that tell one recording of a bank from the others
_UNIT = (*MACHINE, "domain", "model_digest")  # what nights are standardised within


@dataclass(frozen=True)
class _Judged:
    """Of each machine [M] a statistic, its p-value and the lowest that it could be; NaN where it cannot be judged."""

    statistic: Floats
    p_value: Floats
    smallest: Floats

    @classmethod
    def none(cls, count: int) -> "_Judged":
        return cls(*(np.full(count, np.nan) for _ in range(3)))


def summary(scores: pa.Table, night: date) -> pa.Table:
    """NIGHTS of the SCORES of one night, a date."""
    keys = list(_UNIT)
    grouped = (
        scores.select([*keys, "score"]).append_column("nearest", _nearest(scores)).group_by(keys, use_threads=False)
    )
    found = grouped.aggregate([("score", "count"), ("score", "mean"), ("score", "variance"), ("nearest", "list")])
    columns = {name: found[name] for name in keys}
    columns["night"] = pa.array([night] * len(found), pa.date32())
    columns |= {"clips": found["score_count"], "mean": found["score_mean"]}
    columns["deviations"] = pc.multiply(found["score_variance"], pc.cast(found["score_count"], pa.float64()))
    columns["nearest"] = pa.array([[name for name in names if name] for names in found["nearest_list"].to_pylist()])
    return pa.table([columns[name] for name in NIGHTS.names], names=NIGHTS.names).cast(NIGHTS)


def _nearest(scores: pa.Table) -> pa.Array:
    """What begins the content_hash of each clip's first neighbour; empty where it has none."""
    if "neighbour_hashes" not in scores.column_names:
        return pa.repeat("", len(scores))
    first = pc.list_slice(scores["neighbour_hashes"].combine_chunks(), 0, 1, return_fixed_size_list=False)
    return pc.utf8_slice_codeunits(pc.binary_join(first, ""), 0, _LETTERS)


def decide(
    scores: pa.Table, night: date, past: pa.Table, calibration: pa.Table, settings: Settings | None = None
) -> pa.Table:
    """DECISIONS on the machines that have SCORES of a night, by their names.

    Args:
        past: NIGHTS of healthy machines; only those before ``night`` count, so that a night can be decided on again.
        calibration: CALIBRATION of the detector that gave the scores.
    """
    settings = settings or Settings()
    tonight = summary(scores, night)
    past = past.filter(pc.less(past["night"], pa.scalar(night, pa.date32())))
    of_tonight, of_past, of_clips = standards.coded([tonight, past, scores], MACHINE)
    names, first, of_rows = np.unique(of_tonight, return_index=True, return_inverse=True)
    count = np.bincount(of_rows, tonight["clips"].to_numpy(), len(names)).astype(np.int64)
    by_nights, nights = _by_nights(tonight, past, np.concatenate([of_tonight, of_past]), names, settings)
    by_clips = _by_clips(scores, calibration, np.searchsorted(names, of_clips), len(names))
    judged = np.isfinite(by_nights.p_value) | np.isfinite(by_clips.p_value)
    needed = settings.rate / max(int(judged.sum()), 1)
    fine_enough = (by_nights.smallest <= needed) | np.isnan(by_clips.p_value)
    chosen = np.where(np.isfinite(by_nights.p_value) & fine_enough, BY_NIGHTS, BY_CLIPS)
    rules = [str(rule) if known else None for rule, known in zip(chosen, judged, strict=True)]
    found = _either(chosen == BY_NIGHTS, by_nights, by_clips)
    columns = {name: tonight[name].take(pa.array(first)) for name in (*MACHINE, "night")}
    columns |= {"clips": pa.array(count), "rule": pa.array(rules, pa.string())}
    columns |= _decided(found, settings.rate, needed)
    columns["detail"] = pa.array(
        [None if rule else _lacks(int(number), settings) for rule, number in zip(rules, nights, strict=True)]
    )
    table = pa.table([columns[name] for name in DECISIONS.names], names=DECISIONS.names).cast(DECISIONS)
    return table.sort_by([(name, "ascending") for name in MACHINE])


def could_alarm(decisions: pa.Table) -> str:
    """One line: how many machines of a night could alarm at all, and what they are compared with."""
    rules = decisions["rule"].to_pylist()
    able = sum(decisions["could_alarm"].to_pylist())
    return (
        f"{able} of {len(rules)} machines could alarm alone: {rules.count(BY_NIGHTS)} are compared with past nights, "
        f"{rules.count(BY_CLIPS)} with calibration clips, {rules.count(None)} are learning"
    )


def _either(condition: Bools, one: _Judged, other: _Judged) -> _Judged:
    return _Judged(
        np.where(condition, one.statistic, other.statistic),
        np.where(condition, one.p_value, other.p_value),
        np.where(condition, one.smallest, other.smallest),
    )


def _decided(found: _Judged, rate: float, needed: float) -> dict[str, pa.Array]:
    """Columns of DECISIONS."""
    known = np.isfinite(found.p_value)
    q_values = adjusted([float(value) if there else None for value, there in zip(found.p_value, known, strict=True)])
    return {
        "statistic": pa.array(found.statistic, mask=~known),
        "p_value": pa.array(found.p_value, mask=~known),
        "smallest": pa.array(found.smallest, mask=~known),
        "q_value": pa.array(q_values, pa.float64()),
        "alarm": pa.array([None if value is None else value <= rate for value in q_values], pa.bool_()),
        "could_alarm": pa.array(known & (np.nan_to_num(found.smallest, nan=1.0) <= needed)),
    }


def _lacks(nights: int, settings: Settings) -> str:
    return f"{nights} past nights of {settings.min_nights}, and no {MIN_CLIPS} calibration clips of its kind"


def _by_nights(
    tonight: pa.Table, past: pa.Table, machines: Ints, names: Ints, settings: Settings
) -> tuple[_Judged, Ints]:
    """The machines ``names`` [M] by rule ``nights``, and how many past nights each has in one unit.

    ``machines`` [R] is which machine each row of both tables is of.
    """
    rows = pa.concat_tables([tonight, past])
    clips, mean, deviations = (rows[name].to_numpy().astype(float) for name in ("clips", "mean", "deviations"))
    (groups,) = standards.coded([rows], _UNIT)
    others = np.bincount(groups)[groups] - 1
    units, spread = standards.nights(clips, mean, deviations, groups)
    units = units / np.sqrt(1 + 1 / np.maximum(others, 1))  # the centre varies as well
    kept = (others >= settings.min_nights) & (spread > 0)
    (days,) = standards.coded([rows], ["night"])
    keys, of_rows = np.unique(np.stack([machines, days])[:, kept], axis=1, return_inverse=True)
    total = np.bincount(of_rows, clips[kept], keys.shape[1])
    means = np.bincount(of_rows, (clips * units)[kept], keys.shape[1]) / total
    shared = _shared(clips[kept], deviations[kept] / spread[kept] ** 2)
    statistics = means / np.sqrt(shared + (1 - shared) / total)
    is_new = keys[1] == days[0] if len(days) else np.zeros(0, bool)
    judged, places = _Judged.none(len(names)), np.searchsorted(names, keys[0][is_new])
    old = statistics[~is_new]
    if len(old):
        judged.statistic[places] = statistics[is_new]
        judged.p_value[places] = p_values(statistics[is_new], old)
        judged.smallest[places] = 1 / (len(old) + 1)
    nights = np.zeros(len(names), np.int64)
    np.maximum.at(nights, np.searchsorted(names, machines[: len(tonight)]), others[: len(tonight)])
    return judged, nights


def _shared(clips: Floats, deviations: Floats) -> float:
    """The share of a clip's variance that it has in common with its night's, of nights in standard units."""
    freedom = np.sum(clips - 1)
    return float(np.clip(1 - np.sum(deviations) / freedom, 0, 1)) if freedom else 0.0


def _by_clips(scores: pa.Table, calibration: pa.Table, machines: Ints, count: int) -> _Judged:
    """The machines by rule ``clips``; ``machines`` [C] is which of the ``count`` each clip is of."""
    judged = _Judged.none(count)
    new, old = standards.clips(scores, calibration)
    old, there = old[np.isfinite(old)], np.isfinite(new)
    if not len(old) or not there.any():
        return judged
    found = p_values(new[there], old)
    clips = np.bincount(machines[there], minlength=count)
    lowest = np.full(count, np.inf)
    np.minimum.at(lowest, machines[there], found)
    known = clips > 0
    judged.p_value[known] = np.minimum(clips[known] * lowest[known], 1)
    judged.smallest[known] = np.minimum(clips / (len(old) + 1), 1)[known]
    judged.statistic[known] = np.bincount(machines[there], new[there], count)[known] / clips[known]
    return judged
