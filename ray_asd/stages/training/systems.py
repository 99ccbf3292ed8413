"""A trained system: the fine-tuned backbone, and on top of it, where the recipe says so, transformer pooling.

Both stages end in a model folder. A system with transformer pooling starts from the very model of its sibling
without, so the two share the fine-tuning.
"""

import threading
from collections.abc import Mapping

from ray_asd import store
from ray_asd.build import Attempt, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.config import Recipe, Usage
from ray_asd.data.training_set import TrainingSet, held_out
from ray_asd.engine.address import cluster
from ray_asd.engine.progress import Progress
from ray_asd.models import checkpoints
from ray_asd.models.card import CARD, read_card
from ray_asd.stages.recordings import augment, refusals
from ray_asd.stages.training import baselines, chunks
from ray_asd.stages.training.model_output import stored
from ray_asd.stages.training.usage import planned
from ray_asd.tables import Folder

CODE_VERSION = 6
_NOT_IN_DIGEST = {"checkpoint_every"}
_WEIGHTS = "weights"  # beside the attempts at a stage: copies of a hub's checkpoint, for nodes that cannot reach it
_assembling = threading.Lock()  # transformers replaces torch's initialisers while it builds a model: one at a time


def system(recipe: Recipe, clips: Output, progress: Progress) -> Step:
    """The step whose output is the system that ``recipe`` describes.

    Raises:
        UserError: the recipe's weights cannot be found, or CLIPS hold nothing to train on.
    """
    if recipe.method != "backbone":
        return baselines.system(recipe, clips, progress)
    if not recipe.is_trained:
        return frozen(recipe)
    fine_tuned = fine_tuning(recipe, clips, progress)
    if not recipe.transformer_pooling:
        return fine_tuned
    used = planned(fine_tuned, recipe, clips)
    chunked = chunks.chunks(fine_tuned, _sets(recipe, clips, progress), recipe.transformer_pooling, used, progress)
    return Step(
        stage="tfp",
        name=_name(recipe),
        code_version=CODE_VERSION,
        config={
            "seed": recipe.seed,
            "aam": recipe.aam.model_dump(mode="json"),
            "transformer_pooling": recipe.transformer_pooling.model_dump(mode="json", exclude=_NOT_IN_DIGEST),
        },
        inputs={"model": fine_tuned, "chunks": chunked, "clips": clips},
        work=lambda attempt, inputs: _train_pooling(attempt, inputs, recipe, progress),
        units=recipe.transformer_pooling.steps,
        worker=recipe.resources.train,
        workers=recipe.transformer_pooling.workers,
        exclusive=True,
    )


def frozen(recipe: Recipe) -> Step:
    """The backbone as its checkpoint is, in a folder of its own. No clip is heard and no cluster needed."""
    checkpoint = checkpoints.resolve(recipe.backbone, recipe.seed)
    return Step(
        stage="train",
        name=_name(recipe).rpartition("-seed")[0],
        code_version=CODE_VERSION,
        config={
            "backbone": recipe.backbone.model_dump(mode="json", include={"family", "weighted_sum", "normalize"}),
            "checkpoint": checkpoint.identity,
            "embedding": recipe.embedding.model_dump(mode="json", include={"pooling"}),
            "training": None,
        },
        inputs={},
        work=lambda attempt, inputs: _freeze(attempt, recipe, checkpoint),
        units=0,
        on_ray=False,
    )


def _freeze(attempt: Attempt, recipe: Recipe, checkpoint: checkpoints.Checkpoint) -> Outcome:
    from ray_asd.models import embedder, model_folder
    from ray_asd.models.saved import Training

    with _assembling:
        system = embedder.build(recipe, checkpoint)
    return stored(attempt, lambda folder: model_folder.save(folder, system, None, Training(checkpoint, [], [], 0)))


def fine_tuning(recipe: Recipe, clips: Output, progress: Progress) -> Step:
    """The fine-tuned backbone, pooled by the mean of its chunk embeddings."""
    recipe = recipe.model_copy(update={"transformer_pooling": None})
    checkpoint = checkpoints.resolve(recipe.backbone, recipe.seed)
    return Step(
        stage="train",
        name=_name(recipe),
        code_version=CODE_VERSION,
        config={
            "seed": recipe.seed,
            "backbone": recipe.backbone.model_dump(mode="json", exclude={"source", "revision"}),
            "checkpoint": checkpoint.identity,
            "embedding": recipe.embedding.model_dump(mode="json"),
            "aam": recipe.aam.model_dump(mode="json"),
            "training": recipe.fine_tuning.model_dump(mode="json", exclude=_NOT_IN_DIGEST),
            "calibration_fraction": recipe.calibration_fraction,
        },
        inputs={"clips": clips, **_sets(recipe, clips, progress)},
        work=lambda attempt, inputs: _fine_tune(attempt, inputs, recipe, checkpoint, progress),
        units=recipe.fine_tuning.steps,
        worker=recipe.resources.train,
        workers=recipe.fine_tuning.workers,
        exclusive=True,
        check=lambda: refusals.conditions(clips, recipe.augmentation),
    )


def _name(recipe: Recipe) -> str:
    """Only what the digest holds, so that equal stages have equal names."""
    return f"{recipe.system.partition(' ')[0].replace('+', '-')}-seed{recipe.seed}"


def _sets(recipe: Recipe, clips: Output, progress: Progress) -> dict[str, Step]:
    worker = recipe.resources.augment
    sets = {"originals": augment.originals(clips, recipe.audio, worker, progress)}
    if recipe.augmentation:
        sets["variants"] = augment.variants(clips, recipe.audio, recipe.augmentation, worker, progress)
    return sets


def _fine_tune(
    attempt: Attempt,
    inputs: Mapping[str, Output],
    recipe: Recipe,
    checkpoint: checkpoints.Checkpoint,
    progress: Progress,
) -> Outcome:
    from ray_asd.engine import worker_group
    from ray_asd.stages.training.classification import new_head
    from ray_asd.stages.training.objectives import FineTuning

    clips = inputs["clips"].table(Folder.CLIPS)
    kept_back = held_out(clips, recipe.calibration_fraction, recipe.seed)
    sets = [inputs[name] for name in ("originals", "variants") if name in inputs]
    new_head(recipe, len(TrainingSet(sets, kept_back).conditions))  # refused here, before a worker starts
    copies = store.join(store.parent(attempt.uri), _WEIGHTS)
    within_reach = checkpoints.within_reach(checkpoint, copies) if cluster() else None
    task = FineTuning(recipe, checkpoint, sets, kept_back, within_reach)
    return worker_group.fit("train", task, recipe.resources.train, attempt, progress)


def _train_pooling(attempt: Attempt, inputs: Mapping[str, Output], recipe: Recipe, progress: Progress) -> Outcome:
    from ray_asd.engine import worker_group
    from ray_asd.stages.training.pooling_objective import Pooling

    card = read_card(inputs["model"].fetch(CARD))
    # What the backbone was fine-tuned with stands: an equal stage of another recipe may have done it.
    ours = ("transformer_pooling", "aam", *Usage.model_fields)
    recipe = card.recipe.model_copy(update={name: getattr(recipe, name) for name in ours})
    task = Pooling(recipe, inputs["chunks"], inputs["model"])
    return worker_group.fit("train pooling", task, recipe.resources.train, attempt, progress)
