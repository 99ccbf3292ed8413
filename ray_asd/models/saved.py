"""The saved model: a card that explains it, and tensors. Nothing else is needed to use it; nothing in it is code.

``model.json`` holds everything but the tensors, the backbone's architecture included, so that neither the hub nor the
original checkpoint is asked for again. ``weights.safetensors`` holds the tensors, whose sha256 stands in the card.
"""

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ray_asd import __version__, store
from ray_asd.config import Recipe
from ray_asd.errors import UserError
from ray_asd.models.card import CARD, WEIGHTS, ModelCard, read_card
from ray_asd.models.checkpoints import Checkpoint

_PACKAGES = ("torch", "transformers", "safetensors")


@dataclass(frozen=True)
class Training:
    """What the training knows and the weights do not tell."""

    checkpoint: Checkpoint | None
    conditions: Sequence[str]
    held_out: Sequence[str]
    steps: int


def save_tensors(
    folder: Path,
    tensors: Mapping[str, Tensor],
    recipe: Recipe,
    training: Training,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> ModelCard:
    """Write the two files of any model into ``folder``, which is created; ``facts`` are further fields of the card."""
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file({name: value.contiguous() for name, value in tensors.items()}, folder / WEIGHTS)
    card = ModelCard(
        system=recipe.system,
        recipe=recipe,
        checkpoint=training.checkpoint,
        conditions=list(training.conditions),
        held_out=list(training.held_out),
        steps=training.steps,
        versions={"python": platform.python_version(), "ray_asd": __version__}
        | {name: metadata.version(name) for name in _PACKAGES},
        weights_sha256=store.sha256(str(folder / WEIGHTS)),
        **facts,
    )
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n")
    return card


def load_tensors(card: Path, weights: Path) -> tuple[ModelCard, dict[str, Tensor]]:
    """The card and the tensors of any model.

    Raises:
        UserError: a file is missing, the card is no card or of another format, or the weights are not the card's.
    """
    description = read_card(card)
    if not weights.is_file() or store.sha256(str(weights)) != description.weights_sha256:
        raise UserError(f"{weights}: missing, or not the weights that {card} describes")
    with fitting(weights, card):
        return description, safetensors.torch.load_file(weights)


@contextmanager
def fitting(weights: Path, card: Path) -> Iterator[None]:
    """Loading the tensors of ``weights`` into what ``card`` describes: where they do not fit, a UserError says so."""
    try:
        yield
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise UserError(f"{weights}: its tensors do not fit the recipe in {card}") from error
