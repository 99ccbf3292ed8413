"""One step of training, in this process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ray_asd.config import Optimisation
from ray_asd.data.sampling import Draw, Sampler
from ray_asd.engine import stepping
from ray_asd.engine.stepping import Stepper
from ray_asd.models import checkpoints
from ray_asd.stages.training import objectives
from training_clips import hums, recipe, training_set


def test_learning_rate_warms_up_and_stays() -> None:
    settings = Optimisation(steps=9, batch_size=1, learning_rate=0.4, warmup_steps=4)
    rates = [stepping.learning_rate_at(step, settings) for step in range(6)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert stepping.learning_rate_at(0, settings.model_copy(update={"warmup_steps": 0})) == 0.4


def test_a_step_is_adamw_on_the_clipped_gradient(tmp_path: Path) -> None:
    training = {"steps": 9, "batch_size": 4, "warmup_steps": 2, "gradient_clip": 0.01, "weight_decay": 0.1}
    made = recipe(training=training)
    clips = training_set(str(tmp_path), hums(6))
    prepared = objectives.FineTuning(made, checkpoints.resolve(made.backbone, 0), [clips], []).prepare()
    stepper, sampler = Stepper(prepared, prepared.module, made.training), Sampler(prepared.num_items, 4, 0)
    before = prepared.module.aam.weight.detach().clone()
    measured = stepper.step(0, sampler.draws(0, 0, 1))
    gradients = [parameter.grad for parameter in prepared.module.parameters() if parameter.grad is not None]
    assert torch.stack([gradient.norm() for gradient in gradients]).norm().item() == pytest.approx(0.01, rel=1e-3)
    rate, gradient = made.training.learning_rate / 2, prepared.module.aam.weight.grad
    assert gradient is not None
    expected = before * (1 - rate * 0.1) - rate * gradient / (gradient.abs() + 1e-8)  # Adam's first step
    torch.testing.assert_close(prepared.module.aam.weight.detach(), expected)
    assert measured.keys() == {"loss", "accuracy"}
    assert not measured["loss"].requires_grad
    assert stepper.waited > 0


def test_what_is_read_ahead_is_what_would_have_been_read(tmp_path: Path) -> None:
    made = recipe(training={"steps": 4, "batch_size": 4})
    clips = training_set(str(tmp_path), hums(6))
    losses, read = [], list[int]()
    for ahead in (False, True):
        torch.manual_seed(0)
        prepared = objectives.FineTuning(made, checkpoints.resolve(made.backbone, 0), [clips], []).prepare()
        stepper, sampler = Stepper(prepared, prepared.module, made.fine_tuning), Sampler(prepared.num_items, 4, 0)
        stepper.reads_ahead = ahead
        one_by_one = prepared.batch

        def batch(draws: Sequence[Draw], step: int, one_by_one: Any = one_by_one) -> Any:
            read.append(step)
            return one_by_one(draws, step)

        prepared.batch = batch  # type: ignore[method-assign]
        draws = [sampler.draws(step, 0, 1) for step in range(4)]
        losses.append([stepper.step(n, draws[n], draws[n + 1] if n < 3 else ())["loss"].item() for n in range(4)])
    assert losses[0] == losses[1]
    assert sorted(read) == sorted([*range(4)] * 2), "each once"
