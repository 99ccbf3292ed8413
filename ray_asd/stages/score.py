"""Scores: of every test clip, and thresholds that turn them into decisions.

A backbone's score is the cosine k-NN against the healthy clips of its machine type and section. The bank is the
EMBEDDINGS of the clips the model was trained on, or of others that are enrolled instead. A baseline has given its
score already. Clips that training never saw set the threshold.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import build, tables
from ray_asd.build import Attempt, Outcome, Output
from ray_asd.config import Audio, Recipe, Scoring, Threshold, Usage
from ray_asd.errors import StageError, UserError
from ray_asd.models.card import CARD, read_card
from ray_asd.stages import direct, embed
from ray_asd.stages.progress import Progress
from ray_asd.steps import Step

CODE_VERSION = 1
SCORES = "scores"
THRESHOLDS = "thresholds"
FLOOR_SYSTEM = "floor (log-mel mean and std)"
_GROUP = ["machine_type", "section"]
_ALL_TRAINED = "none: every normal clip was trained on (calibration_fraction 0)"


def step(
    model: Step | Output | None,
    clips: Output,
    bank_clips: Output,
    usage: Usage,
    audio: Audio,
    progress: Progress,
    method: str = "backbone",
) -> Step:
    """SCORES of the test clips of ``clips`` by a model of that ``method``, or by the floor where ``model`` is None.

    A backbone and the floor compare them with the training clips of ``bank_clips``; a baseline has no use for those.

    Raises:
        UserError: there is nothing to score, or nothing to compare with.
    """
    if not clips.marker.counts.get("test"):
        raise UserError(f"{clips.uri} holds no test clips; it has {_splits(clips)}")
    inputs: dict[str, Step | Output] = {"clips": clips}
    if model:
        inputs["model"] = model
    if model and method != "backbone":
        inputs["direct"] = direct.step(model, method, clips, usage, audio, progress)
    else:
        if not bank_clips.marker.counts.get("train"):
            raise UserError(f"{bank_clips.uri} holds no training clips to compare with; it has {_splits(bank_clips)}")
        settings = embed.Settings.of(usage, audio)
        inputs["queries"] = embed.clips(model, clips, settings, progress)
        inputs["bank"] = embed.clips(model, bank_clips, settings, progress)
    return Step(
        stage="score",
        name=embed.name_of(model),
        code_version=CODE_VERSION,
        config=usage.scoring.model_dump(mode="json"),
        inputs=inputs,
        work=lambda attempt, inputs: _work(attempt, inputs, usage.scoring, progress),
        units=clips.marker.counts["test"],
        on_ray=False,
    )


def _splits(clips: Output) -> str:
    found = {split: clips.marker.counts[split] for split in tables.SPLITS if clips.marker.counts.get(split)}
    return ", ".join(f"{count} {split}" for split, count in found.items()) or "no clips"


def _work(attempt: Attempt, inputs: Mapping[str, Output], scoring: Scoring, progress: Progress) -> Outcome:
    model = inputs.get("model")
    recipe = read_card(model.fetch(CARD)).recipe if model else None
    label = _label(model, recipe, scoring)
    detector = _Direct(inputs) if "direct" in inputs else _Nearest(inputs, scoring.neighbours)
    parts, thresholds = [], []
    done = 0
    for group in _groups(detector.queries):
        judged = detector.judge(*group)
        threshold = _threshold(judged, scoring.threshold)
        thresholds.append(dict(zip(_GROUP, group, strict=True)) | threshold)
        parts.append(_scored(judged, threshold["threshold"], label))
        done += judged.clips.num_rows
        progress("score", done, detector.queries.num_rows)
    scores = pa.concat_tables(parts).sort_by([("clip_id", "ascending")])
    if scores.num_rows != detector.queries.num_rows:
        raise StageError(f"{detector.queries.num_rows} clips went in, {scores.num_rows} scores came out")
    files = [
        attempt.put_table(f"{SCORES}/00000.parquet", tables.conform(scores, tables.SCORES)),
        attempt.put_table(f"{THRESHOLDS}/00000.parquet", pa.Table.from_pylist(thresholds, schema=tables.THRESHOLDS)),
    ]
    summary = {"system": label["system"], "seed": recipe.seed if recipe else None}
    return Outcome(files, {"clips": scores.num_rows}, summary)


def _label(model: Output | None, recipe: Recipe | None, scoring: Scoring) -> dict[str, str]:
    if model is None or recipe is None:
        return {"system": FLOOR_SYSTEM, "model_digest": embed.FLOOR}
    used = recipe.model_copy(update={"scoring": scoring})
    return {"system": used.system, "model_digest": model.marker.digest}


def _groups(queries: pa.Table) -> Iterator[tuple[str, str]]:
    keys = queries.group_by(_GROUP).aggregate([]).sort_by([(name, "ascending") for name in _GROUP])
    yield from ((key["machine_type"], key["section"]) for key in keys.to_pylist())


def _of_group(table: pa.Table, machine_type: str, section: str) -> pa.Table:
    return table.filter((pc.field("machine_type") == machine_type) & (pc.field("section") == section))


@dataclass(frozen=True)
class _Judged:
    """One machine type and section: its test clips with their scores [N], and why; and scores of healthy clips.

    Fine-tuning pulls its own clips together, so only clips that it never saw say how far a healthy one may be.
    ``source`` says which ones these are.
    """

    clips: pa.Table
    scores: np.ndarray
    neighbours: Sequence[Sequence[str]]
    distances: Sequence[np.ndarray]
    healthy: np.ndarray
    source: str


class _Detector(Protocol):
    queries: pa.Table

    def judge(self, machine_type: str, section: str) -> _Judged: ...


class _Direct:
    """Scores that a baseline gave: those of the clips that its training held out set the threshold."""

    def __init__(self, inputs: Mapping[str, Output]) -> None:
        given = inputs["direct"].table(direct.DIRECT, tables.DIRECT)
        self.queries = given.filter(pc.equal(given["split"], "test"))
        self._unseen = given.filter(pc.not_equal(given["split"], "test"))

    def judge(self, machine_type: str, section: str) -> _Judged:
        clips = _of_group(self.queries, machine_type, section)
        healthy = _of_group(self._unseen, machine_type, section)["score"].to_numpy()
        source = "calibration" if len(healthy) else _ALL_TRAINED
        return _Judged(clips, clips["score"].to_numpy(), [[]] * len(clips), [np.empty(0)] * len(clips), healthy, source)


class _Nearest:
    """Distances to the nearest healthy clips of the bank, never to the clip itself.

    The threshold comes from clips that are not in the bank, else from those of the bank that training did not see,
    each left out in turn.
    """

    def __init__(self, inputs: Mapping[str, Output], neighbours: int) -> None:
        self._neighbours = neighbours
        self._held_out, self._trained = _seen(inputs.get("model"))
        self._banked = inputs["bank"].table(embed.EMBEDDINGS)
        queries = inputs["queries"].table(embed.EMBEDDINGS)
        self.queries = queries.filter(pc.equal(queries["split"], "test"))

    def judge(self, machine_type: str, section: str) -> _Judged:
        from ray_asd.scoring import knn, scores

        known = _of_group(self._banked, machine_type, section)
        is_held_out = pc.is_in(known["clip_id"], self._held_out)
        enrolled = known.filter(pc.and_(pc.equal(known["split"], "train"), pc.invert(is_held_out)))
        unseen = known.filter(pc.or_(pc.equal(known["split"], "calibration"), is_held_out))
        if enrolled.num_rows <= self._neighbours:
            raise UserError(
                f"{machine_type} section {section}: {enrolled.num_rows} training clips to compare with; "
                f"more than neighbours={self._neighbours} are needed"
            )
        bank = knn.Bank(_vectors(enrolled), enrolled["clip_id"].to_pylist())

        def search(clips: pa.Table) -> knn.Neighbours:
            return bank.search(_vectors(clips), self._neighbours, exclude=clips["clip_id"].to_pylist())

        untrained = enrolled.filter(pc.invert(pc.is_in(enrolled["clip_id"], self._trained)))
        source, rows = "calibration", unseen
        if not unseen.num_rows:
            source, rows = ("leave_one_out" if untrained.num_rows else _ALL_TRAINED), untrained
        healthy = scores.clip_scores(search(rows).distances) if rows.num_rows else np.empty(0)
        clips = _of_group(self.queries, machine_type, section)
        found = search(clips)
        values = scores.clip_scores(found.distances)
        return _Judged(clips, values, found.clip_ids, list(found.distances), healthy, source)


def _seen(model: Output | None) -> tuple[pa.Array, pa.Array]:
    """clip_ids that the model's training held out, and those it trained on; none of either for the floor."""
    if model is None:
        return pa.array([], pa.string()), pa.array([], pa.string())
    held_out = pa.array(read_card(model.fetch(CARD)).held_out, pa.string())
    clips = build.resolve(model.marker.inputs["clips"].uri, "ingest").table("clips")
    trained = clips.filter(pc.equal(clips["split"], "train"))["clip_id"].combine_chunks()
    return held_out, trained.filter(pc.invert(pc.is_in(trained, held_out)))


def _vectors(clips: pa.Table) -> np.ndarray:
    flat: np.ndarray = clips["embedding"].combine_chunks().flatten().to_numpy()
    return flat.reshape(clips.num_rows, -1)


def _threshold(judged: _Judged, settings: Threshold) -> dict[str, Any]:
    """The THRESHOLDS columns beside machine type and section."""
    from ray_asd.scoring import scores

    fit = scores.fit_threshold(judged.healthy, settings)
    source = "manual" if settings.method == "manual" else judged.source
    return {
        "threshold": fit.value,
        "method": fit.method,
        "source": source if fit.reason is None or not len(judged.healthy) else f"{source}: {fit.reason}",
        "false_positive_rate": fit.false_positive_rate,
        "num_clips": fit.num_clips,
    }


def _scored(judged: _Judged, threshold: float | None, label: Mapping[str, str]) -> pa.Table:
    group, values = judged.clips, judged.scores
    columns = {name: group[name] for name in tables.SCORES.names if name in group.column_names}
    columns |= {
        "score": pa.array(values, pa.float64()),
        "threshold": pa.array([threshold] * len(values), pa.float64()),
        "decision": pa.array([None if threshold is None else int(value > threshold) for value in values], pa.int8()),
        "neighbours": pa.array(judged.neighbours, pa.list_(pa.string())),
        "distances": pa.array(judged.distances, pa.list_(pa.float64())),
        **{name: pa.array([value] * len(values)) for name, value in label.items()},
    }
    return pa.table(columns).select(tables.SCORES.names)
