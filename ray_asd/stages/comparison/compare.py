"""CELLS and PAIRS: how the systems of a sweep stand over their seeds, and which differences between them are real."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from ray_asd.build import Attempt, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.stages.comparison.evaluate import LEVEL, RESAMPLES, worker
from ray_asd.tables import SCORES, Folder

CODE_VERSION = 2


@dataclass(frozen=True)
class Scored:
    """The SCORES of one system with one seed; features without training may have none."""

    system: str
    seed: int | None
    scores: Output


def step(name: str, systems: Sequence[Scored]) -> Step:
    """The comparison of two or more systems on the same clips, in the order given."""
    num_clips = sum(scored.scores.marker.counts["clips"] for scored in systems)
    return Step(
        stage="compare",
        name=name,
        code_version=CODE_VERSION,
        config={
            "resamples": RESAMPLES,
            "level": LEVEL,
            "systems": [[scored.system, scored.seed] for scored in systems],
        },
        inputs={f"scores_{number}": scored.scores for number, scored in enumerate(systems)},
        work=lambda attempt, inputs: _work(attempt, systems),
        units=num_clips,
        worker=worker(num_clips),
        on_ray=False,
    )


def _work(attempt: Attempt, systems: Sequence[Scored]) -> Outcome:
    from ray_asd.scoring import comparison, metrics

    found: Mapping[str, dict[int | None, pa.Table]] = defaultdict(dict)
    for scored in systems:
        found[scored.system][scored.seed] = scored.scores.table(Folder.SCORES, SCORES, metrics.READ)
    compared = comparison.compare(found, RESAMPLES, level=LEVEL)
    files = [
        attempt.put_table(f"{Folder.CELLS}/00000.parquet", compared.cells),
        attempt.put_table(f"{Folder.PAIRS}/00000.parquet", compared.pairs),
    ]
    return Outcome(files, {"systems": compared.cells.num_rows, "pairs": compared.pairs.num_rows})
