"""Both training tasks on the CPU and in this process: what a batch is, and that every trained weight is reached."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from ray_asd import build
from ray_asd.build import Attempt, Key, Outcome, Output
from ray_asd.config import Recipe
from ray_asd.data.sampling import Draw, Sampler
from ray_asd.engine.objective import Prepared
from ray_asd.errors import UserError
from ray_asd.models import checkpoints, model_folder
from ray_asd.models.card import CARD, WEIGHTS
from ray_asd.models.embedder import Chunking
from ray_asd.stages.training import objectives, pooling_objective
from ray_asd.stages.training.classification import Classifier
from training_clips import hums, recipe, training_set

FAMILIES = ("wav2vec2", "unispeech", "hubert", "wavlm")
CLIPS = hums(6, pitches=(300.0, 700.0, 1100.0))
POOLING = {"steps": 1, "batch_size": 2, "layers": 1, "feedforward": 32, "dropout": 0.0}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return training_set(str(tmp_path_factory.mktemp("set")), CLIPS)


def fine_tuning(clips: Output, recipe: Recipe, held_out: Sequence[str] = ()) -> objectives.PreparedFineTuning:
    checkpoint = checkpoints.resolve(recipe.backbone, recipe.seed)
    return objectives.FineTuning(recipe, checkpoint, [clips], held_out).prepare()


def loss_of(prepared: Prepared, rows: int = 4, precision: torch.dtype | None = None) -> torch.Tensor:
    draws = Sampler(prepared.num_items, rows, seed=0).draws(0, 0, 1)
    batch = prepared.batch(draws, step=10_000)  # when the whole margin is there
    with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
        loss = prepared.module(*batch)["loss"]
    assert isinstance(loss, torch.Tensor)
    return loss


def without_gradient(prepared: Prepared) -> tuple[list[str], list[str]]:
    """Names of parameters that are trained but got no gradient in one step, and of those that are not trained."""
    prepared.module.train()
    loss_of(prepared).backward()
    parameters = list(prepared.module.named_parameters())
    unused = [name for name, value in parameters if value.requires_grad and value.grad is None]
    return unused, [name for name, value in parameters if not value.requires_grad]


@pytest.mark.parametrize("weighted_sum", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_trained_weight_gets_a_gradient(clips: Output, family: str, weighted_sum: bool) -> None:
    """Else DistributedDataParallel stops with an error in the second step."""
    backbone = {"family": family, "weighted_sum": weighted_sum, "spec_augment": True, "dropout": 0.1}
    unused, fixed = without_gradient(fine_tuning(clips, recipe(backbone=backbone)))
    assert unused == []
    assert set(fixed) <= {"encoder.backbone.model.masked_spec_embed"}


@pytest.mark.parametrize("pooling", ["mean", "attentive_statistics"])
@pytest.mark.parametrize(("freeze", "fixed_part"), [("feature_encoder", "feature_extractor."), ("all", "")])
def test_what_is_frozen_is_not_trained_and_the_rest_is(
    clips: Output, pooling: str, freeze: str, fixed_part: str
) -> None:
    prepared = fine_tuning(clips, recipe(backbone={"freeze": freeze}, embedding={"pooling": pooling}))
    unused, fixed = without_gradient(prepared)
    assert unused == []
    part = f"encoder.backbone.model.{fixed_part}"
    everything = [name for name, _ in prepared.module.named_parameters()]
    assert set(fixed) >= {name for name in everything if name.startswith(part)}
    assert {"aam.weight", "encoder.projection.weight", "encoder.weighted_sum.weights"}.isdisjoint(fixed)


@pytest.mark.parametrize("family", ["hubert", "wav2vec2"])
def test_bfloat16_is_close_to_float32(clips: Output, family: str) -> None:
    prepared = fine_tuning(clips, recipe(backbone={"family": family}))
    exact, rounded = loss_of(prepared), loss_of(prepared, precision=torch.bfloat16)
    assert rounded.dtype == torch.float32
    assert rounded.item() != exact.item()
    assert rounded.item() == pytest.approx(exact.item(), rel=0.03)


def test_a_fine_tuning_batch_is_crops_and_their_classes(clips: Output) -> None:
    prepared = fine_tuning(clips, recipe(), held_out=["fleet/000.wav"])
    assert prepared.num_items == 5
    labels, margin, crops = prepared.batch([Draw(4, 0.0), Draw(0, 0.0)], step=0)  # clips 005 and 001
    assert crops.shape == (2, 8000)
    assert labels.tolist() == [2, 1]
    assert labels.dtype == torch.int64
    assert margin == 0.0
    np.testing.assert_array_equal(crops[1], CLIPS[1][2][:8000])


def test_wav2vec2_hears_normalised_crops(clips: Output) -> None:
    *_, crops = fine_tuning(clips, recipe(backbone={"family": "wav2vec2"})).batch([Draw(0, 0.0)], step=0)
    assert crops.std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("augmentation", [None, {"modes": ["resample"]}])
@pytest.mark.parametrize("family", ["hubert", "wav2vec2"])
def test_a_crop_is_trained_on_as_a_window_is_embedded(
    clips: Output, family: str, augmentation: dict[str, object] | None
) -> None:
    prepared = fine_tuning(clips, recipe(backbone={"family": family}, augmentation=augmentation))
    *_, crops = prepared.batch([Draw(0, 0.0), Draw(2, 0.0)], step=0)
    with torch.inference_mode():
        trained = prepared.module.eval().encoder(crops)
    waves = [CLIPS[clip][2] for clip in (0, 2)]
    embedded = [chunks[0] for chunks in prepared.system.embed_chunks(waves, Chunking(8000, 8000))]
    np.testing.assert_allclose(trained.numpy(), np.stack(embedded), rtol=1e-3, atol=1e-4)


def test_the_start_depends_on_the_seed_alone(clips: Output) -> None:
    torch.manual_seed(1)
    first = fine_tuning(clips, recipe()).module.state_dict()
    torch.manual_seed(2)
    again, other = (fine_tuning(clips, recipe(seed=seed)).module.state_dict() for seed in (0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["aam.weight"], other["aam.weight"])


def test_one_condition_is_nothing_to_learn(clips: Output) -> None:
    others = [name for name, condition, _ in CLIPS if condition != "machine0"]
    with pytest.raises(UserError, match=r"1 condition\(s\) in the training clips; at least 2 are needed"):
        fine_tuning(clips, recipe(), held_out=others)


def chunk_set(folder: Path) -> Output:
    """Three clips of 1, 3 and 2 chunks, in no order; every value of a clip's chunk n is its number + n / 10."""
    rows = [
        {"clip_id": clip_id, "condition": condition, "place": "abc".index(clip_id)}
        | {"chunks": [[number + place / 10] * 16 for place in range(length)]}
        for number, (clip_id, condition, length) in enumerate([("c", "valve", 1), ("a", "fan", 3), ("b", "valve", 2)])
    ]
    kind = pa.list_(pa.list_(pa.float32(), 16))
    names = [("clip_id", pa.string()), ("condition", pa.string()), ("place", pa.int64())]
    schema = pa.schema([*names, ("chunks", kind)])

    def work(attempt: Attempt) -> Outcome:
        parts = [pa.Table.from_pylist(part, schema=schema) for part in (rows[:1], rows[1:])]
        files = [attempt.put_table(f"chunks/{number:05d}.parquet", part) for number, part in enumerate(parts)]
        return Outcome(files, {})

    return build.run(str(folder), Key("embed", "chunks", 1, {}, {}), work)


def pooled(clips: Output, recipe: Recipe, folder: Path) -> pooling_objective.PreparedPooling:
    """On a backbone that was trained on as many conditions as there are among the chunks."""
    held_out = [name for name, condition, _ in CLIPS if condition == "machine2"]
    tuned = fine_tuning(clips, recipe.model_copy(update={"transformer_pooling": None}), held_out)
    base = build.run(str(folder / "root"), Key("train", "base", 1, {}, {}), tuned.save)
    return pooling_objective.Pooling(recipe, chunk_set(folder), base).prepare()


def test_a_pooling_batch_is_padded_chunks_and_their_mask(clips: Output, tmp_path: Path) -> None:
    prepared = pooled(clips, recipe(transformer_pooling=POOLING), tmp_path)
    assert prepared.num_items == 3
    labels, _, chunks, valid = prepared.batch([Draw(0, 0.5), Draw(2, 0.5), Draw(1, 0.5)], step=0)  # a, c, b
    assert labels.tolist() == [0, 1, 1]
    assert valid.tolist() == [[True, True, True], [True, False, False], [True, True, False]]
    expected = torch.tensor([[1.0, 1.1, 1.2], [0.0, 0.0, 0.0], [2.0, 2.1, 0.0]])
    torch.testing.assert_close(chunks, expected[..., None].expand(3, 3, 16))


def test_all_of_transformer_pooling_is_trained(clips: Output, tmp_path: Path) -> None:
    prepared = pooled(clips, recipe(transformer_pooling=POOLING), tmp_path)
    assert without_gradient(prepared) == ([], [])


@pytest.mark.parametrize("pooling", [False, True])
def test_what_was_trained_is_saved_as_it_is(clips: Output, tmp_path: Path, pooling: bool) -> None:
    made = recipe(transformer_pooling=POOLING if pooling else None)
    prepared = pooled(clips, made, tmp_path) if pooling else fine_tuning(clips, made, held_out=[CLIPS[0][0]])
    with torch.no_grad():
        for value in prepared.module.parameters():
            value.add_(0.01)
    attempt = Attempt(str(tmp_path / "attempt"))
    outcome = prepared.save(attempt)
    loaded = model_folder.load(*(Path(attempt.uri) / name for name in (CARD, WEIGHTS)))
    assert loaded.aam is not None
    encoder = loaded.system.pooling if pooling else loaded.system.embedder
    found = Classifier(encoder, loaded.aam).state_dict()  # type: ignore[arg-type]
    expected = prepared.module.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [file.path for file in outcome.files] == [CARD, WEIGHTS]
    assert outcome.counts == {"conditions": 2 if pooling else 3, "held_out": 2 if pooling else 1}
    assert loaded.card.steps == (1 if pooling else 6)


@pytest.mark.parametrize("pooling", [False, True])
def test_two_halves_of_a_batch_are_the_whole_one(clips: Output, tmp_path: Path, pooling: bool) -> None:
    """However long the clips of each half are: two workers train as one does."""
    made = recipe(transformer_pooling=POOLING)
    prepared = pooled(clips, made, tmp_path) if pooling else fine_tuning(clips, made)
    sampler = Sampler(prepared.num_items, 4, seed=0)

    def gradients(workers: int) -> list[torch.Tensor]:
        prepared.module.zero_grad()
        for rank in range(workers):
            batch = prepared.batch(sampler.draws(0, rank, workers), step=10_000)
            (prepared.module(*batch)["loss"] / workers).backward()
        return [value.grad.clone() for value in prepared.module.parameters() if value.grad is not None]

    torch.testing.assert_close(gradients(2), gradients(1), rtol=1e-4, atol=1e-5)
