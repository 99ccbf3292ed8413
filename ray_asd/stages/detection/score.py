"""Scores: what a DETECTOR says of every test clip. One path, in a sweep, by hand and at night alike."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ray_asd import tables
from ray_asd.build import Attempt, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.config import Resources
from ray_asd.data.ingested import most_seconds
from ray_asd.engine.progress import Progress
from ray_asd.errors import StageError, UserError
from ray_asd.stages.detection import detector as detectors
from ray_asd.tables import Folder

if TYPE_CHECKING:
    from ray_asd.stages.detection.stream import Clips

CODE_VERSION = 5


def step(
    detector: Step | Output,
    clips: Output,
    resources: Resources,
    progress: Progress,
    work: "type[Clips] | None" = None,
) -> Step:
    """SCORES of the test clips of ``clips``, and UNSCORED of those that could not be scored.

    ``work`` takes the place of ``stream.Clips``, where it is not the models that are to be measured.

    Raises:
        UserError: there is nothing to score.
    """
    if not clips.marker.counts.get("test"):
        raise UserError(f"{clips.uri} holds no test clips; it has {_splits(clips)}")
    return Step(
        stage="score",
        name=detector.name if isinstance(detector, Step) else detector.marker.name,
        code_version=CODE_VERSION,
        config=detectors.released(detector),
        inputs={"clips": clips, "detector": detector},
        work=lambda attempt, inputs: _work(attempt, inputs, resources, progress, work),
        units=clips.marker.counts["test"],
        worker=resources.embed,
        workers=resources.embed_workers,
        resumable=True,
    )


def _splits(clips: Output) -> str:
    found = {split: clips.marker.counts[split] for split in tables.SPLITS if clips.marker.counts.get(split)}
    return ", ".join(f"{count} {split}" for split, count in found.items()) or "no clips"


def _work(
    attempt: Attempt,
    inputs: Mapping[str, Output],
    resources: Resources,
    progress: Progress,
    work: "type[Clips] | None",
) -> Outcome:
    from ray_asd.engine import cutting, shards
    from ray_asd.stages.detection import stream
    from ray_asd.stages.detection.bank_actors import pool
    from ray_asd.stages.detection.decide import Judge

    detector, clips = inputs["detector"], inputs["clips"]
    card = detectors.read(detector)
    judge, actors = Judge.of(detector, card), pool(detector, card, resources)
    counted, work = clips.marker.counts, work or stream.Clips
    done = shards.run(
        f"score {detector.marker.name}",
        lambda: work(detector, card, clips, resources, judge, actors),
        cutting.spans(clips, Folder.CLIPS, cutting.shard_size(counted["clips"], most_seconds(counted))),
        attempt,
        worker=resources.embed,
        workers=resources.embed_workers,
        progress=progress,
        service=actors,
    )
    counts = {"clips": 0, "unscored": 0, "decided": 0, "alarms": 0} | done.counts
    expected = clips.marker.counts["test"]
    if counts["clips"] + counts["unscored"] != expected:
        found = f"{counts['clips']} scores and {counts['unscored']} unscored"
        raise StageError(f"{expected} clips went in; {found} came out")
    summary = {"system": card.system, "seed": card.seed, "members": len(card.members)}
    summary["version"] = detectors.version(detector)
    summary["trained"] = any(member.seed is not None for member in card.members)
    files = [*done.files, attempt.put_table(f"{Folder.THRESHOLDS}/00000.parquet", detector.table(Folder.THRESHOLDS))]
    if not counts["clips"]:
        files.append(attempt.put_table(f"{Folder.SCORES}/none.parquet", tables.SCORES.empty_table()))
    return Outcome(files, counts, summary | {"learning": detector.marker.summary["learning"]}, held=done.held)
