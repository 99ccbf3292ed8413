"""Saving and loading a backbone with its pooling and head; ``saved`` has the two files of models of any kind."""

from dataclasses import dataclass
from pathlib import Path

from ray_asd.errors import UserError
from ray_asd.models import backbones
from ray_asd.models.aam import AAMSoftmax
from ray_asd.models.card import ModelCard
from ray_asd.models.embedder import ClipEmbedder, assemble
from ray_asd.models.saved import Training, fitting, load_tensors, save_tensors


@dataclass(frozen=True)
class SavedModel:
    """A model as loaded: in evaluation mode, on the CPU."""

    system: ClipEmbedder
    aam: AAMSoftmax | None  # None: nobody trained it
    card: ModelCard


def save(folder: Path, system: ClipEmbedder, aam: AAMSoftmax | None, training: Training) -> ModelCard:
    """Write the two files of a backbone into ``folder``, which is created; returns the card.

    Args:
        system: trained, its parameters on any device.
        aam: the classifier it was trained with, one row per condition; None for a frozen backbone.
    """
    weighted_sum = system.embedder.weighted_sum
    head = aam.state_dict() if aam else {}
    tensors = system.state_dict() | {f"aam.{name}": value for name, value in head.items()}
    facts = {
        "normalize": system.embedder.backbone.normalize,
        "layer_weights": weighted_sum.weights.tolist() if weighted_sum else None,
    }
    return save_tensors(folder, tensors, system.recipe, training, facts)


def load(card: Path, weights: Path) -> SavedModel:
    """The fine-tuned backbone of a local ``model.json`` and its ``weights.safetensors``.

    Raises:
        UserError: see :func:`saved.load_tensors`; or it is another kind of model.
    """
    description, tensors = load_tensors(card, weights)
    recipe, checkpoint = description.recipe, description.checkpoint
    if checkpoint is None:
        raise UserError(f"{card}: a {recipe.method} has no embeddings; allowed: a fine-tuned backbone")
    system = assemble(recipe, backbones.build(checkpoint, recipe.backbone))
    aam = AAMSoftmax(recipe.embedding.dim, len(description.conditions), recipe.aam.scale) if recipe.is_trained else None
    with fitting(weights, card):
        if aam:
            aam.load_state_dict({"weight": tensors.pop("aam.weight")})
        system.load_state_dict(tensors)
    return SavedModel(system.eval(), aam and aam.eval(), description)
