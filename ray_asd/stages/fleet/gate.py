"""The promotion gate: a candidate and the version that is current score the same labelled clips and are compared."""

from collections.abc import Mapping

from ray_asd.build import Attempt, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.config import Resources
from ray_asd.engine.progress import Progress
from ray_asd.errors import UserError
from ray_asd.scoring import promotion
from ray_asd.stages.comparison import evaluate
from ray_asd.stages.detection import score
from ray_asd.tables import Folder

CODE_VERSION = 1


def step(candidate: Output, current: Output, clips: Output, resources: Resources, progress: Progress) -> Step:
    """How the two compare on the labelled test clips of ``clips``; its summary is a ``promotion.Comparison``.

    Raises:
        UserError: there is nothing to score, or no clip has a label.
    """
    scores = {
        name: score.step(detector, clips, resources, progress)
        for name, detector in ((promotion.CANDIDATE, candidate), (promotion.CURRENT, current))
    }
    num_clips = 2 * clips.marker.counts["test"]
    return Step(
        stage="gate",
        name=candidate.marker.name,
        code_version=CODE_VERSION,
        config={},
        inputs=scores,
        work=_work,
        units=num_clips,
        worker=evaluate.worker(num_clips),
        on_ray=False,
    )


def _work(attempt: Attempt, inputs: Mapping[str, Output]) -> Outcome:
    tables = {name: output.table(Folder.SCORES) for name, output in inputs.items()}
    try:
        found = promotion.compare(tables[promotion.CANDIDATE], tables[promotion.CURRENT])
    except UserError as error:
        raise UserError(f"{inputs[promotion.CANDIDATE].marker.inputs['clips'].uri}: {error}") from error
    told = found.told()
    return Outcome([], {"clips": found.clips, "worse": len(found.worse)}, told)
