"""Scores: of every test clip, and thresholds that turn them into decisions.

A backbone's score is the cosine k-NN against the healthy clips of its machine type and section: the bank, made of the
clips the model was trained on, or of others that are enrolled instead. CLIPS stream through the model and past the
bank; where EMBEDDINGS are kept, for other scorings of the same clips, they are what streams. A baseline has given its
score already. Clips that training never saw set the threshold.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ray_asd import tables
from ray_asd.build import Attempt, File, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.config import Audio, Recipe, Scoring, Usage
from ray_asd.engine.progress import Progress
from ray_asd.errors import StageError, UserError
from ray_asd.models.card import CARD, read_card
from ray_asd.stages.detection import direct, embed, index
from ray_asd.stages.training.usage import FLOOR, Settings, name_of
from ray_asd.tables import Folder

CODE_VERSION = 3
FLOOR_SYSTEM = "floor (log-mel mean and std)"


def step(
    model: Step | Output | None,
    clips: Output,
    bank_clips: Output,
    usage: Usage,
    audio: Audio,
    progress: Progress,
    method: str = "backbone",
    keep: bool = False,
) -> Step:
    """SCORES of the test clips of ``clips`` by a model of that ``method``, or by the floor where ``model`` is None.

    A backbone and the floor compare them with the training clips of ``bank_clips``; a baseline has no use for those.
    ``keep`` makes EMBEDDINGS of all clips an output of their own, which other scorings share.

    Raises:
        UserError: there is nothing to score, or nothing to compare with.
    """
    if not clips.marker.counts.get("test"):
        raise UserError(f"{clips.uri} holds no test clips; it has {_splits(clips)}")
    inputs: dict[str, Step | Output] = {"clips": clips}
    if model:
        inputs["model"] = model
    config: dict[str, Any] = {"scoring": usage.scoring.model_dump(mode="json")}
    settings = Settings.of(usage, audio)
    if model and method != "backbone":
        inputs["direct"] = direct.step(model, method, clips, usage, audio, progress)
    else:
        if not bank_clips.marker.counts.get("train"):
            raise UserError(f"{bank_clips.uri} holds no training clips to compare with; it has {_splits(bank_clips)}")
        splits = embed.EVERY_SPLIT if keep else embed.HEALTHY_SPLITS
        bank = embed.clips(model, bank_clips, settings, progress, splits)
        inputs |= {"bank": bank, "index": index.step(model, bank, usage.scoring.index)}
        if keep:
            inputs["queries"] = embed.clips(model, clips, settings, progress)
        else:
            config |= settings.key(model)
    streams = "direct" not in inputs and not keep
    return Step(
        stage="score",
        name=name_of(model),
        code_version=CODE_VERSION,
        config=config,
        inputs=inputs,
        work=lambda attempt, inputs: _Scoring(attempt, inputs, usage, settings, progress)(),
        units=clips.marker.counts["test"],
        worker=usage.resources.embed,
        workers=usage.resources.embed_workers,
        resumable=streams,
        on_ray=streams,
    )


def _splits(clips: Output) -> str:
    found = {split: clips.marker.counts[split] for split in tables.SPLITS if clips.marker.counts.get(split)}
    return ", ".join(f"{count} {split}" for split, count in found.items()) or "no clips"


def _label(model: Output | None, recipe: Recipe | None, scoring: Scoring) -> dict[str, str]:
    if model is None or recipe is None:
        return {"system": FLOOR_SYSTEM, "model_digest": FLOOR}
    used = recipe.model_copy(update={"scoring": scoring})
    return {"system": used.system, "model_digest": model.marker.digest}


@dataclass(frozen=True)
class _Scoring:
    """One scoring at work, in one of three ways; each gives SCORES and THRESHOLDS."""

    attempt: Attempt
    inputs: Mapping[str, Output]
    usage: Usage
    settings: Settings
    progress: Progress

    def __call__(self) -> Outcome:
        way = self._given if "direct" in self.inputs else self._kept if "queries" in self.inputs else self._streamed
        model = self.inputs.get("model")
        recipe = read_card(model.fetch(CARD)).recipe if model else None
        label = _label(model, recipe, self.usage.scoring)
        done = way(label)
        expected, scored = self.inputs["clips"].marker.counts["test"], done.counts.get("clips", 0)
        if scored != expected:
            raise StageError(f"{expected} clips went in, {scored} scores came out")
        summary = {"system": label["system"], "seed": recipe.seed if recipe else None}
        return Outcome(done.files, {"clips": scored}, summary, held=done.held)

    def _given(self, label: Mapping[str, str]) -> Outcome:
        """A baseline's own scores; those of the clips that its training held out set the thresholds."""
        from ray_asd.stages.detection import judge, thresholds

        parts = [self.inputs["direct"].part(file.path) for file in self.inputs["direct"].files(Folder.DIRECT)]
        limits = thresholds.fit(thresholds.given(pa.concat_tables(parts)), self.usage.scoring.threshold)
        by_group = thresholds.by_group(limits)
        tests = (part.filter(pc.field("split") == "test") for part in parts)
        scores = (judge.scored(part, part["score"].to_numpy(), by_group, label) for part in tests if part.num_rows)
        return self._written(scores, limits)

    def _kept(self, label: Mapping[str, str]) -> Outcome:
        """EMBEDDINGS past a bank in this process."""
        from ray_asd.stages.detection import search, thresholds
        from ray_asd.stages.detection.judge import Judge

        bank, queries, k = self.inputs["index"], self.inputs["queries"], self.usage.scoring.neighbours
        here = search.Here(bank)
        limits = thresholds.fit(thresholds.healthy(self.inputs, here, k), self.usage.scoring.threshold)
        judge = Judge(here, bank, k, thresholds.by_group(limits), label)
        parts = (queries.part(file.path) for file in queries.files(Folder.EMBEDDINGS))
        tests = (part.filter(pc.field("split") == "test") for part in parts)
        return self._written((judge(part, tables.vectors(part)) for part in tests if part.num_rows), limits)

    def _written(self, scores: Iterable[pa.Table], limits: pa.Table) -> Outcome:
        files = [
            self.attempt.put_table(f"{Folder.SCORES}/{number:05d}.parquet", part) for number, part in enumerate(scores)
        ]
        return Outcome([*files, self._thresholds(limits)], {"clips": sum(file.rows or 0 for file in files)})

    def _thresholds(self, limits: pa.Table) -> File:
        return self.attempt.put_table(f"{Folder.THRESHOLDS}/00000.parquet", limits)

    def _streamed(self, label: Mapping[str, str]) -> Outcome:
        """CLIPS through the model and past a pool of index actors, on Ray Data; only the scores are kept."""
        from ray_asd.engine import shards
        from ray_asd.stages.detection import stream

        model, clips, settings = self.inputs.get("model"), self.inputs["clips"], self.settings
        bench = stream.Bench(self.attempt, self.inputs, self.usage, label)
        done = shards.run(
            "score",
            lambda: stream.Clips(model, clips, settings, bench),
            shards.spans(clips, Folder.CLIPS, shards.shard_size(clips.marker.counts["clips"])),
            self.attempt,
            worker=settings.worker,
            workers=settings.workers,
            progress=self.progress,
            service=bench,
        )
        return Outcome([*done.files, self._thresholds(bench.limits())], done.counts, held=done.held)
