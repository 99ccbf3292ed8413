"""The whole method once, on a small simulated fleet: what a newcomer runs first."""

from ray_asd import config, store
from ray_asd.build import Output
from ray_asd.config import Worker
from ray_asd.data import simulate
from ray_asd.data.simulate import Fleet
from ray_asd.data.source import Source
from ray_asd.engine.progress import Progress
from ray_asd.engine.session import session
from ray_asd.stages.comparison import evaluate
from ray_asd.stages.detection import enroll, score
from ray_asd.stages.recordings import ingest
from ray_asd.stages.training import systems, usage
from ray_asd.stages.training.usage import Used

RECIPE = "tiny"
PROCESSES = 2


def fleet(seed: int) -> Fleet:
    """All seven machine types, few clips each."""
    return Fleet(train_source=54, train_target=6, test=10, seconds=6.0, seed=seed)


def place(root: str, seed: int) -> str:
    """Where the fleet's recordings lie."""
    return store.join(root, f"fleet-seed{seed}")


def run(root: str, seed: int, overrides: tuple[str, ...], progress: Progress) -> dict[str, Output]:
    """Simulate, ingest, enrol and score below ``root``: spectral features, what is released in the end; a fine-tuned
    backbone with WS, SA and TFP; and both fused. Then evaluate them beside the naive baseline.
    """
    recipe = config.load(RECIPE, (f"seed={seed}", *overrides))
    recordings = place(root, seed)
    simulate.write(fleet(seed), recordings, PROCESSES, lambda done, total: progress("simulate", done, total))
    outputs: dict[str, Output] = {}
    with session(root, progress) as bring:
        source = Source(recordings, layout="dcase2023")
        clips = outputs["clips"] = bring(ingest.step(source, Worker(), progress))
        outputs["model"] = bring(systems.system(recipe, clips, progress))
        tuned = usage.planned(outputs["model"], recipe, clips)
        untrained = usage.features(usage.SPECTRAL)

        def scored(*members: Used) -> Output:
            outputs["detector"] = bring(enroll.step(members, clips, progress))
            return bring(score.step(outputs["detector"], clips, recipe.resources, progress))

        systems_scores = [scored(tuned), scored(untrained, tuned), scored(untrained)]
        outputs["scores"] = systems_scores[-1]
        outputs["metrics"] = bring(evaluate.step(systems_scores, progress, names=[usage.LOG_MEL]))
    return outputs
