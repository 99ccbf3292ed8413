"""A whole small system from recordings to metrics, for the tests of the stages."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ray_asd import build, config
from ray_asd.build import Output, archive, steps
from ray_asd.config import Recipe, Resources, Worker
from ray_asd.data.simulate import Fleet
from ray_asd.data.source import Source
from ray_asd.engine.progress import silent
from ray_asd.grid import Cell
from ray_asd.stages.comparison import evaluate
from ray_asd.stages.detection import embed, enroll, score
from ray_asd.stages.recordings import ingest
from ray_asd.stages.sweep import Sweep
from ray_asd.stages.training import systems, usage
from ray_asd.stages.training.usage import Used
from ray_asd.tables import Folder

FLEET = Fleet(machines=("fan", "valve"), train_source=16, train_target=4, test=3, seconds=2.0)
ONE_WORKER = "resources.embed_workers=1"  # two would take longer to start than these few clips take one
SETTINGS = (
    "calibration_fraction=0.1",
    "augmentation.speeds=[0.9]",
    "augmentation.modes=[resample]",
    "embedding.dim=16",
    "training.steps=4",
    "training.batch_size=4",
    "training.workers=1",
    "transformer_pooling.steps=3",
    "transformer_pooling.batch_size=4",
    "transformer_pooling.feedforward=32",
    "transformer_pooling.window_seconds=1",
    "transformer_pooling.hop_seconds=0.5",
    "transformer_pooling.workers=1",
    "scoring.backend=paper",
    ONE_WORKER,
)
BASELINE_SETTINGS = (
    *SETTINGS,
    "autoencoder.epochs=1",
    "autoencoder.checkpoint_every=2",
    "mobilenet.epochs=1",
    "mobilenet.frames=32",
    "mobilenet.hop_frames=32",
    "mobilenet.checkpoint_every=2",
)
RECIPE = config.load("tiny", SETTINGS)


@dataclass(frozen=True)
class Chain:
    """The outputs of one system; ``base`` is the fine-tuned backbone that ``model`` puts its pooling on."""

    root: str
    recordings: str
    clips: Output
    model: Output
    detector: Output
    scores: Output
    metrics: Output

    @property
    def base(self) -> Output:
        return parent(self.model, "model")

    @property
    def chunks(self) -> Output:
        return parent(self.model, "chunks")

    @property
    def originals(self) -> Output:
        return parent(self.base, "originals")

    @property
    def variants(self) -> Output:
        return parent(self.base, "variants")

    @property
    def used(self) -> Used:
        return usage.planned(self.model, RECIPE, self.clips)

    @property
    def embeddings(self) -> Output:
        """Of all clips."""
        return steps.ensure(embed.clips(self.used, self.clips, silent), self.root)

    def tables(self) -> Iterator[tuple[str, Output, str]]:
        """Name, output and folder of every table."""
        yield "CLIPS", self.clips, Folder.CLIPS
        yield "TRAINING_SET", self.originals, "index"
        yield "TRAINING_SET variants", self.variants, "index"
        yield "chunks", self.chunks, "chunks"
        yield "EMBEDDINGS", parent(self.detector, "said_0"), Folder.EMBEDDINGS
        yield "HEALTHY", self.detector, f"members/0/{Folder.HEALTHY}"
        yield "CALIBRATION", self.detector, Folder.CALIBRATION
        yield "SCORES", self.scores, Folder.SCORES
        yield "THRESHOLDS", self.scores, Folder.THRESHOLDS
        yield "METRICS", self.metrics, Folder.METRICS


def parent(output: Output, name: str) -> Output:
    """The input of ``output`` called ``name``."""
    return build.resolve(
        output.marker.inputs[name].uri, *("ingest", "augment", "train", "tfp", "embed", "direct", "enroll", "score")
    )


def ingested(recordings: str, root: str, **options: str) -> Output:
    """CLIPS of ``recordings``."""
    return steps.ensure(ingest.step(Source(recordings, **options), Worker(), silent), root)


def enrolled(members: Sequence[Used], clips: Output, root: str) -> Output:
    """The DETECTOR of these models and the healthy clips of ``clips``."""
    return steps.ensure(enroll.step(members, clips, silent), root)


def spectral(clips: Output, root: str, *changes: str) -> Output:
    """The DETECTOR without training."""
    return enrolled([usage.use(usage.SPECTRAL, None, (ONE_WORKER, *changes))], clips, root)


def scored(detector: Output, clips: Output, root: str, resources: Resources = RECIPE.resources) -> Output:
    """SCORES of the test clips of ``clips``."""
    return steps.ensure(score.step(detector, clips, resources, silent), root)


def built(recordings: str, root: str) -> Chain:
    """Everything, from ``recordings`` to METRICS."""
    clips = ingested(recordings, root, dataset="fleet")
    model = steps.ensure(systems.system(RECIPE, clips, silent), root)
    detector = enrolled([usage.planned(model, RECIPE, clips)], clips, root)
    scores = scored(detector, clips, root)
    metrics = steps.ensure(evaluate.step([scores], silent), root)
    return Chain(root, recordings, clips, model, detector, scores, metrics)


def swept(cells: Sequence[Cell], clips: Output, root: str) -> Sweep:
    """A sweep of these cells on ``clips``, run to its end."""
    sweep = Sweep("test", cells, clips, root)
    sweep.run(lambda: None)
    return sweep


def copied(root: str, place: str, *outputs: Output) -> str:
    """``place`` as a root that holds what ``outputs`` below ``root`` were made from, and nothing else."""
    for last in outputs:
        for output in archive.lineage(last):
            if output.uri.startswith(root):
                shutil.copytree(output.uri, output.uri.replace(root, place, 1), dirs_exist_ok=True)
    return place


def baseline(method: str, *changes: str) -> Recipe:
    """Of ``autoencoder`` or ``mobilenet``."""
    return config.load("tiny", (*BASELINE_SETTINGS, f"method={method}", *changes))


def contents(output: Output) -> Mapping[str, bytes]:
    """Every committed file by its path."""
    return {file.path: output.read(file.path) for file in output.marker.files}
