"""The two baselines of the paper's table: an AutoEncoder per machine type, and a MobileNet over all conditions.

Both hold BatchNorm and are trained by one worker each. The AutoEncoders of the machine types are stages of their own,
so that they train at the same time; one model folder then holds them all.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from ray_asd.build import Attempt, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.config import Recipe
from ray_asd.data.training_set import held_out
from ray_asd.engine.progress import Progress
from ray_asd.stages.recordings import augment, refusals
from ray_asd.stages.training.model_output import AUTOENCODER, stored
from ray_asd.tables import Folder

CODE_VERSION = 5
_NOT_IN_DIGEST = {"checkpoint_every"}


def system(recipe: Recipe, clips: Output, progress: Progress) -> Step:
    """The step whose output is the model folder of the baseline that ``recipe.method`` names.

    Raises:
        UserError: CLIPS hold nothing to train on.
    """
    return {"autoencoder": _autoencoder, "mobilenet": _mobilenet}[recipe.method](recipe, clips, progress)


def _mobilenet(recipe: Recipe, clips: Output, progress: Progress) -> Step:
    return Step(
        stage="train",
        name=f"MobileNet-seed{recipe.seed}",
        code_version=CODE_VERSION,
        config=_config(recipe, "mobilenet"),
        inputs={"clips": clips, "originals": _originals(recipe, clips, progress)},
        work=lambda attempt, inputs: _train_mobilenet(attempt, inputs, recipe, progress),
        units=clips.marker.counts["train"] * recipe.mobilenet.epochs,
        worker=recipe.resources.train,
        workers=1,
        exclusive=True,
        check=lambda: refusals.conditions(clips, None),
    )


def _autoencoder(recipe: Recipe, clips: Output, progress: Progress) -> Step:
    rows = clips.table(Folder.CLIPS).filter(pc.field("split") == "train")
    machine_types = sorted(set(rows.column("machine_type").to_pylist()))
    parts = {machine_type: _part(machine_type, recipe, clips, progress) for machine_type in machine_types}
    return Step(
        stage="train",
        name=f"AutoEncoder-seed{recipe.seed}",
        code_version=CODE_VERSION,
        config=_config(recipe, "autoencoder"),
        inputs={"clips": clips, **{f"machine {name}": part for name, part in parts.items()}},
        work=lambda attempt, inputs: _gather(attempt, inputs, recipe),
        units=len(parts),
        on_ray=False,
    )


def _part(machine_type: str, recipe: Recipe, clips: Output, progress: Progress) -> Step:
    """The AutoEncoder of one machine type."""
    return Step(
        stage="autoencoder",
        name=f"{machine_type}-seed{recipe.seed}",
        code_version=CODE_VERSION,
        config=_config(recipe, "autoencoder") | {"machine_type": machine_type},
        inputs={"clips": clips, "originals": _originals(recipe, clips, progress)},
        work=lambda attempt, inputs: _train_autoencoder(attempt, inputs, machine_type, recipe, progress),
        units=clips.marker.counts["train"] * recipe.autoencoder.epochs,
        worker=recipe.resources.train,
        workers=1,
        exclusive=True,
    )


def _config(recipe: Recipe, section: str) -> dict[str, Any]:
    settings = getattr(recipe, section).model_dump(mode="json", exclude=_NOT_IN_DIGEST)
    return {"seed": recipe.seed, section: settings, "calibration_fraction": recipe.calibration_fraction}


def _originals(recipe: Recipe, clips: Output, progress: Progress) -> Step:
    return augment.originals(clips, recipe.audio, recipe.resources.augment, progress)


def _kept_back(recipe: Recipe, inputs: Mapping[str, Output]) -> list[str]:
    return held_out(inputs["clips"].table(Folder.CLIPS), recipe.calibration_fraction, recipe.seed)


def _train_mobilenet(attempt: Attempt, inputs: Mapping[str, Output], recipe: Recipe, progress: Progress) -> Outcome:
    from ray_asd.engine import worker_group
    from ray_asd.stages.training.baseline_objectives import Patches

    task = Patches([inputs["originals"]], _kept_back(recipe, inputs), recipe)
    return worker_group.fit("train MobileNet", task, recipe.resources.train, attempt, progress)


def _train_autoencoder(
    attempt: Attempt, inputs: Mapping[str, Output], machine_type: str, recipe: Recipe, progress: Progress
) -> Outcome:
    from ray_asd.engine import worker_group
    from ray_asd.stages.training.baseline_objectives import Reconstruction

    task = Reconstruction([inputs["originals"]], _kept_back(recipe, inputs), machine_type, recipe)
    return worker_group.fit(f"train AutoEncoder {machine_type}", task, recipe.resources.train, attempt, progress)


def _gather(attempt: Attempt, inputs: Mapping[str, Output], recipe: Recipe) -> Outcome:
    """One model folder of the machine types' AutoEncoders, whose tensors are told apart by a number."""
    import safetensors.torch

    from ray_asd.models.saved import Training, save_tensors

    parts = {name.removeprefix("machine "): output for name, output in inputs.items() if name != "clips"}
    tensors = {
        f"{number}.{name}": value
        for number, machine_type in enumerate(sorted(parts))
        for name, value in safetensors.torch.load(parts[machine_type].read(AUTOENCODER)).items()
    }
    steps = sum(part.marker.counts["steps"] for part in parts.values())
    training = Training(None, [], _kept_back(recipe, inputs), steps)
    facts = {"machine_types": sorted(parts)}
    return stored(attempt, lambda folder: save_tensors(folder, tensors, recipe, training, facts))
