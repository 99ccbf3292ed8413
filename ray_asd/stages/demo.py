"""The whole method once, on a small simulated fleet: what a newcomer runs first."""

from dataclasses import dataclass

from ray_asd import config, report, storage
from ray_asd.build import Output
from ray_asd.config import Worker
from ray_asd.data import simulate
from ray_asd.data.listing import Source
from ray_asd.data.simulate import Fleet
from ray_asd.stages import evaluate, ingest, score, train
from ray_asd.stages.progress import Progress
from ray_asd.stages.session import session

RECIPE = "tiny"
PROCESSES = 2


@dataclass(frozen=True)
class Demo:
    """Where everything lies, the comparison table as Markdown, and whether all of it was there already."""

    outputs: dict[str, str]
    table: str
    reused: bool


def fleet(seed: int) -> Fleet:
    """All seven machine types, few clips each."""
    return Fleet(train_source=54, train_target=6, test=10, seconds=6.0, seed=seed)


def run(root: str, seed: int, overrides: tuple[str, ...], progress: Progress) -> Demo:
    """Simulate, ingest, fine-tune with WS, SA and TFP, score, evaluate and report below ``root``."""
    recipe = config.load(RECIPE, (f"seed={seed}", *overrides))
    recordings = storage.join(root, f"fleet-seed{seed}")
    simulate.write(fleet(seed), recordings, PROCESSES, lambda done, total: progress("simulate", done, total))
    outputs: dict[str, Output] = {}
    with session(root) as bring:
        source = Source(recordings, layout="dcase2023")
        outputs["clips"] = bring(ingest.step(source, Worker(), progress))
        outputs["model"] = bring(train.system(recipe, outputs["clips"], progress))
        clips = outputs["clips"]
        scoring = score.step(outputs["model"], clips, clips, recipe, recipe.audio, progress, recipe.method, keep=True)
        outputs["scores"] = bring(scoring)
        outputs["metrics"] = bring(evaluate.step([outputs["scores"]], progress))
    place = storage.join(root, "report")
    pages = report.pages(report.runs([outputs["metrics"]], []), place, report.Options(), progress)
    written = report.write([outputs["metrics"]], None, [], place, pages)
    places = {"recordings": recordings, **{name: output.uri for name, output in outputs.items()}}
    places["report"] = written.files["report"]
    return Demo(places, written.table, all(output.reused for output in outputs.values()))
