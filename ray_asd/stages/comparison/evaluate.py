"""METRICS by the official definitions of a year of DCASE Task 2, the floor row always among them.

The all-machine figure of each system and its bootstrap interval stand in the marker's summary; ``official/`` holds
each system's figures laid out as the official evaluator's result file.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ray_asd import build, store
from ray_asd.build import Attempt, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.config import Audio, Scoring, Usage
from ray_asd.engine.progress import Progress
from ray_asd.errors import UserError, unknown
from ray_asd.scoring import bootstrap, metrics, protocols, submission
from ray_asd.stages.detection import score
from ray_asd.tables import Folder

CODE_VERSION = 4
RESAMPLES = 1000
LEVEL = 0.95
_SCORES = "scores_"  # first part of the names of the systems' SCORES among a step's inputs


def step(scores: Sequence[Output], progress: Progress, protocol: str = "auto") -> Step:
    """METRICS of one or more SCORES, and of the floor on the same clips with the same bank.

    ``protocol`` is one of ``scoring.protocols.CHOICES``.

    Raises:
        UserError: it is not.
    """
    floors: dict[str, Step] = {}
    for output in scores:
        clips, bank_clips, usage, audio = _scored_with(output)
        keep = "queries" in output.marker.inputs or "direct" in output.marker.inputs
        floors[floor_name(clips, bank_clips)] = score.step(None, clips, bank_clips, usage, audio, progress, keep=keep)
    name = scores[0].marker.name if len(scores) == 1 else f"{len(scores)}-systems"
    num_clips = sum(output.marker.counts["clips"] for output in scores)
    return planned(name, scores, floors, num_clips, protocol=protocol)


def planned(
    name: str,
    scores: Sequence[Step | Output],
    floors: Mapping[str, Step | Output],
    num_clips: int,
    variant: str = "",
    protocol: str = "auto",
) -> Step:
    """METRICS of SCORES that need not be there yet; ``variant`` is put behind the systems' names."""
    inputs: dict[str, Step | Output] = {f"{_SCORES}{number}": given for number, given in enumerate(scores)}
    return Step(
        stage="evaluate",
        name=name,
        code_version=CODE_VERSION,
        config=_config(protocol) | ({"variant": variant} if variant else {}),
        inputs={**inputs, **floors},
        work=lambda attempt, inputs: _work(attempt, _tables(inputs, variant), protocol),
        units=num_clips,
        on_ray=False,
    )


def floor_name(clips: Output, bank_clips: Output) -> str:
    """What the floor on these clips with this bank is called among a step's inputs."""
    return f"floor_{clips.marker.content[:12]}_{bank_clips.marker.content[:12]}"


def _config(protocol: str) -> dict[str, Any]:
    if protocol not in protocols.CHOICES:
        raise unknown("protocol", protocol, protocols.CHOICES)
    return {"resamples": RESAMPLES, "level": LEVEL, "protocol": protocol}


def submission_step(scores_dir: str, truth_dir: str, protocol: str = "auto") -> Step:
    """METRICS of the systems in a DCASE submission folder; without recordings there is no floor row.

    Raises:
        UserError: no such protocol, or the folders are not as the official evaluator's, or do not fit each other.
    """
    systems = submission.read(scores_dir, truth_dir)
    content = {name: build.digest_of(table.to_pylist()) for name, table in systems.items()}
    return Step(
        stage="evaluate",
        name=store.name(scores_dir),
        code_version=CODE_VERSION,
        config=_config(protocol) | {"submission": content},
        inputs={},
        work=lambda attempt, inputs: _work(attempt, [(name, None, table) for name, table in systems.items()], protocol),
        units=sum(table.num_rows for table in systems.values()),
        on_ray=False,
    )


def _scored_with(scores: Output) -> tuple[Output, Output, Usage, Audio]:
    """The clips that were scored, those they were compared with (by a baseline: those it was trained on), and how."""
    origins = scores.marker.inputs
    heard = build.resolve(origins["bank" if "bank" in origins else "direct"].uri, "embed", "direct")
    model = heard if "bank" in origins else build.resolve(origins["model"].uri, "train", "tfp")
    clips = build.resolve(origins["clips"].uri, "ingest")
    bank_clips = build.resolve(model.marker.inputs["clips"].uri, "ingest")
    return (
        clips,
        bank_clips,
        Usage(scoring=Scoring(**scores.marker.config["scoring"])),
        Audio(**heard.marker.config["audio"]),
    )


def systems(metrics: Output) -> list[tuple[str, Output]]:
    """The SCORES behind METRICS that were not of a submission folder, each with its system's name.

    Those without an all-machine figure are left out: there is nothing to compare.
    """
    variant = metrics.marker.config.get("variant", "")
    judged = {found["system"] for found in metrics.marker.summary["systems"] if found["score"] is not None}
    found = {name: build.resolve(source.uri, "score") for name, source in metrics.marker.inputs.items()}
    named = [(_named(name, output, variant), output) for name, output in found.items()]
    return [(system, output) for system, output in named if system in judged]


def _named(name: str, scores: Output, variant: str) -> str:
    system: str = scores.marker.summary["system"]
    return system + variant if name.startswith(_SCORES) else system


def _tables(inputs: Mapping[str, Output], variant: str) -> list[tuple[str, int | None, pa.Table]]:
    systems: dict[tuple[str, int | None], pa.Table] = {}
    for name, output in {output.marker.digest: (name, output) for name, output in inputs.items()}.values():
        key = (_named(name, output, variant), output.marker.summary["seed"])
        if key in systems:
            raise UserError(
                f"two of the SCORES are of {key[0]} with seed {key[1]}; one METRICS table takes one of each"
            )
        systems[key] = output.table(Folder.SCORES)
    return [(system, seed, table) for (system, seed), table in systems.items()]


def _work(attempt: Attempt, systems: list[tuple[str, int | None, pa.Table]], protocol: str) -> Outcome:
    rows, summaries, files = [], [], []
    for number, (system, seed, scores) in enumerate(systems):
        figures = metrics.evaluate(scores, system, seed, protocol)
        rows.append(figures)
        summaries.append({"system": system, "seed": seed, "protocol": figures["protocol"][0].as_py()})
        try:
            summaries[-1]["score"] = metrics.official_score(figures)
        except UserError as error:  # a table without the one figure is still a table; it says why
            summaries[-1] |= {"score": None, "why": str(error)}
            continue
        low, high = bootstrap.interval(scores, RESAMPLES, level=LEVEL, protocol=protocol)
        summaries[-1] |= {"low": low, "high": high, "level": LEVEL}
        files.append(attempt.put(f"official/{number:02d}.csv", _csv(metrics.official_table(figures))))
    table = pa.concat_tables(rows)
    files.append(attempt.put_table(f"{Folder.METRICS}/00000.parquet", table))
    return Outcome(files, {"systems": len(systems), "sections": table.num_rows}, {"systems": summaries})


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
