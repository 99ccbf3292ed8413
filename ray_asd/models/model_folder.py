"""The saved model: a card that explains it, and tensors. Nothing else is needed to embed; nothing in it is code.

``model.json`` holds everything but the tensors, the backbone's architecture included, so that neither the hub nor the
original checkpoint is asked for again. ``weights.safetensors`` holds the tensors, whose sha256 stands in the card.
"""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import safetensors.torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError

from ray_asd import __version__, storage
from ray_asd.config import SAMPLE_RATE, Recipe
from ray_asd.errors import UserError
from ray_asd.models import backbones
from ray_asd.models.aam import AAMSoftmax
from ray_asd.models.checkpoints import Checkpoint
from ray_asd.models.embedder import ClipEmbedder, assemble

FORMAT_VERSION = 1
CARD = "model.json"
WEIGHTS = "weights.safetensors"
_PACKAGES = ("torch", "transformers", "safetensors")


class ModelCard(BaseModel):
    """What a saved model is, where it comes from and what it was trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    system: str  # the row's name in every table
    recipe: Recipe
    checkpoint: Checkpoint  # what training started from, and the backbone's architecture
    sample_rate: int = SAMPLE_RATE  # Hz
    normalize: bool  # zero mean and unit variance per clip, as resolved for this backbone
    conditions: list[str]  # class names in the order of the classifier's rows
    held_out: list[str]  # clip_ids that were kept from training, to calibrate thresholds on
    steps: int  # of training
    layer_weights: list[float] | None  # of the weighted sum, from the first layer's input to the last layer
    versions: dict[str, str]
    weights_sha256: str


@dataclass(frozen=True)
class SavedModel:
    """A model as loaded: in evaluation mode, on the CPU."""

    system: ClipEmbedder
    aam: AAMSoftmax
    card: ModelCard


@dataclass(frozen=True)
class Training:
    """What the training knows and the weights do not tell."""

    checkpoint: Checkpoint
    conditions: Sequence[str]
    held_out: Sequence[str]
    steps: int


def save(folder: Path, system: ClipEmbedder, aam: AAMSoftmax, training: Training) -> ModelCard:
    """Write the two files into ``folder``, which is created; returns the card.

    Args:
        system: trained, its parameters on any device.
        aam: the classifier it was trained with; one row per condition.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in system.state_dict().items()}
    tensors |= {f"aam.{name}": value.contiguous() for name, value in aam.state_dict().items()}
    safetensors.torch.save_file(tensors, folder / WEIGHTS)
    weighted_sum = system.embedder.weighted_sum
    card = ModelCard(
        system=system.recipe.system,
        recipe=system.recipe,
        checkpoint=training.checkpoint,
        normalize=system.embedder.backbone.normalize,
        conditions=list(training.conditions),
        held_out=list(training.held_out),
        steps=training.steps,
        layer_weights=weighted_sum.weights.tolist() if weighted_sum else None,
        versions={"python": platform.python_version(), "ray_asd": __version__}
        | {name: metadata.version(name) for name in _PACKAGES},
        weights_sha256=storage.sha256(str(folder / WEIGHTS)),
    )
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n")
    return card


def load(card: Path, weights: Path) -> SavedModel:
    """The model of a local ``model.json`` and its ``weights.safetensors``.

    Raises:
        UserError: a file is missing, the card is no card or of another format, or the weights are not the card's.
    """
    description = read_card(card)
    if not weights.is_file() or storage.sha256(str(weights)) != description.weights_sha256:
        raise UserError(f"{weights}: missing, or not the weights that {card} describes")
    recipe = description.recipe
    system = assemble(recipe, backbones.build(description.checkpoint, recipe.backbone))
    aam = AAMSoftmax(recipe.embedding.dim, len(description.conditions), recipe.aam.scale)
    try:
        tensors = safetensors.torch.load_file(weights)
        aam.load_state_dict({"weight": tensors.pop("aam.weight")})
        system.load_state_dict(tensors)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise UserError(f"{weights}: its tensors do not fit the recipe in {card}") from error
    return SavedModel(system.eval(), aam.eval(), description)


def read_card(card: Path) -> ModelCard:
    """The validated card of a model folder.

    Raises:
        UserError: it is missing, no card, or written in another format.
    """
    try:
        values = json.loads(card.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{card}: no model card; a model folder holds {CARD} and {WEIGHTS}") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(f"{card}: model format {version!r}; this program reads format {FORMAT_VERSION}")
    try:
        return ModelCard.model_validate(values)
    except ValidationError as error:
        mistake = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in mistake["loc"])
        raise UserError(f"{card}: {where}: {mistake['msg']}") from error
