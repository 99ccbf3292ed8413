"""Fine-tuning: our step against the transformers Trainer's, on the same network, head, batch and optimiser.

    python -m ray_asd.benchmarks.training

The Trainer gets transformers' own backbone with the same weights and reads the same crops. It takes part where
``accelerate``, which it needs, is installed. A step is timed from the end of the one before, input included.
"""

import copy
import importlib.util
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import click
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import AutoModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from ray_asd.benchmarks import measure, noise_set
from ray_asd.benchmarks.measure import Times
from ray_asd.build import Output
from ray_asd.config import RANDOM_SIZES, Recipe
from ray_asd.data.sampling import Draw, Sampler
from ray_asd.engine.stepping import Stepper
from ray_asd.models import checkpoints
from ray_asd.models.checkpoints import FAMILIES
from ray_asd.models.products import has_bf16, keep_float32
from ray_asd.stages.training.objectives import FineTuning, PreparedFineTuning

CLIPS, CLIP_SECONDS = 64, 10.0

Steps = Callable[[int], list[float]]  # makes so many steps, and gives the seconds of each


@click.command()
@click.option("--family", "families", type=click.Choice(list(FAMILIES)), multiple=True, help="Repeatable; all if none.")
@click.option("--size", type=click.Choice(list(RANDOM_SIZES)), default="base", show_default=True)
@click.option("--batch", default=4, show_default=True, help="Crops in a step.")
@click.option("--seconds", default=2.0, show_default=True, help="Of a crop.")
@click.option("--steps", default=3, show_default=True, help="In each turn.")
@click.option("--repetitions", default=3, show_default=True, help="Turns; one before is not counted.")
@click.option("--threads", default=torch.get_num_threads(), show_default="torch's")
def main(
    families: tuple[str, ...], size: str, batch: int, seconds: float, steps: int, repetitions: int, threads: int
) -> None:
    """Time a step of fine-tuning."""
    torch.set_num_threads(threads)
    keep_float32()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    click.echo(measure.hardware("transformers", "accelerate"))
    click.echo(f"batch of {batch} crops of {seconds:g} s, AdamW, {repetitions} turns of {steps} steps\n")
    with tempfile.TemporaryDirectory() as folder:
        clips = noise_set.write(f"{folder}/set", CLIPS, max(CLIP_SECONDS, seconds))
        for family in families or FAMILIES:
            for precision in ("float32", "bf16") if has_bf16(device) else ("float32",):
                training = {"batch_size": batch, "crop_seconds": seconds, "steps": 10_000, "precision": precision}
                recipe = _recipe(family, size, training)
                click.echo(_compare(recipe, clips, device, folder, (repetitions, steps)) + "\n")


def _recipe(family: str, size: str, training: Mapping[str, object]) -> Recipe:
    backbone = {"family": family, "source": f"random:{size}"}
    return Recipe.model_validate({"name": "benchmark", "backbone": backbone, "training": training})


def _compare(recipe: Recipe, clips: Output, device: torch.device, folder: str, amount: tuple[int, int]) -> str:
    checkpoint = checkpoints.resolve(recipe.backbone, recipe.seed)
    prepared = FineTuning(recipe, checkpoint, [clips], []).prepare()
    prepared.module.to(device)
    ours = _Ours(prepared, recipe)
    variants: dict[str, Steps] = {"ray_asd": ours}
    if importlib.util.find_spec("accelerate"):
        variants["Trainer"] = _Theirs(prepared, recipe, folder)
    times = _alternate(variants, *amount)
    own = times["ray_asd"].median
    rows = [[name, str(taken), f"{taken.median / own:.2f}"] for name, taken in times.items()]
    header = [f"{recipe.backbone.family}, {recipe.fine_tuning.precision}", "s per step", "ray_asd is faster"]
    return f"{measure.table(header, rows)}\n\nwaiting for input: {ours.waiting:.2%} of our time"


def _alternate(variants: Mapping[str, Steps], repetitions: int, steps: int) -> dict[str, Times]:
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for repetition in range(repetitions + 1):
        for name, run in variants.items():
            taken = run(steps)
            if repetition:
                seconds[name] += taken
    return {name: Times(tuple(taken)) for name, taken in seconds.items()}


class _Ours:
    """The loop's own step, and the share of it that goes into making batches."""

    def __init__(self, prepared: PreparedFineTuning, recipe: Recipe) -> None:
        self.stepper = Stepper(prepared, prepared.module, recipe.fine_tuning)
        self.sampler = Sampler(prepared.num_items, recipe.fine_tuning.batch_size, recipe.seed)
        self.step, self.seconds = 0, 0.0

    def __call__(self, steps: int) -> list[float]:
        taken = []
        for _ in range(steps):
            begun = time.perf_counter()
            draws, following = (self.sampler.draws(step, 0, 1) for step in (self.step, self.step + 1))
            self.stepper.step(self.step, draws, following)
            _wait(self.stepper.device)
            taken.append(time.perf_counter() - begun)
            self.step += 1
        self.seconds += sum(taken)
        return taken

    @property
    def waiting(self) -> float:
        return self.stepper.waited / self.seconds


class _Crops(Dataset[dict[str, Any]]):
    """What a user would write over the same recordings: a crop from a random place, and its class."""

    def __init__(self, prepared: PreparedFineTuning, recipe: Recipe) -> None:
        self.prepared, self.seconds = prepared, recipe.fine_tuning.crop_seconds

    def __len__(self) -> int:
        return self.prepared.num_items

    def __getitem__(self, item: int) -> dict[str, Any]:
        draws = [Draw(item, float(torch.rand(())))]
        normalize = self.prepared.system.embedder.backbone.normalize
        crop = self.prepared.data.crops(draws, self.seconds, normalize)[0]
        return {"labels": int(self.prepared.labels[item]), "crops": torch.from_numpy(crop)}


class _Labelled(nn.Module):
    """The classifier as the Trainer calls it, around transformers' own backbone."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = copy.deepcopy(classifier)
        ours = self.classifier.encoder.backbone.model  # type: ignore[union-attr]
        plain = AutoModel.from_config(ours.config)  # type: ignore[union-attr]
        plain.load_state_dict(ours.state_dict())  # type: ignore[union-attr]
        self.classifier.encoder.backbone.model = plain  # type: ignore[union-attr]

    def forward(self, labels: Tensor, crops: Tensor) -> dict[str, Tensor]:
        return {"loss": self.classifier(labels, 0.0, crops)["loss"]}


class _Ends(TrainerCallback):  # type: ignore[misc]
    """When each step ended."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: list[float] = []

    def on_step_end(self, *_: object, **__: object) -> None:
        _wait(self.device)
        self.times.append(time.perf_counter())


class _Theirs:
    """The Trainer: what it does before its first step ends is not counted."""

    def __init__(self, prepared: PreparedFineTuning, recipe: Recipe, folder: str) -> None:
        device, training = next(prepared.module.parameters()).device, recipe.fine_tuning
        self.ends = _Ends(device)
        arguments = TrainingArguments(
            output_dir=f"{folder}/trainer",
            per_device_train_batch_size=training.batch_size,
            max_steps=1,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            max_grad_norm=0.0,
            lr_scheduler_type="constant",
            bf16=training.precision == "bf16",
            use_cpu=device.type == "cpu",
            dataloader_pin_memory=device.type == "cuda",
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        model, crops = _Labelled(prepared.module), _Crops(prepared, recipe)
        self.trainer = Trainer(model=model, args=arguments, train_dataset=crops, callbacks=[self.ends])
        self.trainer.remove_callback(PrinterCallback)

    def __call__(self, steps: int) -> list[float]:
        self.trainer.args.max_steps = steps + 1
        self.ends.times.clear()
        self.trainer.train()
        return [later - earlier for earlier, later in zip(self.ends.times, self.ends.times[1:], strict=False)]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
