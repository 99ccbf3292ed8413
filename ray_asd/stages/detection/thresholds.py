"""THRESHOLDS: per machine type and section, from healthy clips that training never saw, or why there is none.

Fine-tuning pulls its own clips together, so only clips that it never saw say how far a healthy one may be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import build, tables
from ray_asd.build import Output
from ray_asd.config import Threshold
from ray_asd.scoring import scores
from ray_asd.stages.detection import index
from ray_asd.stages.detection.search import Searcher
from ray_asd.tables import Folder

Group = tuple[str, str]
"""Machine type and section."""
ALL_TRAINED = "none: every normal clip was trained on (calibration_fraction 0)"


@dataclass(frozen=True)
class Healthy:
    """Scores [n] of healthy clips of one group, and which ones these are."""

    scores: np.ndarray
    source: str


def fit(healthy: Mapping[Group, Healthy], settings: Threshold) -> pa.Table:
    """THRESHOLDS of these groups, in their order."""
    rows = [
        dict(zip(index.GROUP, group, strict=True)) | _fitted(found, settings)
        for group, found in sorted(healthy.items())
    ]
    return pa.Table.from_pylist(rows, schema=tables.THRESHOLDS)


def _fitted(healthy: Healthy, settings: Threshold) -> dict[str, Any]:
    fitted = scores.fit_threshold(healthy.scores, settings)
    source = "manual" if settings.method == "manual" else healthy.source
    return {
        "threshold": fitted.value,
        "method": fitted.method,
        "source": source if fitted.reason is None or not len(healthy.scores) else f"{source}: {fitted.reason}",
        "false_positive_rate": fitted.false_positive_rate,
        "num_clips": fitted.num_clips,
    }


def by_group(table: pa.Table) -> dict[Group, float | None]:
    """The thresholds alone."""
    return {(row["machine_type"], row["section"]): row["threshold"] for row in table.to_pylist()}


def healthy(inputs: Mapping[str, Output], searcher: Searcher, k: int) -> dict[Group, Healthy]:
    """Of every group of the bank: clips that are not in it, else those in it that training did not see, each left out.

    A group of no more than ``k`` clips is left out.
    """
    bank, model = inputs["bank"], inputs.get("model")
    groups = [(group["machine_type"], group["section"]) for group in inputs["index"].marker.summary["groups"]]
    sizes = [group["stop"] - group["start"] for group in inputs["index"].marker.summary["groups"]]
    searched = _Searched(searcher, k, [group for group, size in zip(groups, sizes, strict=True) if size > k], groups)
    held_out = index.held_out(model)
    unseen = searched(bank, (pc.field("split") == "calibration") | pc.field("clip_id").isin(held_out))
    found = {group: Healthy(values, "calibration") for group, values in unseen.items()}
    searched.wanted = [group for group in searched.wanted if group not in found]
    if searched.wanted:
        untrained = searched(
            bank, (pc.field("split") == "train") & ~pc.field("clip_id").isin(_trained(model, held_out))
        )
        found |= {group: Healthy(values, "leave_one_out") for group, values in untrained.items()}
    return {group: found.get(group, Healthy(np.empty(0), ALL_TRAINED)) for group in groups}


def given(direct: pa.Table) -> dict[Group, Healthy]:
    """The same of DIRECT scores: those of clips that are not for testing."""
    codes = groups_of(direct)
    is_healthy = pc.not_equal(direct["split"], "test").to_pylist()
    values: dict[Group, list[float]] = {group: [] for group in codes}
    for group, healthy, value in zip(codes, is_healthy, direct["score"].to_pylist(), strict=True):
        if healthy:
            values[group].append(value)
    sources = {group: "calibration" if found else ALL_TRAINED for group, found in values.items()}
    return {group: Healthy(np.array(found), sources[group]) for group, found in values.items()}


def _trained(model: Output | None, held_out: pa.Array) -> pa.Array:
    """clip_ids that the model was trained on; none for the floor."""
    if model is None:
        return pa.array([], pa.string())
    clips = build.resolve(model.marker.inputs["clips"].uri, "ingest")
    parts = [clips.part(file.path, ["clip_id", "split"]) for file in clips.files(Folder.CLIPS)]
    trained = pa.concat_tables(parts).filter((pc.field("split") == "train") & ~pc.field("clip_id").isin(held_out))
    return trained["clip_id"].combine_chunks()


@dataclass
class _Searched:
    """Scores of some of the bank's EMBEDDINGS, by group, of the groups that are wanted."""

    searcher: Searcher
    k: int
    wanted: Sequence[Group]
    groups: Sequence[Group]

    def __call__(self, bank: Output, which: pc.Expression) -> dict[Group, np.ndarray]:
        number = {group: code for code, group in enumerate(self.groups) if group in set(self.wanted)}
        found: dict[Group, list[np.ndarray]] = {}
        for file in bank.files(Folder.EMBEDDINGS):
            rows = bank.part(file.path).filter(which)
            codes = np.array([number.get(group, -1) for group in groups_of(rows)], np.int64)
            rows, codes = rows.filter(pa.array(codes >= 0)), codes[codes >= 0]
            if not rows.num_rows:
                continue
            nearest = self.searcher.search(tables.vectors(rows), codes.tolist(), rows["clip_id"].to_pylist(), self.k)
            values = scores.clip_scores(nearest.distances)
            for code in np.unique(codes):
                found.setdefault(self.groups[code], []).append(values[codes == code])
        return {group: np.concatenate(values) for group, values in found.items()}


def groups_of(rows: pa.Table) -> list[Group]:
    """The group of each row."""
    return list(zip(*(rows[name].to_pylist() for name in index.GROUP), strict=True))
