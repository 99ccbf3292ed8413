import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from ray_asd.errors import UserError
from ray_asd.models import embedder, model_folder
from ray_asd.models.aam import AAMSoftmax
from ray_asd.models.card import CARD, WEIGHTS, read_card
from ray_asd.models.checkpoints import resolve
from ray_asd.models.embedder import ClipEmbedder
from ray_asd.models.model_folder import SavedModel
from ray_asd.models.saved import Training
from small_models import make_recipe, noise, reference_model, save

TFP = {"steps": 1, "batch_size": 1, "feedforward": 32, "window_seconds": 0.2, "hop_seconds": 0.1}


def trained(source: str = "random:tiny", **sections: object) -> tuple[ClipEmbedder, AAMSoftmax, Training]:
    """A system with no parameter left at its initial value, as after training."""
    recipe = make_recipe(source, **{"embedding": {"dim": 16}, "inference": {"window_seconds": 0.2}, **sections})
    checkpoint = resolve(recipe.backbone, recipe.seed)
    system, aam = embedder.build(recipe, checkpoint), AAMSoftmax(16, 3, 32.0)
    with torch.no_grad():
        for parameter in system.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return system, aam, Training(checkpoint, ["fan", "pump,vel=1", "valve"], ["fleet/fan/a.wav"], 12)


def load(folder: Path) -> SavedModel:
    return model_folder.load(folder / CARD, folder / WEIGHTS)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"family": "wav2vec2", "transformer_pooling": TFP},
        {"family": "hubert", "embedding": {"dim": 16, "pooling": "attentive_statistics"}},
        {"family": "unispeech", "backbone": {"weighted_sum": False, "normalize": True}},
        {"backbone": {"spec_augment": True, "freeze": "feature_encoder"}, "augmentation": {}},
    ],
)
def test_a_loaded_model_embeds_exactly_as_before(tmp_path: Path, sections: dict[str, object]) -> None:
    system, aam, training = trained(**sections)
    clips = [noise(0.5, 1), noise(0.3, 2)]
    before = system.embed(clips)
    model_folder.save(tmp_path, system, aam, training)
    model = load(tmp_path)
    assert np.array_equal(model.system.embed(clips), before)
    assert torch.equal(model.aam.weight, aam.weight)
    trains = {name: parameter.requires_grad for name, parameter in system.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in model.system.named_parameters()} == trains
    assert not model.system.training


def test_the_original_checkpoint_is_not_needed_again(tmp_path: Path) -> None:
    source = save(reference_model("wavlm-group"), tmp_path / "source", "bin")
    system, aam, training = trained(source)
    model_folder.save(tmp_path / "model", system, aam, training)
    shutil.rmtree(source)
    model = load(tmp_path / "model")
    assert np.array_equal(model.system.embed([noise(0.3)]), system.embed([noise(0.3)]))
    assert sorted(model.card.checkpoint.identity) == ["config.json", "pytorch_model.bin"]
    model_folder.save(tmp_path / "again", model.system, model.aam, training)  # and it can be saved again
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / "model" / WEIGHTS).read_bytes()


def test_the_card_explains_the_model(tmp_path: Path) -> None:
    system, aam, training = trained(family="wav2vec2", seed=5)
    written = model_folder.save(tmp_path, system, aam, training)
    card = read_card(tmp_path / CARD)
    assert card.model_dump_json() == written.model_dump_json()
    assert card.recipe == system.recipe
    assert card.system == "wav2vec2+WS (random:tiny)"
    assert card.conditions == ["fan", "pump,vel=1", "valve"]
    assert card.held_out == ["fleet/fan/a.wav"]
    assert (card.steps, card.sample_rate, card.normalize, card.format_version) == (12, 16_000, True, 4)
    assert card.checkpoint.identity == training.checkpoint.identity
    assert card.layer_weights == system.embedder.weighted_sum.weights.tolist()
    assert card.versions["transformers"] == transformers.__version__
    assert sorted(path.name for path in tmp_path.iterdir()) == [CARD, WEIGHTS]


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    values = json.loads((folder / CARD).read_text())
    change(values)
    (folder / CARD).write_text(json.dumps(values))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    system, aam, training = trained()
    model_folder.save(tmp_path, system, aam, training)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.update(format_version=3), "model format 3; this program reads format 4"),
        (lambda card: card.pop("format_version"), "model format None"),
        (lambda card: card.pop("conditions"), "conditions: Field required"),
        (lambda card: card["recipe"].update(colour="red"), "recipe.colour: Extra inputs are not permitted"),
        (lambda card: card["recipe"]["embedding"].update(dim=8), "do not fit the recipe"),
        (lambda card: card["conditions"].pop(), "do not fit the recipe"),
    ],
)
def test_another_card_is_refused(folder: Path, change: Callable[[dict], object], message: str) -> None:
    edit(folder, change)
    with pytest.raises(UserError, match=message):
        load(folder)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_what_is_no_card_is_refused(folder: Path, content: bytes) -> None:
    (folder / CARD).write_bytes(content)
    with pytest.raises(UserError, match=r"model\.json: (no model card|model format None)"):
        load(folder)


def test_changed_or_missing_files_are_refused(folder: Path) -> None:
    weights = folder / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.safetensors: missing, or not the weights"):
        load(folder)
    weights.unlink()
    with pytest.raises(UserError, match=r"weights\.safetensors: missing, or not the weights"):
        load(folder)
    (folder / CARD).unlink()
    with pytest.raises(UserError, match="no model card; a model folder holds"):
        load(folder)
