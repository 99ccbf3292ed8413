"""How systems compare on the same clips: over seeds, and by a paired bootstrap of the differences between them.

A resample draws the same clips for every system, so what makes a clip hard for all of them cancels out of a
difference: its interval is much narrower than those of the two figures. S systems, R resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa

from ray_asd import tables
from ray_asd.errors import UserError
from ray_asd.scoring import bootstrap
from ray_asd.scoring.metrics import Floats

_CLIP = ["clip_id", "machine_type", "section", "domain", "label"]


@dataclass(frozen=True)
class Comparison:
    """A CELLS and a PAIRS table."""

    cells: pa.Table
    pairs: pa.Table


def compare(
    systems: Mapping[str, Mapping[int | None, pa.Table]], resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Comparison:
    """Compare systems by their SCORES, given by name and by seed (None: a system without seeds).

    Raises:
        UserError: the tables are not of the same clips, or see :func:`ray_asd.scoring.bootstrap.resampled_scores`.
    """
    clips = {(name, number): _sorted(table) for name, seeds in systems.items() for number, table in seeds.items()}
    _check_same(clips)
    first = next(iter(clips.values()))
    ranked = first.set_column(first.column_names.index("score"), "score", pa.array(np.arange(len(first), dtype=float)))
    weights = bootstrap.resample(ranked, resamples, np.random.default_rng(seed))  # by rank: of clips, not of scores
    once = np.ones((1, len(first)), dtype=np.int64)
    ends = (1 - level) / 2, (1 + level) / 2
    means, drawn, cells = {}, {}, []
    for name, seeds in systems.items():
        scores = [float(bootstrap.resampled_scores(clips[name, number], once)[0]) for number in seeds]
        resampled = [bootstrap.resampled_scores(clips[name, number], weights) for number in seeds]
        means[name], drawn[name] = float(np.mean(scores)), np.mean(resampled, axis=0)
        cells.append(
            {
                "system": name,
                "seeds": [number for number in seeds if number is not None],
                "mean": means[name],
                "std": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
                **_interval(drawn[name], ends),
            }
        )
    pairs = [
        {
            "system_a": one,
            "system_b": other,
            "difference": means[one] - means[other],
            **_interval(drawn[one] - drawn[other], ends),
        }
        for one, other in combinations(systems, 2)
    ]
    return Comparison(
        pa.Table.from_pylist(cells, schema=tables.CELLS), pa.Table.from_pylist(pairs, schema=tables.PAIRS)
    )


def _sorted(scores: pa.Table) -> pa.Table:
    return scores.sort_by([("clip_id", "ascending")])


def _interval(drawn: Floats, ends: tuple[float, float]) -> dict[str, float]:
    low, high = np.quantile(drawn, ends)
    return {"low": float(low), "high": float(high)}


def _check_same(clips: Mapping[tuple[str, int | None], pa.Table]) -> None:
    (one, first), *others = clips.items()
    expected = first.select(_CLIP)
    for other, table in others:
        if not table.select(_CLIP).equals(expected):
            missing = len(set(first["clip_id"].to_pylist()) ^ set(table["clip_id"].to_pylist()))
            what = f"{missing} clips are of one only" if missing else "the same clips have other labels or domains"
            raise UserError(f"{one[0]} and {other[0]} were not scored on the same clips: {what}")
