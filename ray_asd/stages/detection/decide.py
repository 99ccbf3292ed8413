"""SCORES of clips whose members' scores are at hand: fused, compared with the healthy clips' and with the threshold."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ray_asd import tables
from ray_asd.build import Output
from ray_asd.scoring import scores
from ray_asd.stages.detection import calibrate
from ray_asd.stages.detection.bank import Compared
from ray_asd.stages.detection.detector import DetectorCard, version
from ray_asd.stages.detection.healthy import GROUP, Group
from ray_asd.tables import Folder


@dataclass(frozen=True)
class Judge:
    """What a detector decides; travels to workers."""

    card: DetectorCard
    digest: str
    version: str | None
    limits: dict[Group, float | None]
    calibration: dict[Group, np.ndarray]

    @classmethod
    def of(cls, detector: Output, card: DetectorCard) -> "Judge":
        """Of a detector."""
        limits = {_group(row): row["threshold"] for row in detector.table(Folder.THRESHOLDS).to_pylist()}
        healthy: dict[Group, list[float]] = {}
        for row in detector.table(Folder.CALIBRATION, tables.CALIBRATION).to_pylist():
            healthy.setdefault(_group(row), []).append(row["score"])
        calibration = {group: np.array(values) for group, values in healthy.items()}
        return cls(card, detector.marker.digest, version(detector), limits, calibration)

    def __call__(self, rows: pa.Table, members: list[np.ndarray], nearest: Compared | None) -> pa.Table:
        """CLIPS rows, each member's scores of them [len], and the neighbours of the first that has a bank -> SCORES."""
        groups = groups_of(rows)
        numbers = np.array([self.card.number(*group) for group in groups])
        values = np.empty(len(groups))
        for number in np.unique(numbers):
            here = numbers == number
            standards = self.card.groups[number].standards
            values[here] = calibrate.fused([scores[here] for scores in members], standards)
        limits = [self.limits.get(group) for group in groups]
        columns: dict[str, Any] = {name: rows[name] for name in tables.SCORES.names if name in rows.column_names}
        columns |= {
            "score": values,
            "threshold": limits,
            "decision": [
                None if limit is None else int(value > limit) for value, limit in zip(values, limits, strict=True)
            ],
            "p_value": self._p_values(groups, numbers, values),
            "neighbours": nearest.neighbours if nearest else [[] for _ in groups],
            "neighbour_hashes": nearest.hashes if nearest else [[] for _ in groups],
            "distances": nearest.distances if nearest else [[] for _ in groups],
            "system": [self.card.system] * len(groups),
            "model_digest": [self.digest] * len(groups),
            "version": [self.version] * len(groups),
        }
        arrays = [
            column if isinstance(column, pa.ChunkedArray) else pa.array(column, tables.SCORES.field(name).type)
            for name, column in ((name, columns[name]) for name in tables.SCORES.names)
        ]
        return tables.conform(pa.table(arrays, names=tables.SCORES.names), tables.SCORES)

    def _p_values(self, groups: list[Group], numbers: np.ndarray, values: np.ndarray) -> list[float | None]:
        found: list[float | None] = [None] * len(groups)
        for number in np.unique(numbers):
            places = np.flatnonzero(numbers == number)
            calibration = self.calibration.get(groups[places[0]], np.empty(0))
            if len(calibration) < scores.MIN_CLIPS:
                continue
            for place, value in zip(places, scores.p_values(values[places], calibration), strict=True):
                found[place] = float(value)
        return found


def groups_of(rows: pa.Table) -> list[Group]:
    """The group of each row."""
    return list(zip(*(rows[name].to_pylist() for name in GROUP), strict=True))


def _group(row: dict[str, Any]) -> Group:
    return row["machine_type"], row["section"]
