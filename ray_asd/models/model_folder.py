"""The saved model: a card that explains it, and tensors. Nothing else is needed to embed; nothing in it is code.

``model.json`` holds everything but the tensors, the backbone's architecture included, so that neither the hub nor the
original checkpoint is asked for again. ``weights.safetensors`` holds the tensors, whose sha256 stands in the card.
"""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from ray_asd import __version__, storage
from ray_asd.errors import UserError
from ray_asd.models import backbones
from ray_asd.models.aam import AAMSoftmax
from ray_asd.models.card import CARD, WEIGHTS, ModelCard, read_card
from ray_asd.models.checkpoints import Checkpoint
from ray_asd.models.embedder import ClipEmbedder, assemble

_PACKAGES = ("torch", "transformers", "safetensors")


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
