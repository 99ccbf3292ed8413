"""METRICS by the official DCASE 2023 Task 2 definitions, the floor row always among them.

The all-machine figure of each system and its bootstrap interval stand in the marker's summary; ``official/`` holds
each system's figures laid out as the official evaluator's result file.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ray_asd import build, storage
from ray_asd.build import Attempt, Outcome, Output
from ray_asd.config import Audio, Scoring, Usage
from ray_asd.errors import UserError
from ray_asd.scoring import bootstrap, metrics, submission
from ray_asd.stages import score
from ray_asd.stages.progress import Progress
from ray_asd.steps import Step

CODE_VERSION = 1
METRICS = "metrics"
RESAMPLES = 1000
LEVEL = 0.95
_CONFIG = {"resamples": RESAMPLES, "level": LEVEL}


def step(scores: Sequence[Output], progress: Progress) -> Step:
    """METRICS of one or more SCORES, and of the floor on the same clips with the same bank."""
    inputs: dict[str, Step | Output] = {f"scores_{number}": output for number, output in enumerate(scores)}
    for output in scores:
        clips, bank_clips, floor = _floor(output, progress)
        inputs[f"floor_{clips.marker.content[:12]}_{bank_clips.marker.content[:12]}"] = floor
    return Step(
        stage="evaluate",
        name=scores[0].marker.name if len(scores) == 1 else f"{len(scores)}-systems",
        code_version=CODE_VERSION,
        config=_CONFIG,
        inputs=inputs,
        work=lambda attempt, inputs: _work(attempt, _scored(inputs)),
        units=sum(output.marker.counts["clips"] for output in scores),
        on_ray=False,
    )


def submission_step(scores_dir: str, truth_dir: str) -> Step:
    """METRICS of the systems in a DCASE submission folder; without recordings there is no floor row.

    Raises:
        UserError: the folders are not as the official evaluator's, or do not fit each other.
    """
    systems = submission.read(scores_dir, truth_dir)
    content = {name: build.digest_of(table.to_pylist()) for name, table in systems.items()}
    return Step(
        stage="evaluate",
        name=storage.name(scores_dir),
        code_version=CODE_VERSION,
        config=_CONFIG | {"submission": content},
        inputs={},
        work=lambda attempt, inputs: _work(attempt, [(name, None, table) for name, table in systems.items()]),
        units=sum(table.num_rows for table in systems.values()),
        on_ray=False,
    )


def _floor(scores: Output, progress: Progress) -> tuple[Output, Output, Step]:
    """The clips, the bank's clips, and the floor's SCORES on them."""
    bank = build.resolve(scores.marker.inputs["bank"].uri, "embed")
    clips = build.resolve(scores.marker.inputs["clips"].uri, "ingest")
    bank_clips = build.resolve(bank.marker.inputs["clips"].uri, "ingest")
    usage = Usage(scoring=Scoring(**scores.marker.config))
    audio = Audio(**bank.marker.config["audio"])
    return clips, bank_clips, score.step(None, clips, bank_clips, usage, audio, progress)


def _scored(inputs: Mapping[str, Output]) -> list[tuple[str, int | None, pa.Table]]:
    systems: dict[tuple[str, int | None], pa.Table] = {}
    for output in {output.marker.digest: output for output in inputs.values()}.values():
        key = (output.marker.summary["system"], output.marker.summary["seed"])
        if key in systems:
            raise UserError(
                f"two of the SCORES are of {key[0]} with seed {key[1]}; one METRICS table takes one of each"
            )
        systems[key] = output.table(score.SCORES)
    return [(system, seed, table) for (system, seed), table in systems.items()]


def _work(attempt: Attempt, systems: list[tuple[str, int | None, pa.Table]]) -> Outcome:
    rows, summaries, files = [], [], []
    for number, (system, seed, scores) in enumerate(systems):
        figures = metrics.evaluate(scores, system, seed)
        rows.append(figures)
        summaries.append({"system": system, "seed": seed, "protocol": figures["protocol"][0].as_py()})
        try:
            summaries[-1]["score"] = metrics.official_score(figures)
        except UserError as error:  # a table without the one figure is still a table; it says why
            summaries[-1] |= {"score": None, "why": str(error)}
            continue
        low, high = bootstrap.interval(scores, RESAMPLES, level=LEVEL)
        summaries[-1] |= {"low": low, "high": high, "level": LEVEL}
        files.append(attempt.put(f"official/{number:02d}.csv", _csv(metrics.official_table(figures))))
    table = pa.concat_tables(rows)
    files.append(attempt.put_table(f"{METRICS}/00000.parquet", table))
    return Outcome(files, {"systems": len(systems), "sections": table.num_rows}, {"systems": summaries})


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
