"""SCORES of clips whose vectors are at hand: distances to the bank, and the decisions that thresholds make of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ray_asd import tables
from ray_asd.build import Output
from ray_asd.errors import UserError
from ray_asd.scoring import scores
from ray_asd.stages.detection.search import Searcher
from ray_asd.stages.detection.thresholds import Group, groups_of

Limits = Mapping[Group, float | None]


@dataclass(frozen=True)
class Judge:
    """Compares clips with the healthy ones of their machine type and section; travels to workers.

    Raises UserError for clips of which the bank holds no more than ``k``.
    """

    searcher: Searcher
    bank: Output
    k: int
    limits: Limits
    label: Mapping[str, str]

    def __call__(self, rows: pa.Table, vectors: np.ndarray) -> pa.Table:
        """CLIPS or EMBEDDINGS rows and their vectors [len, E] -> SCORES."""
        found = self.searcher.search(vectors, self._codes(rows), rows["clip_id"].to_pylist(), self.k)
        return scored(rows, scores.clip_scores(found.distances), self.limits, self.label, found)

    def _codes(self, rows: pa.Table) -> list[int]:
        groups = self.bank.marker.summary["groups"]
        numbers = {(group["machine_type"], group["section"]): number for number, group in enumerate(groups)}
        codes = []
        for group in groups_of(rows):
            number = numbers.get(group)
            there = 0 if number is None else groups[number]["stop"] - groups[number]["start"]
            if number is None or there <= self.k:
                raise UserError(
                    f"{group[0]} section {group[1]}: {there} training clips to compare with; "
                    f"more than neighbours={self.k} are needed"
                )
            codes.append(number)
        return codes


def scored(rows: pa.Table, values: np.ndarray, limits: Limits, label: Mapping[str, str], why: Any = None) -> pa.Table:
    """SCORES of ``rows``, whose scores are ``values`` [len]; ``why`` holds their neighbours, where there are any."""
    thresholds = [limits.get(group) for group in groups_of(rows)]
    none: Sequence[Any] = [[]] * len(values)
    columns = {name: rows[name] for name in tables.SCORES.names if name in rows.column_names}
    columns |= {
        "score": values,
        "threshold": thresholds,
        "decision": [
            None if limit is None else int(value > limit) for value, limit in zip(values, thresholds, strict=True)
        ],
        "neighbours": why.clip_ids if why else none,
        "distances": list(why.distances) if why else none,
        **{name: [value] * len(values) for name, value in label.items()},
    }
    fields = {name: tables.SCORES.field(name) for name in tables.SCORES.names}
    arrays = [
        column if isinstance(column, pa.ChunkedArray) else pa.array(column, fields[name].type)
        for name, column in ((name, columns[name]) for name in fields)
    ]
    return tables.conform(pa.table(arrays, names=list(fields)), tables.SCORES)
