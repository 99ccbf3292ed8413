"""Systems beside each other: each one's score over its seeds, and the differences between any two with intervals.

The bootstrap is paired and bias-corrected (:func:`ray_asd.scoring.bootstrap.bias_corrected`): one draw of clips serves
all systems and seeds, so what makes a clip hard for all of them cancels in a difference. Intervals are over clips, with
the seeds as they are; how much seeds matter stands beside them, as a standard deviation.

Shapes: R resamples, N clips.
"""

import itertools
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ray_asd import tables
from ray_asd.errors import UserError
from ray_asd.scoring import bootstrap, metrics
from ray_asd.scoring.metrics import Floats

_SAME = ["clip_id", "machine_type", "section", "domain", "label"]  # columns that all SCORES must agree in
_CONTENT = "content_hash"  # and this one, where both tell it: two nights may use the same names


@dataclass(frozen=True)
class Comparison:
    """The tables CELLS and PAIRS."""

    cells: pa.Table
    pairs: pa.Table


@dataclass(frozen=True)
class _Cell:
    """One system: its score with each seed, and the mean over seeds in each resample [R]."""

    seeds: list[int]
    scores: list[float]
    drawn: Floats

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores)


def compare(
    systems: Mapping[str, Mapping[int | None, pa.Table]],
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    protocol: str = "auto",
) -> Comparison:
    """CELLS and PAIRS of ``systems``, in their order, with the ends of central ``level`` intervals.

    Args:
        systems: per system and seed its SCORES; the seed is None where a system has none.
        seed: of the draws. They depend on the clips alone, not on any score or on the order of rows.
        protocol: one of ``protocols.CHOICES``, for all systems.

    Raises:
        UserError: there are no scores, two tables are not of the same clips, or one has no official score
            (see :func:`ray_asd.scoring.bootstrap.resampled_scores`).
    """
    aligned = _aligned(systems)
    any_table = next(iter(next(iter(aligned.values())).values()))
    weights = bootstrap.resample(any_table, resamples, np.random.default_rng(seed))
    cells = {system: _cell(by_seed, weights, protocol) for system, by_seed in aligned.items()}
    rows = [_cell_row(system, cell, level) for system, cell in cells.items()]
    pairs = [_pair_row(a, b, cells, level) for a, b in itertools.combinations(cells, 2)]
    return Comparison(pa.Table.from_pylist(rows, schema=tables.CELLS), pa.Table.from_pylist(pairs, schema=tables.PAIRS))


def _aligned(systems: Mapping[str, Mapping[int | None, pa.Table]]) -> dict[str, dict[int | None, pa.Table]]:
    """The tables in order of clip_id, once they are known to be of the same clips."""
    without = [system for system, by_seed in systems.items() if not by_seed]
    if without or not systems:
        raise UserError(f"no scores to compare{f' of {without[0]}' if without else ''}")
    found = {
        system: {seed: table.sort_by([("clip_id", "ascending")]) for seed, table in by_seed.items()}
        for system, by_seed in systems.items()
    }
    (first, reference), *others = [
        (system if seed is None else f"{system} with seed {seed}", table)
        for system, by_seed in found.items()
        for seed, table in by_seed.items()
    ]
    for other, table in others:
        differing = _differing(reference, table)
        if differing:
            raise UserError(
                f"{first} and {other} differ in {differing} clip(s) or their labels; "
                "only scores of the same clips can be compared"
            )
    return found


def _differing(one: pa.Table, other: pa.Table) -> int:
    """How many clip_ids are not in both tables as often, with the same machine type, section, domain and label."""
    told = [_CONTENT] if all(_CONTENT in table.column_names for table in (one, other)) else []
    left, right = (table.select([*_SAME, *told]).combine_chunks() for table in (one, other))
    if left.equals(right):
        return 0
    counted = [Counter(tuple(row.values()) for row in table.to_pylist()) for table in (left, right)]
    return len({key[0] for key in [*(counted[0] - counted[1]), *(counted[1] - counted[0])]})


def _cell(by_seed: Mapping[int | None, pa.Table], weights: bootstrap.Counts, protocol: str) -> _Cell:
    tables_in_order = by_seed.values()
    scores = [metrics.official_score(metrics.evaluate(table, "", protocol=protocol)) for table in tables_in_order]
    drawn = np.mean([bootstrap.resampled_scores(table, weights, protocol) for table in tables_in_order], axis=0)
    return _Cell([seed for seed in by_seed if seed is not None], scores, drawn)


def _cell_row(system: str, cell: _Cell, level: float) -> dict[str, object]:
    low, high = bootstrap.bias_corrected(cell.drawn, cell.mean, level)
    std = statistics.stdev(cell.scores) if len(cell.scores) > 1 else None
    return {"system": system, "seeds": cell.seeds, "mean": cell.mean, "std": std, "low": low, "high": high}


def _pair_row(a: str, b: str, cells: Mapping[str, _Cell], level: float) -> dict[str, object]:
    difference = cells[a].mean - cells[b].mean
    low, high = bootstrap.bias_corrected(cells[a].drawn - cells[b].drawn, difference, level)
    return {"system_a": a, "system_b": b, "difference": difference, "low": low, "high": high}
