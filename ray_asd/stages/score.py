"""Scores: cosine k-NN of every clip against the healthy clips of its machine type and section, and thresholds.

The bank is the EMBEDDINGS of the clips the model was trained on, or of others that are enrolled instead. Clips that
training never saw set the threshold.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import build, tables
from ray_asd.build import Attempt, Outcome, Output
from ray_asd.config import Audio, Scoring, Threshold, Usage
from ray_asd.errors import StageError, UserError
from ray_asd.models.card import CARD, read_card
from ray_asd.stages import embed
from ray_asd.stages.progress import Progress
from ray_asd.steps import Step

if TYPE_CHECKING:
    from ray_asd.scoring.knn import Neighbours

CODE_VERSION = 1
SCORES = "scores"
THRESHOLDS = "thresholds"
FLOOR_SYSTEM = "floor (log-mel mean and std)"
_GROUP = ["machine_type", "section"]


def step(
    model: Output | None,
    clips: Output,
    bank_clips: Output,
    usage: Usage,
    audio: Audio,
    progress: Progress,
) -> Step:
    """SCORES of the test clips of ``clips`` against the training clips of ``bank_clips``; ``model`` None: the floor.

    Raises:
        UserError: there is nothing to score, or nothing to compare with.
    """
    if not clips.marker.counts.get("test"):
        raise UserError(f"{clips.uri} holds no test clips; it has {_splits(clips)}")
    if not bank_clips.marker.counts.get("train"):
        raise UserError(f"{bank_clips.uri} holds no training clips to compare with; it has {_splits(bank_clips)}")
    settings = embed.Settings.of(usage, audio)
    queries = embed.clips(model, clips, settings, progress)
    bank = embed.clips(model, bank_clips, settings, progress)
    inputs: dict[str, Step | Output] = {"queries": queries, "bank": bank, "clips": clips}
    if model:
        inputs["model"] = model
    return Step(
        stage="score",
        name=model.marker.name if model else embed.FLOOR,
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
    held_out, trained = _seen(model)
    banked = inputs["bank"].table(embed.EMBEDDINGS)
    queries = inputs["queries"].table(embed.EMBEDDINGS)
    queries = queries.filter(pc.equal(queries["split"], "test"))
    label = {"system": FLOOR_SYSTEM, "model_digest": embed.FLOOR}
    if model:
        label = {"system": model.marker.summary["system"], "model_digest": model.marker.digest}
    parts, thresholds = [], []
    done = 0
    for (machine_type, section), group in _groups(queries):
        known = banked.filter((pc.field("machine_type") == machine_type) & (pc.field("section") == section))
        is_held_out = pc.is_in(known["clip_id"], pa.array(held_out, pa.string()))
        enrolled = known.filter(pc.and_(pc.equal(known["split"], "train"), pc.invert(is_held_out)))
        unseen = known.filter(pc.or_(pc.equal(known["split"], "calibration"), is_held_out))
        if enrolled.num_rows <= scoring.neighbours:
            raise UserError(
                f"{machine_type} section {section}: {enrolled.num_rows} training clips to compare with; "
                f"more than neighbours={scoring.neighbours} are needed"
            )
        detector = _Detector(enrolled, scoring.neighbours)
        untrained = enrolled.filter(pc.invert(pc.is_in(enrolled["clip_id"], trained)))
        threshold = _threshold(detector, unseen, untrained, scoring.threshold)
        thresholds.append({"machine_type": machine_type, "section": section, **threshold})
        parts.append(_scored(detector, group, threshold["threshold"], label))
        done += group.num_rows
        progress("score", done, queries.num_rows)
    scores = pa.concat_tables(parts).sort_by([("clip_id", "ascending")])
    if scores.num_rows != queries.num_rows:
        raise StageError(f"{queries.num_rows} clips went in, {scores.num_rows} scores came out")
    files = [
        attempt.put_table(f"{SCORES}/00000.parquet", tables.conform(scores, tables.SCORES)),
        attempt.put_table(f"{THRESHOLDS}/00000.parquet", pa.Table.from_pylist(thresholds, schema=tables.THRESHOLDS)),
    ]
    seed = model.marker.summary["seed"] if model else None
    return Outcome(files, {"clips": scores.num_rows}, {"system": label["system"], "seed": seed})


def _seen(model: Output | None) -> tuple[list[str], pa.Array]:
    """clip_ids that the model's training held out, and those it trained on; none of either for the floor."""
    if model is None:
        return [], pa.array([], pa.string())
    held_out = read_card(model.fetch(CARD)).held_out
    clips = build.resolve(model.marker.inputs["clips"].uri, "ingest").table("clips")
    trained = clips.filter(pc.equal(clips["split"], "train"))["clip_id"].combine_chunks()
    return held_out, trained.filter(pc.invert(pc.is_in(trained, pa.array(held_out, pa.string()))))


def _groups(queries: pa.Table) -> Iterator[tuple[tuple[str, str], pa.Table]]:
    keys = queries.group_by(_GROUP).aggregate([]).sort_by([(name, "ascending") for name in _GROUP])
    for key in keys.to_pylist():
        chosen = (pc.field("machine_type") == key["machine_type"]) & (pc.field("section") == key["section"])
        yield (key["machine_type"], key["section"]), queries.filter(chosen)


class _Detector:
    """The k-NN of one machine type and section."""

    def __init__(self, enrolled: pa.Table, neighbours: int) -> None:
        from ray_asd.scoring.knn import Bank

        self.neighbours = neighbours
        self._bank = Bank(_vectors(enrolled), enrolled["clip_id"].to_pylist())

    def search(self, clips: pa.Table) -> "Neighbours":
        """The nearest enrolled clips of each of ``clips``, never the clip itself."""
        return self._bank.search(_vectors(clips), self.neighbours, exclude=clips["clip_id"].to_pylist())


def _vectors(clips: pa.Table) -> np.ndarray:
    flat: np.ndarray = clips["embedding"].combine_chunks().flatten().to_numpy()
    return flat.reshape(clips.num_rows, -1)


def _threshold(detector: _Detector, unseen: pa.Table, untrained: pa.Table, settings: Threshold) -> dict[str, Any]:
    """The THRESHOLDS columns beside machine type and section.

    Fine-tuning pulls its own clips together, so only clips that it never saw say how far a healthy one may be:
    ``unseen`` ones that are not in the bank, else the bank's ``untrained`` ones, each left out in turn.
    """
    from ray_asd.scoring import scores

    if unseen.num_rows:
        source, rows = "calibration", unseen
    elif untrained.num_rows:
        source, rows = "leave_one_out", untrained
    else:
        source, rows = "none: every normal clip was trained on (calibration_fraction 0)", untrained
    values = scores.clip_scores(detector.search(rows).distances) if rows.num_rows else np.empty(0)
    if settings.method == "manual":
        source = "manual"
    fit = scores.fit_threshold(values, settings)
    return {
        "threshold": fit.value,
        "method": fit.method,
        "source": source if fit.reason is None or not rows.num_rows else f"{source}: {fit.reason}",
        "false_positive_rate": fit.false_positive_rate,
        "num_clips": fit.num_clips,
    }


def _scored(detector: _Detector, group: pa.Table, threshold: float | None, label: Mapping[str, str]) -> pa.Table:
    from ray_asd.scoring import scores

    found = detector.search(group)
    values = scores.clip_scores(found.distances)
    columns = {name: group[name] for name in tables.SCORES.names if name in group.column_names}
    columns |= {
        "score": pa.array(values),
        "threshold": pa.array([threshold] * len(values), pa.float64()),
        "decision": pa.array([None if threshold is None else int(value > threshold) for value in values], pa.int8()),
        "neighbours": pa.array(found.clip_ids),
        "distances": pa.array(list(found.distances)),
        **{name: pa.array([value] * len(values)) for name, value in label.items()},
    }
    return pa.table(columns).select(tables.SCORES.names)
