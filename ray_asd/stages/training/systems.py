"""A trained system: the fine-tuned backbone, and on top of it, where the recipe says so, transformer pooling.

Both stages end in a model folder. A system with transformer pooling starts from the very model of its sibling
without, so the two share the fine-tuning.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ray_asd.build import Attempt, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.config import Recipe, Usage
from ray_asd.data.training_set import TrainingSet, held_out
from ray_asd.engine.progress import Progress
from ray_asd.models import checkpoints
from ray_asd.models.card import CARD, WEIGHTS, read_card
from ray_asd.stages.recordings import augment
from ray_asd.stages.training import baselines, chunks
from ray_asd.stages.training.usage import planned
from ray_asd.tables import Folder

if TYPE_CHECKING:
    from ray_asd.engine.worker_group import Fitted
    from ray_asd.models.aam import AAMSoftmax
    from ray_asd.models.embedder import ClipEmbedder
    from ray_asd.models.model_folder import Training

CODE_VERSION = 5
_NOT_IN_DIGEST = {"checkpoint_every"}
CURVE = "curve/curve.parquet"
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

    with _assembling, TemporaryDirectory() as folder:
        system = embedder.build(recipe, checkpoint)
        card = model_folder.save(Path(folder), system, None, model_folder.Training(checkpoint, [], [], 0))
        files = [attempt.put_file(name, Path(folder) / name) for name in (CARD, WEIGHTS)]
    return Outcome(files, {"conditions": 0, "held_out": 0}, {"system": card.system, "seed": recipe.seed})


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
    from ray_asd.models import embedder
    from ray_asd.models.model_folder import Training
    from ray_asd.stages.training.classification import new_head
    from ray_asd.stages.training.objectives import FineTuning

    clips = inputs["clips"].table(Folder.CLIPS)
    kept_back = held_out(clips, recipe.calibration_fraction, recipe.seed)
    sets = [inputs[name] for name in ("originals", "variants") if name in inputs]
    conditions = TrainingSet(sets, kept_back).conditions
    with _assembling:
        aam = new_head(recipe, len(conditions))
    task = FineTuning(recipe, checkpoint, sets, kept_back)
    state = worker_group.fit("train", task, recipe.resources.train, attempt, progress)
    training = Training(checkpoint, conditions, kept_back, recipe.fine_tuning.steps)
    with _assembling:
        trained = embedder.build(recipe, checkpoint)
        _take_over(trained.embedder, aam, state)
        return _saved(attempt, trained, aam, training, state)


def _train_pooling(attempt: Attempt, inputs: Mapping[str, Output], recipe: Recipe, progress: Progress) -> Outcome:
    from ray_asd.engine import worker_group
    from ray_asd.models import model_folder
    from ray_asd.models.embedder import ClipEmbedder
    from ray_asd.models.pooling import TransformerPooling
    from ray_asd.stages.training.classification import new_head
    from ray_asd.stages.training.pooling_objective import Pooling

    card = read_card(inputs["model"].fetch(CARD))
    # What the backbone was fine-tuned with stands: an equal stage of another recipe may have done it.
    ours = ("transformer_pooling", "aam", *Usage.model_fields)
    recipe = card.recipe.model_copy(update={name: getattr(recipe, name) for name in ours})
    task = Pooling(recipe, inputs["chunks"])
    state = worker_group.fit("train pooling", task, recipe.resources.train, attempt, progress)
    training = model_folder.Training(card.checkpoint, card.conditions, card.held_out, task.settings.steps)
    with _assembling:
        base = model_folder.load(inputs["model"].fetch(CARD), inputs["model"].fetch(WEIGHTS))
        aam = new_head(recipe, len(card.conditions))
        pooling = TransformerPooling(recipe.embedding.dim, task.settings)
        _take_over(pooling, aam, state)
        return _saved(attempt, ClipEmbedder(base.system.embedder, pooling, recipe), aam, training, state)


def _take_over(encoder: Any, aam: "AAMSoftmax", state: "Fitted") -> None:
    from ray_asd.stages.training.classification import Classifier

    Classifier(encoder, aam).load_state_dict(state.model)


def _saved(
    attempt: Attempt,
    system: "ClipEmbedder",
    aam: "AAMSoftmax",
    training: "Training",
    state: "Fitted",
) -> Outcome:
    from ray_asd.models import model_folder

    with TemporaryDirectory() as folder:
        card = model_folder.save(Path(folder), system, aam, training)
        names = (CARD, WEIGHTS)
        files = [attempt.put_file(name, Path(folder) / name) for name in names]
    files.append(attempt.put_table(CURVE, pa.Table.from_pylist(state.curve)))
    summary = {"system": card.system, "seed": card.recipe.seed, "loss": state.curve[-1]["loss"]}
    counts = {"conditions": len(card.conditions), "held_out": len(card.held_out)}
    return Outcome(files, counts, summary, held=state.held)
