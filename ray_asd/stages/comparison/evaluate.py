"""METRICS by the official definitions of a year of DCASE Task 2, the rows of baselines among them.

The all-machine figure of each system, its bootstrap interval and its paired difference to the baseline stand in the
marker's summary; ``official/`` holds each system's figures laid out as the official evaluator's result file.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ray_asd import build, store
from ray_asd.build import Attempt, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.config import Worker
from ray_asd.engine.progress import Progress
from ray_asd.errors import UserError, unknown
from ray_asd.scoring import bootstrap, comparison, metrics, official, protocols, submission
from ray_asd.scoring.copies import counted
from ray_asd.stages.comparison import baselines
from ray_asd.stages.training.usage import Features
from ray_asd.tables import SCORES, Folder

CODE_VERSION = 6
RESAMPLES = 1000
_CLIP_GB = 25e-6  # of memory; how often each resample holds the clip takes 8e-6
LEVEL = 0.95
_SCORES, _BASELINE = "scores_", "baseline_"  # first parts of the names of SCORES among the inputs


def step(
    scores: Sequence[Output], progress: Progress, protocol: str = "auto", names: Sequence[Features] = baselines.DEFAULT
) -> Step:
    """METRICS of one or more SCORES, and of the baselines on the same clips with the same banks.

    ``protocol`` is one of ``scoring.protocols.CHOICES``, ``names`` those of the baselines' features.

    Raises:
        UserError: they are not.
    """
    beside = [baseline for output in scores for baseline in baselines.of_scores(output, progress, names)]
    name = scores[0].marker.name if len(scores) == 1 else f"{len(scores)}-systems"
    num_clips = sum(output.marker.counts["clips"] for output in scores)
    return planned(name, scores, beside, num_clips, protocol=protocol)


def planned(
    name: str,
    scores: Sequence[Step | Output],
    beside: Sequence[Step | Output],
    num_clips: int,
    variant: str = "",
    protocol: str = "auto",
) -> Step:
    """METRICS of SCORES that need not be there yet, and of baselines ``beside`` them.

    ``variant`` is put behind the systems' names.
    """
    inputs: dict[str, Step | Output] = {f"{_SCORES}{number}": given for number, given in enumerate(scores)}
    return Step(
        stage="evaluate",
        name=name,
        code_version=CODE_VERSION,
        config=_config(protocol) | ({"variant": variant} if variant else {}),
        inputs=inputs | {f"{_BASELINE}{number}": given for number, given in enumerate(beside)},
        work=lambda attempt, inputs: _work(attempt, _tables(inputs, variant), protocol),
        units=num_clips,
        worker=worker(num_clips),
        on_ray=False,
        check=lambda: _check_labels(scores, protocol),
    )


def _check_labels(scores: Sequence[Step | Output], protocol: str) -> None:
    """
    Raises:
        UserError: no section of SCORES that are there already can be judged.
    """
    for output in scores:
        if isinstance(output, Output):
            metrics.check(output.table(Folder.SCORES, SCORES, metrics.READ), protocol)


def worker(num_clips: int) -> Worker:
    """Of the task that draws resamples of so many scores."""
    return Worker(memory_gb=1 + num_clips * _CLIP_GB)


def _config(protocol: str) -> dict[str, Any]:
    if protocol not in protocols.CHOICES:
        raise unknown("protocol", protocol, protocols.CHOICES)
    return {"resamples": RESAMPLES, "level": LEVEL, "protocol": protocol}


def submission_step(scores_dir: str, truth_dir: str, protocol: str = "auto") -> Step:
    """METRICS of the systems in a DCASE submission folder; without recordings there is no baseline row.

    ``auto`` is the protocol of the year whose files these are.

    Raises:
        UserError: no such protocol, or the folders are not as the official evaluator's, or do not fit each other.
    """
    _config(protocol)
    judged = submission.read(scores_dir, truth_dir)
    systems = judged.systems
    if protocol == "auto" and judged.protocol != "dcase2023":
        protocol = judged.protocol
    given = [_System(name, None, table) for name, table in systems.items()]
    content = {name: build.digest_of(table.to_pylist()) for name, table in systems.items()}
    num_clips = sum(table.num_rows for table in systems.values())
    return Step(
        stage="evaluate",
        name=store.name(scores_dir),
        code_version=CODE_VERSION,
        config=_config(protocol) | {"submission": content},
        inputs={},
        work=lambda attempt, inputs: _work(attempt, given, protocol),
        units=num_clips,
        worker=worker(num_clips),
        on_ray=False,
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


@dataclass(frozen=True)
class _System:
    """SCORES of a system, or of a baseline beside systems."""

    name: str
    seed: int | None
    scores: pa.Table
    is_baseline: bool = False


def _tables(inputs: Mapping[str, Output], variant: str) -> list[_System]:
    systems: dict[tuple[str, int | None], _System] = {}
    for name, output in {output.marker.digest: (name, output) for name, output in inputs.items()}.values():
        key = (_named(name, output, variant), output.marker.summary["seed"])
        if key in systems and name.startswith(_BASELINE):  # of another bank; one of the name is enough
            continue
        if key in systems:
            raise UserError(
                f"two of the SCORES are of {key[0]} with seed {key[1]}; one METRICS table takes one of each"
            )
        systems[key] = _System(*key, output.table(Folder.SCORES, SCORES, metrics.READ), name.startswith(_BASELINE))
    return list(systems.values())


def _work(attempt: Attempt, systems: Sequence[_System], protocol: str) -> Outcome:
    rows, summaries, files = [], [], []
    for number, system in enumerate(systems):
        scores = system.scores
        figures = metrics.evaluate(scores, system.name, system.seed, protocol)
        rows.append(figures)
        summaries.append({"system": system.name, "seed": system.seed, "protocol": figures["protocol"][0].as_py()})
        if copies := scores.num_rows - int(counted(scores).sum()):
            summaries[-1]["copies"] = copies
        try:
            if unjudged := metrics.unjudged(scores):
                raise UserError("; ".join(unjudged))
            summaries[-1]["score"] = metrics.official_score(figures)
        except UserError as error:  # a table without the one figure is still a table; it says why
            summaries[-1] |= {"score": None, "why": str(error)}
            continue
        low, high = bootstrap.interval(scores, RESAMPLES, level=LEVEL, protocol=protocol)
        summaries[-1] |= {"low": low, "high": high, "level": LEVEL}
        baseline = None if system.is_baseline else _baseline(system, systems)
        if baseline:
            summaries[-1] |= _against(baseline, scores, protocol)
        files.append(attempt.put(f"official/{number:02d}.csv", _csv(official.table(figures))))
    table = pa.concat_tables(rows)
    files.append(attempt.put_table(f"{Folder.METRICS}/00000.parquet", table))
    return Outcome(files, {"systems": len(systems), "sections": table.num_rows}, {"systems": summaries})


def _baseline(system: _System, systems: Sequence[_System]) -> _System | None:
    """The first one, if can be that with the system's own bank, which its seed names."""
    found = [other for other in systems if other.is_baseline]
    return next((other for other in found if other.seed == system.seed), found[0] if found else None)


def _against(baseline: _System, scores: pa.Table, protocol: str) -> dict[str, Any]:
    """By how much a system's figure exceeds the baseline's, with the paired interval, for the marker's summary."""
    both: dict[str, dict[int | None, pa.Table]] = {"system": {None: scores}, "baseline": {None: baseline.scores}}
    try:
        pairs = comparison.compare(both, RESAMPLES, level=LEVEL, protocol=protocol).pairs
    except UserError:  # other clips, or a baseline without the one figure: nothing to pair
        return {}
    (pair,) = pairs.select(["difference", "low", "high"]).to_pylist()
    return {"against": {"system": baseline.name, "seed": baseline.seed, **pair}}


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
