"""The training loop on a real Ray: it learns, its world size changes nothing, and it fails with one clear line.

``WORLD_TASKS`` (environment, 1 to 3, default 1) is the number of tasks that are trained by one worker and by two.
"""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ray_asd import build, store
from ray_asd.build import Attempt, Key, Outcome, Output, steps
from ray_asd.config import Recipe, Worker
from ray_asd.engine import training_loop, training_state, worker_group
from ray_asd.engine.objective import Objective
from ray_asd.engine.progress import Progress, silent
from ray_asd.errors import Futile, LeaseLost, StageError, UserError
from ray_asd.models import checkpoints
from ray_asd.models.card import CARD, WEIGHTS
from ray_asd.stages.training import objectives, pooling_objective, systems
from ray_asd.store.lease import Fence
from training_clips import hums, recipe, training_set

TASKS = ("hubert", "wav2vec2", "pooling")[: int(os.environ.get("WORLD_TASKS", "1"))]
STEPS = 30
TRAINING = {"steps": STEPS, "batch_size": 8, "crop_seconds": 0.3, "checkpoint_every": 10}
POOLING = {"batch_size": 8, "layers": 1, "feedforward": 32, "dropout": 0.0, "learning_rate": 3e-3}

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return training_set(str(tmp_path_factory.mktemp("set")), hums(18, pitches=(200.0, 600.0, 1100.0)))


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    folder = str(tmp_path / "stage")
    return Attempt(f"{folder}/attempt", Fence(folder, 1))


def fine_tuning(clips: Output, recipe: Recipe) -> objectives.FineTuning:
    return objectives.FineTuning(recipe, checkpoints.resolve(recipe.backbone, recipe.seed), [clips], [])


def fit(task: Objective, attempt: Attempt, progress: Progress = silent) -> pa.Table:
    """The loss curve."""
    outcome = worker_group.fit("train", task, Worker(), attempt, progress)
    assert [file.path for file in outcome.files] == [CARD, WEIGHTS, training_loop.CURVE]
    curve = pq.read_table(store.join(attempt.uri, training_loop.CURVE))
    assert outcome.summary["loss"] == curve["loss"][-1].as_py()
    assert curve["step"][-1].as_py() == task.settings.steps
    return curve


@pytest.mark.parametrize("name", TASKS)
def test_two_workers_train_as_one_does(clips: Output, tmp_path: Path, name: str) -> None:
    curves = []
    for workers in (1, 2):
        place = Fence(str(tmp_path / str(workers)), 1)
        curves.append(fit(task(name, clips, tmp_path, workers), Attempt(f"{place.folder}/attempt", place)))
        kept = [file for file in store.files(training_state.root(place)) if file.startswith("step-")]
        assert kept == ["step-00000020-000001.json", f"step-{STEPS:08d}-000001.json"]
    assert curves[0]["step"].equals(curves[1]["step"])
    alone, together = (torch.tensor(curve["loss"].to_pylist()) for curve in curves)
    torch.testing.assert_close(together[:10], alone[:10], rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-2)  # each step makes more of the first ones' rounding
    for curve in curves:
        assert min(curve["accuracy"].to_pylist()[-3:]) > 0.9  # learned
    assert alone[-5:].mean() < 0.5 * alone[:5].mean()


def task(name: str, clips: Output, folder: Path, workers: int) -> Objective:
    """Fine-tuning of the family of that name, or pooling."""
    settings = {"steps": STEPS, "checkpoint_every": 10, "workers": workers}
    if name == "pooling":
        pooled = recipe(transformer_pooling=POOLING | settings)
        base = steps.ensure(
            systems.frozen(pooled.model_copy(update={"training": None, "transformer_pooling": None})),
            str(folder / "root"),
        )
        return pooling_objective.Pooling(pooled, chunk_set(str(folder / "chunks")), base)
    return fine_tuning(clips, recipe(backbone={"family": name}, training=TRAINING | settings))


def chunk_set(folder: str) -> Output:
    """Clips of one to four chunks whose direction tells their condition."""
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 16, generator=random)
    rows = []
    for number in range(18):
        chunks = centres[number % 3] + torch.randn(1 + number % 4, 16, generator=random)
        rows.append({"clip_id": f"{number:02d}", "condition": f"machine{number % 3}", "chunks": chunks.tolist()})
    kind = pa.list_(pa.list_(pa.float32(), 16))
    schema = pa.schema([("clip_id", pa.string()), ("condition", pa.string()), ("chunks", kind)])

    def work(attempt: Attempt) -> Outcome:
        return Outcome([attempt.put_table("chunks/00000.parquet", pa.Table.from_pylist(rows, schema=schema))], {})

    return build.run(folder, Key("embed", "chunks", 1, {}, {}), work)


def test_a_loss_that_is_not_finite_ends_the_run_at_once(clips: Output, attempt: Attempt) -> None:
    seen: list[str] = []
    training = TRAINING | {"learning_rate": 1e30, "gradient_clip": None}
    with pytest.raises(Futile, match=r"train: the loss is (nan|inf) at step \d+; a smaller learning_rate than 1e\+30"):
        fit(fine_tuning(clips, recipe(training=training)), attempt, lambda what, done, total: seen.append(what))
    assert not any("nan" in line for line in seen)


def test_a_worker_that_always_fails_is_named_in_one_line(
    attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shards are gone. That it is tried again first is seen where workers are killed."""
    monkeypatch.setattr(worker_group, "MAX_FAILURES", 0)
    broken = training_set(str(tmp_path / "set"), hums(4))
    store.remove(broken.file_uri("waves"))
    with pytest.raises(StageError, match=r"^train: FileNotFoundError: .*waves/0000\d\.f32") as caught:
        fit(fine_tuning(broken, recipe(training=TRAINING)), attempt)
    assert "\n" not in str(caught.value)


def test_a_cluster_that_is_too_small_is_refused_at_once(clips: Output, attempt: Attempt) -> None:
    many = recipe(training=TRAINING | {"workers": 8})
    with pytest.raises(UserError, match=r"train needs 8 x \(1 CPU\); the cluster has 1 node of 2 CPU"):
        fit(fine_tuning(clips, many), attempt)
    with pytest.raises(UserError, match=r"train needs 1 x \(1 CPU, 2 GPU\); the cluster has 1 node of 2 CPU, 1 GPU"):
        worker_group.fit("train", fine_tuning(clips, recipe()), Worker(gpus=2), attempt, silent)
    assert not store.exists(store.parent(attempt.uri))


def test_a_run_that_was_taken_over_stops(clips: Output, attempt: Attempt) -> None:
    """Another process takes the lease while this one trains: it leaves no state after that."""
    fence = attempt.fence
    assert fence is not None

    before: list[int] = []

    def take_over(what: str, done: int, total: int) -> None:
        store.create(store.join(fence.folder, "lease-000002.json"), b"{}")
        before.append(training_state.steps(fence))

    training = TRAINING | {"steps": 400, "checkpoint_every": 40}
    with pytest.raises(LeaseLost, match="token 2 after 1"):
        fit(fine_tuning(clips, recipe(training=training)), attempt, take_over)
    assert training_state.steps(fence) <= before[0] + 40, "one was on its way"
